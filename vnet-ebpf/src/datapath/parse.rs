//! Parsing: Ethernet with at most one tag recognised, then IPv4 and the L4 fields that NAT keys on.

use network_types::{eth::EthHdr, icmp::Icmpv4Hdr, ip::Ipv4Hdr, udp::UdpHdr, vlan::VlanHdr};
use vnet_common::{
    Be16, DropReason, Ip, Mac,
    conntrack::{protocol, tcp_flag},
    vport::{UNTAGGED, vid},
};

use crate::{
    context::Frame,
    wire::{ethernet, icmp, ipv4, l4 as fields},
};

/// Headers that are made readable before parsing: Ethernet, a tag, IPv4 with options, TCP.
const HEADERS: u32 = 14 + 4 + 60 + 20;

/// What stands for [`Frame::gso_size`] where segments differ in size (include/linux/skbuff.h).
const GSO_BY_FRAGS: u32 = 0xffff;

/// What the Ethernet header says.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet {
    pub dst: Mac,
    pub src: Mac,
    /// VLAN identifier of the outer tag.
    pub vlan: u16,
    /// Raw ethertype behind the tag.
    pub ether_type: u16,
    /// Offset of what it announces.
    pub payload: u32,
}

/// Parses the Ethernet header; the tag may lie in the skb's metadata or in the bytes.
#[inline(always)]
pub fn parse_ethernet<F: Frame>(frame: &mut F) -> Result<Ethernet, DropReason> {
    frame.pull(frame.len().min(HEADERS));
    let header: EthHdr = frame.read(0).ok_or(DropReason::TruncatedEthernet)?;
    let (dst, src) = (Mac(header.dst_addr), Mac(header.src_addr));
    if let Some(tag) = frame.metadata_tag() {
        let (vlan, ether_type) = (vid(tag), header.ether_type);
        return Ok(Ethernet { dst, src, vlan, ether_type, payload: ethernet::HEADER });
    }
    if !ethernet::is_tag(header.ether_type) {
        return Ok(Ethernet { dst, src, vlan: UNTAGGED, ether_type: header.ether_type, payload: ethernet::HEADER });
    }
    let tag: VlanHdr = frame.read(ethernet::HEADER).ok_or(DropReason::TruncatedVlan)?;
    Ok(Ethernet {
        dst,
        src,
        vlan: vid(Be16::from_bytes(tag.tci)),
        ether_type: tag.ether_type,
        payload: ethernet::HEADER.wrapping_add(ethernet::TAG),
    })
}

/// What can be translated of a packet's L4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// As [`vnet_common::flow::FlowKey`] has them.
    pub src: Be16,
    pub dst: Be16,
    /// Byte 13 of a TCP header. Of SCTP the type of the first chunk (RFC 9260 section 3.2). An ICMP reply has
    /// ACK here, so that one with the identifier 0 is not taken for a request; else 0.
    pub tcp_flags: u8,
}

/// What the packet says.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub src: Ip,
    pub dst: Ip,
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    /// The header's checksum as it lies in memory.
    pub header_checksum: u16,
    /// Offsets of the headers.
    pub l3: u32,
    pub l4: u32,
    /// Bytes behind the IP header.
    pub l4_length: u16,
    /// The identification, as it lies in the header.
    pub id: u16,
    /// Of a datagram's last fragment: bytes of the whole datagram behind its IP header; else 0.
    pub datagram_length: u32,
    pub is_fragment: bool,
    /// A fragment without the L4 header.
    pub is_later_fragment: bool,
    /// An ICMP error that quotes a packet.
    pub is_icmp_error: bool,
    /// What can be translated; `None` for fragments and other protocols.
    pub ports: Option<Ports>,
}

/// Parses the IPv4 header at `l3` and what follows it, into `packet`.
#[inline(never)]
pub fn parse_ipv4<F: Frame>(frame: &F, l3: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let header: Ipv4Hdr = frame.read(l3).ok_or(DropReason::TruncatedIpv4)?;
    let available = frame.len().saturating_sub(l3);
    let header_length = ipv4::lengths(&header, available, frame.gso_size() != 0)?;
    packet.src = Ip::from_v4_raw(u32::from_ne_bytes(header.src_addr));
    packet.dst = Ip::from_v4_raw(u32::from_ne_bytes(header.dst_addr));
    packet.protocol = header.proto;
    packet.ttl = header.ttl;
    packet.tos = header.tos;
    packet.header_checksum = u16::from_ne_bytes(header.check);
    packet.l3 = l3;
    packet.l4 = l3.wrapping_add(header_length);
    packet.l4_length = u16::from_be_bytes(header.tot_len).wrapping_sub(header_length as u16);
    packet.id = u16::from_ne_bytes(header.id);
    packet.is_fragment = ipv4::is_fragment(&header);
    packet.datagram_length = ipv4::last_end(header.frags, packet.l4_length);
    packet.is_later_fragment = ipv4::is_later_fragment(header.frags);
    packet.is_icmp_error = false;
    if header.proto == protocol::ICMP && !packet.is_fragment {
        let [kind, _]: [u8; 2] = frame.read(packet.l4).ok_or(DropReason::TruncatedL4)?;
        packet.is_icmp_error = icmp::is_end_to_end_error(kind);
    }
    packet.ports =
        if packet.is_fragment { None } else { parse_ports(frame, header.proto, packet.l4, packet.l4_length)? };
    Ok(())
}

/// Parses the L4 header: `Ok(None)` for what has no ports to translate.
#[inline(always)]
pub fn parse_ports<F: Frame>(frame: &F, protocol: u8, l4: u32, length: u16) -> Result<Option<Ports>, DropReason> {
    let header = match protocol {
        protocol::TCP => fields::TCP_HEADER,
        protocol::SCTP => fields::SCTP_HEADER,
        _ => fields::UDP_HEADER,
    };
    // What lies behind the packet's total length is padding, not a header.
    let is_cut_off = u32::from(length) < header;
    match protocol {
        protocol::TCP | protocol::UDP | protocol::ICMP | protocol::SCTP if is_cut_off => Err(DropReason::TruncatedL4),
        protocol::TCP => {
            let ports: [u8; 4] = frame.read(l4).ok_or(DropReason::TruncatedL4)?;
            // The last byte of the smallest header must be there: its checksum is rewritten.
            let _: [u8; 2] = frame.read(l4.wrapping_add(fields::TCP_HEADER - 2)).ok_or(DropReason::TruncatedL4)?;
            let [_, tcp_flags] = frame.read(l4.wrapping_add(fields::TCP_DATA_OFFSET)).ok_or(DropReason::TruncatedL4)?;
            let [s0, s1, d0, d1] = ports;
            Ok(Some(Ports { src: Be16::from_bytes([s0, s1]), dst: Be16::from_bytes([d0, d1]), tcp_flags }))
        }
        protocol::SCTP => {
            let [s0, s1, d0, d1, ..]: [u8; 12] = frame.read(l4).ok_or(DropReason::TruncatedL4)?;
            let chunk: Option<[u8; 2]> = frame.read(l4.wrapping_add(fields::SCTP_HEADER));
            let tcp_flags = match chunk {
                Some([chunk_type, _]) if u32::from(length) > fields::SCTP_HEADER => chunk_type,
                _ => fields::NO_CHUNK,
            };
            Ok(Some(Ports { src: Be16::from_bytes([s0, s1]), dst: Be16::from_bytes([d0, d1]), tcp_flags }))
        }
        protocol::UDP => {
            let header: UdpHdr = frame.read(l4).ok_or(DropReason::TruncatedL4)?;
            let (src, dst) = (Be16::from_bytes(header.src), Be16::from_bytes(header.dst));
            Ok(Some(Ports { src, dst, tcp_flags: 0 }))
        }
        protocol::ICMP => {
            let header: Icmpv4Hdr = frame.read(l4).ok_or(DropReason::TruncatedL4)?;
            let [i0, i1, ..] = header.data;
            let id = Be16::from_bytes([i0, i1]);
            Ok(match header.type_ {
                fields::ICMP_ECHO => Some(Ports { src: id, dst: Be16::ZERO, tcp_flags: 0 }),
                fields::ICMP_ECHO_REPLY => Some(Ports { src: Be16::ZERO, dst: id, tcp_flags: tcp_flag::ACK }),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

/// Bytes of the longest frame that the device behind sends for this one: a GSO frame counts by its
/// segments, whose headers are those of the whole.
#[inline(always)]
pub fn sent_length<F: Frame>(frame: &F, ether_type: u16, l3: u32) -> u32 {
    let gso_size = frame.gso_size();
    if gso_size == 0 {
        return frame.len();
    }
    if gso_size == GSO_BY_FRAGS {
        // SCTP: its sender made the packets, whose sizes nobody else knows, and made them fit.
        return 0;
    }
    segment_length(frame, ether_type, l3, gso_size).unwrap_or(frame.len())
}

/// Headers and `gso_size`; `None` where the headers are cut off.
#[inline(always)]
fn segment_length<F: Frame>(frame: &F, ether_type: u16, l3: u32, gso_size: u32) -> Option<u32> {
    // The byte before the protocol number, and the L4 header (IPv6 without extension headers).
    let (protocol_at, l4) = if ether_type == ethernet::IPV4 {
        let [vihl, _]: [u8; 2] = frame.read(l3)?;
        (l3.wrapping_add(8), l3.wrapping_add(u32::from(vihl & 0x0f).wrapping_mul(4)))
    } else {
        (l3.wrapping_add(5), l3.wrapping_add(40))
    };
    let [_, protocol]: [u8; 2] = frame.read(protocol_at)?;
    let header = if protocol == protocol::TCP {
        let [offset, _]: [u8; 2] = frame.read(l4.wrapping_add(fields::TCP_DATA_OFFSET))?;
        u32::from(offset >> 4).wrapping_mul(4)
    } else {
        fields::UDP_HEADER
    };
    Some(l4.wrapping_add(header).wrapping_add(gso_size))
}
