//! An independent builder of frames: plain bytes, right checksums, and every field open to be spoilt.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::checksum;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802 local experimental ethertype: means nothing to anybody.
pub const ETHERTYPE_TEST: u16 = 0x88b5;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address after this one.
    pub fn next(self) -> Self {
        let [a, b, c, d, e, f] = self.0;
        Self([a, b, c, d, e, f.wrapping_add(1)])
    }

    pub fn parse(text: &str) -> Option<Self> {
        let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The big-endian word at an offset.
pub fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

pub fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat()
}

/// Puts a VLAN tag (priority, DEI and VID as one word) into a frame.
pub fn tagged(tci: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &ETHERTYPE_VLAN.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

/// An ARP packet (without its Ethernet header); operation 1 asks, 2 answers.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4];
    [&fixed[..], &operation.to_be_bytes(), &sender.0.0, &sender.1.octets(), &target.0.0, &target.1.octets()].concat()
}

/// A whole broadcast frame that asks who has `target`.
pub fn arp_request(sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    ethernet(Mac::BROADCAST, sender.0, ETHERTYPE_ARP, &arp(1, sender, (Mac([0; 6]), target)))
}

/// An IPv4 header to be.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    /// Flags and fragment offset as they stand in the header.
    pub fragment: u16,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self { src, dst, protocol, tos: 0, ttl: 64, id: 0x1234, fragment: 0, options: Vec::new(), payload }
    }

    pub fn udp(src: SocketAddrV4, dst: SocketAddrV4, payload: &[u8]) -> Self {
        let length = (8 + payload.len()) as u16;
        let datagram = [&ports(src, dst)[..], &length.to_be_bytes(), &[0, 0], payload].concat();
        Self::new(*src.ip(), *dst.ip(), UDP, datagram).with_l4_checksum(6)
    }

    pub fn tcp(src: SocketAddrV4, dst: SocketAddrV4, flags: u8, payload: &[u8]) -> Self {
        let fixed = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
        let segment = [&ports(src, dst)[..], &fixed, payload].concat();
        Self::new(*src.ip(), *dst.ip(), TCP, segment).with_l4_checksum(16)
    }

    /// Kind 8 asks, 0 answers.
    pub fn icmp_echo(src: Ipv4Addr, dst: Ipv4Addr, kind: u8, identifier: u16, payload: &[u8]) -> Self {
        let message = [&[kind, 0, 0, 0][..], &identifier.to_be_bytes(), &[0, 7], payload].concat();
        Self::new(src, dst, ICMP, message).with_l4_checksum(2)
    }

    /// TCP with options (a multiple of four bytes).
    pub fn tcp_with_options(src: SocketAddrV4, dst: SocketAddrV4, flags: u8, options: &[u8]) -> Self {
        let words = (5 + options.len() / 4) as u8;
        let fixed = [0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0x20, 0, 0, 0, 0, 0];
        let segment = [&ports(src, dst)[..], &fixed, options].concat();
        Self::new(*src.ip(), *dst.ip(), TCP, segment).with_l4_checksum(16)
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// Overwrites payload bytes without mending the checksum.
    pub fn spoil(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.payload[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Computes the checksum that lies at `offset` of the payload.
    pub fn with_l4_checksum(self, offset: usize) -> Self {
        let zeroed = self.spoil(offset, &[0, 0]);
        let header = zeroed.header();
        let pseudo = checksum::pseudo_header(&header, zeroed.payload.len());
        let pseudo: &[u8] = if zeroed.protocol == ICMP { &[] } else { &pseudo };
        let sum = match checksum::checksum(&[pseudo, &zeroed.payload]) {
            0 if zeroed.protocol == UDP => 0xffff,
            sum => sum,
        };
        zeroed.spoil(offset, &sum.to_be_bytes())
    }

    fn header(&self) -> Vec<u8> {
        let length = 20 + self.options.len();
        let total = (length + self.payload.len()) as u16;
        let mut header = vec![0x40 | (length / 4) as u8, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.src.octets());
        header.extend(self.dst.octets());
        header.extend(&self.options);
        let sum = checksum::checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    pub fn packet(&self) -> Vec<u8> {
        [self.header(), self.payload.clone()].concat()
    }

    pub fn frame(&self, dst: Mac, src: Mac) -> Vec<u8> {
        ethernet(dst, src, ETHERTYPE_IPV4, &self.packet())
    }
}

fn ports(src: SocketAddrV4, dst: SocketAddrV4) -> [u8; 4] {
    let ([a, b], [c, d]) = (src.port().to_be_bytes(), dst.port().to_be_bytes());
    [a, b, c, d]
}

/// What a frame says of itself, for looking at captured ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub dst: Mac,
    pub src: Mac,
    pub tci: Option<u16>,
    pub ethertype: u16,
    pub ipv4: Option<Ipv4Summary>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4Summary {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    /// Of TCP and UDP.
    pub src_port: u16,
    pub dst_port: u16,
    /// Offset of the L4 header in the frame.
    pub l4: usize,
}

/// Reads a frame; nothing for what has no Ethernet header.
pub fn summary(frame: &[u8]) -> Option<Summary> {
    let mac = |offset: usize| frame.get(offset..offset + 6)?.try_into().ok().map(Mac);
    let (offset, ethertype) = checksum::network_header(frame)?;
    let tci = if offset > ETHERNET { be16(frame, ETHERNET) } else { None };
    let ipv4 = if ethertype == ETHERTYPE_IPV4 { ipv4_summary(frame, offset) } else { None };
    Some(Summary { dst: mac(0)?, src: mac(6)?, tci, ethertype, ipv4 })
}

fn ipv4_summary(frame: &[u8], offset: usize) -> Option<Ipv4Summary> {
    let header = frame.get(offset..offset + 20)?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let l4 = offset + usize::from(header[0] & 0x0f) * 4;
    Some(Ipv4Summary {
        src: address(12),
        dst: address(16),
        protocol: header[9],
        ttl: header[8],
        src_port: be16(frame, l4).unwrap_or(0),
        dst_port: be16(frame, l4 + 2).unwrap_or(0),
        l4,
    })
}
