//! Ethernet II and 802.1Q.

use network_types::eth::EtherType;
use vnet_common::Mac;

/// Bytes of an Ethernet header without a tag.
pub const HEADER: u32 = 14;
/// Bytes of one VLAN tag.
pub const TAG: u32 = 4;
/// Offset of the two addresses, destination first.
pub const ADDRESSES: u32 = 0;

/// Ethertypes as the raw word that lies in the header.
pub const IPV4: u16 = EtherType::Ipv4 as u16;
pub const IPV6: u16 = EtherType::Ipv6 as u16;
pub const ARP: u16 = EtherType::Arp as u16;
const VLAN: u16 = EtherType::Ieee8021q as u16;
const SERVICE_VLAN: u16 = EtherType::Ieee8021ad as u16;

/// True for the ethertypes of a VLAN tag (802.1Q and 802.1ad).
#[inline(always)]
pub const fn is_tag(ether_type: u16) -> bool {
    ether_type == VLAN || ether_type == SERVICE_VLAN
}

/// Destination and source as the twelve bytes that open a frame.
#[inline(always)]
pub const fn addresses(dst: Mac, src: Mac) -> [u8; 12] {
    let (d, s) = (dst.0, src.0);
    [d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1], s[2], s[3], s[4], s[5]]
}
