//! Guard: source addresses that no honest guest sends.

use vnet_common::{DropReason, config::NetworkEntry};

use super::parse::Ethernet;

/// Refuses frames from a guest port that must not enter the switch.
#[inline(always)]
pub fn check_guest_frame(eth: &Ethernet, network: &NetworkEntry) -> Result<(), DropReason> {
    if eth.src.is_group() || eth.src.is_zero() {
        return Err(DropReason::GroupSource);
    }
    if eth.src == network.gateway_mac {
        return Err(DropReason::GatewaySource);
    }
    if eth.dst.is_link_local_control() {
        return Err(DropReason::LinkLocalControl);
    }
    Ok(())
}
