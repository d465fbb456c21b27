//! Responder: ARP for the gateway (B10) and for external addresses of pools, answered in place.

use network_types::arp::ArpHdr;
use vnet_common::{DropReason, Mac, config::NetworkEntry, vport::VportId};

use super::parse::Ethernet;
use crate::{
    context::Frame,
    tables::Tables,
    wire::{arp, ethernet},
};

/// Turns a request for one of the gateway's addresses into the reply and sends it back where it came
/// from. False for every other frame.
#[inline(never)]
pub fn reply_arp<F: Frame>(frame: &mut F, eth: &Ethernet, network: &NetworkEntry) -> Result<bool, DropReason> {
    let request: ArpHdr = frame.read(eth.payload).ok_or(DropReason::TruncatedArp)?;
    let asks_gateway = arp::requested(&request).is_some_and(|address| network.is_gateway_address(&address));
    if asks_gateway {
        answer(frame, eth, &request, network.gateway_mac)?;
    }
    Ok(asks_gateway)
}

/// The same on an uplink, for the addresses of pools that the host does not carry itself.
#[inline(never)]
pub fn reply_arp_for_pool<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    eth: &Ethernet,
    uplink: VportId,
) -> Result<bool, DropReason> {
    let Some(request) = frame.read::<ArpHdr>(eth.payload) else { return Ok(false) };
    let Some(address) = arp::requested(&request) else { return Ok(false) };
    let Some(id) = tables.external_network(&address) else { return Ok(false) };
    let Some(network) = tables.network(id) else { return Ok(false) };
    let Some(vport) = tables.vport(uplink) else { return Ok(false) };
    if !network.has_uplink(uplink) || tables.is_local(&address) {
        return Ok(false);
    }
    answer(frame, eth, &request, vport.mac)?;
    Ok(true)
}

#[inline(always)]
fn answer<F: Frame>(frame: &mut F, eth: &Ethernet, request: &ArpHdr, mac: Mac) -> Result<(), DropReason> {
    frame.write(ethernet::ADDRESSES, ethernet::addresses(eth.src, mac))?;
    frame.write(eth.payload, arp::reply(request, mac))
}
