//! Which packets an ICMP error may be sent about (RFC 1122 3.2.2, RFC 1812 4.3.2.7): no error, no fragment but
//! the first, nothing to or from more than one host.

use vnet_common::{Ip, config::NetworkEntry, conntrack::protocol};

use crate::{
    context::Frame,
    datapath::parse::Packet,
    tables::Tables,
    wire::{ethernet, icmp, ipv4},
};

/// True for a packet about which an error may be sent.
#[inline(always)]
pub fn may_be_answered<F: Frame, T: Tables>(frame: &F, tables: &T, packet: &Packet) -> bool {
    // The routed path takes untagged frames only.
    if packet.l3 != ethernet::HEADER || !is_one_host(packet.src.v4_raw()) || ipv4::is_unroutable(packet.dst.v4_raw()) {
        return false;
    }
    // Our own address cannot come in from anywhere.
    if tables.is_local(&packet.src) || is_broadcast(tables, &packet.dst) || is_broadcast(tables, &packet.src) {
        return false;
    }
    let Some(fragment) = frame.read::<[u8; 2]>(packet.l3.wrapping_add(ipv4::FRAGMENT)) else { return false };
    if ipv4::is_later_fragment(fragment) {
        return false;
    }
    if packet.protocol != protocol::ICMP {
        return true;
    }
    let Some([type_, _]) = frame.read::<[u8; 2]>(packet.l4) else { return false };
    icmp::is_query(type_)
}

/// True for an address (raw) that can be one host's.
#[inline(always)]
const fn is_one_host(raw: u32) -> bool {
    let [first, ..] = raw.to_ne_bytes();
    first != 0 && first != 127 && !ipv4::is_unroutable(raw)
}

/// True for the broadcast address of a subnet that is known here: those of routed networks.
#[inline(always)]
fn is_broadcast<T: Tables>(tables: &T, address: &Ip) -> bool {
    let Some(id) = tables.routed_network(address) else { return false };
    tables.network(id).is_some_and(|network| is_broadcast_of(&network, address))
}

/// True for the broadcast address of one of the network's subnets.
#[inline(always)]
pub fn is_broadcast_of(network: &NetworkEntry, address: &Ip) -> bool {
    network.subnets.iter().any(|subnet| {
        let host_bits = u32::from(128u8.wrapping_sub(subnet.length));
        subnet.length > 96
            && host_bits > 1
            && address.in_prefix(&subnet.gateway, subnet.length)
            && u32::from_be(address.v4_raw()) | u32::MAX.wrapping_shl(host_bits) == u32::MAX
    })
}
