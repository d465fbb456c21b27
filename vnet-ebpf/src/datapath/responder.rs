//! Responder: ARP for the gateway, answered in place (B10).

use network_types::arp::ArpHdr;
use vnet_common::{DropReason, config::NetworkEntry};

use super::parse::Ethernet;
use crate::{
    context::Frame,
    wire::{arp, ethernet},
};

/// Turns a request for one of the gateway's addresses into the reply and sends it back where it came
/// from. False for every other frame.
#[inline(never)]
pub fn reply_arp<F: Frame>(frame: &mut F, eth: &Ethernet, network: &NetworkEntry) -> Result<bool, DropReason> {
    let request: ArpHdr = frame.read(eth.payload).ok_or(DropReason::TruncatedArp)?;
    let asks_gateway = arp::requested(&request).is_some_and(|address| network.is_gateway_address(&address));
    if !asks_gateway {
        return Ok(false);
    }
    frame.write(ethernet::ADDRESSES, ethernet::addresses(eth.src, network.gateway_mac))?;
    frame.write(eth.payload, arp::reply(&request, network.gateway_mac))?;
    Ok(true)
}
