//! ARP over Ethernet for IPv4 (RFC 826).

use network_types::arp::ArpHdr;
use vnet_common::{Ip, Mac};

const ETHERNET: [u8; 2] = 1u16.to_be_bytes();
const IPV4: [u8; 2] = 0x0800u16.to_be_bytes();
const REQUEST: [u8; 2] = 1u16.to_be_bytes();
const REPLY: [u8; 2] = 2u16.to_be_bytes();

/// The address that a well-formed request asks for; `None` for anything else.
#[inline(always)]
pub fn requested(arp: &ArpHdr) -> Option<Ip> {
    let well_formed = arp.htype == ETHERNET && arp.ptype == IPV4 && arp.hlen == 6 && arp.plen == 4;
    if well_formed && arp.oper == REQUEST { Some(Ip::from_v4_raw(u32::from_ne_bytes(arp.tpa))) } else { None }
}

/// The answer to `request`: the address that it asks for is at `mac`.
#[inline(always)]
pub const fn reply(request: &ArpHdr, mac: Mac) -> ArpHdr {
    ArpHdr { oper: REPLY, sha: mac.0, spa: request.tpa, tha: request.sha, tpa: request.spa, ..*request }
}
