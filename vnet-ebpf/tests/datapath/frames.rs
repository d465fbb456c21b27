//! An independent builder of frames (etherparse), and an independent judge of checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type,
    IpFragOffset, IpNumber, Ipv4Header, TcpHeader, UdpHeader,
};
use vnet_common::Mac;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of Ethernet and IPv4 headers.
pub const L4_AT: usize = 34;
/// Offsets of the checksums in a packet without options.
pub const TCP_CHECKSUM_AT: usize = L4_AT + 16;
pub const UDP_CHECKSUM_AT: usize = L4_AT + 6;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp(u8),
    Udp,
    UdpWithoutChecksum,
    /// The identifier is the source port.
    EchoRequest,
    /// The identifier is the destination port.
    EchoReply,
    /// A protocol of this number, without a header.
    Other(u8),
}

/// An IPv4 packet to be, in its frame.
#[derive(Clone, Debug)]
pub struct Packet {
    pub dst_mac: Mac,
    pub src_mac: Mac,
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub l4: L4,
    pub ttl: u8,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    /// In units of eight bytes.
    pub fragment_offset: u16,
    pub more_fragments: bool,
    pub payload: Vec<u8>,
    /// The L4 checksum is the bare pseudo-header sum.
    pub is_partial: bool,
}

impl Packet {
    pub fn new(l4: L4, src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        Self {
            dst_mac: Mac::ZERO,
            src_mac: Mac::ZERO,
            src,
            dst,
            l4,
            ttl: 64,
            options: Vec::new(),
            fragment_offset: 0,
            more_fragments: false,
            payload: b"all that is gold does not glitter".to_vec(),
            is_partial: false,
        }
    }

    pub fn link(self, dst_mac: Mac, src_mac: Mac) -> Self {
        Self { dst_mac, src_mac, ..self }
    }

    pub fn src(self, src: SocketAddrV4) -> Self {
        Self { src, ..self }
    }

    pub fn dst(self, dst: SocketAddrV4) -> Self {
        Self { dst, ..self }
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// With as much payload as makes the IPv4 packet `length` bytes long.
    pub fn length(mut self, length: usize) -> Self {
        self.payload.clear();
        let headers = self.bytes().len() - ETHERNET;
        self.payload = vec![0x5a; length - headers];
        self
    }

    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub fn fragment(self, fragment_offset: u16, more_fragments: bool) -> Self {
        Self { fragment_offset, more_fragments, ..self }
    }

    pub fn partial(self) -> Self {
        Self { is_partial: true, ..self }
    }

    fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp(_) => 6,
            L4::Udp | L4::UdpWithoutChecksum => 17,
            L4::EchoRequest | L4::EchoReply => 1,
            L4::Other(protocol) => protocol,
        }
    }

    /// The L4 header, with a checksum over all.
    fn l4_header(&self, ip: &Ipv4Header) -> Vec<u8> {
        match self.l4 {
            L4::Tcp(flags) => {
                let mut tcp = TcpHeader::new(self.src.port(), self.dst.port(), 1000, 8192);
                (tcp.fin, tcp.syn) = (flags & FIN != 0, flags & SYN != 0);
                (tcp.rst, tcp.ack) = (flags & RST != 0, flags & ACK != 0);
                // Of more than 64 KiB only a partial sum is right.
                tcp.checksum = tcp.calc_checksum_ipv4(ip, &self.payload).unwrap_or(0);
                tcp.to_bytes().to_vec()
            }
            L4::Udp | L4::UdpWithoutChecksum => {
                let make = match self.l4 {
                    L4::Udp => {
                        UdpHeader::with_ipv4_checksum(self.src.port(), self.dst.port(), ip, &self.payload).unwrap()
                    }
                    _ => {
                        UdpHeader::without_ipv4_checksum(self.src.port(), self.dst.port(), self.payload.len()).unwrap()
                    }
                };
                make.to_bytes().to_vec()
            }
            L4::EchoRequest => {
                let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: self.src.port(), seq: 7 });
                Icmpv4Header::with_checksum(echo, &self.payload).to_bytes().to_vec()
            }
            L4::EchoReply => {
                let echo = Icmpv4Type::EchoReply(IcmpEchoHeader { id: self.dst.port(), seq: 7 });
                Icmpv4Header::with_checksum(echo, &self.payload).to_bytes().to_vec()
            }
            L4::Other(_) => Vec::new(),
        }
    }

    /// The whole frame.
    pub fn bytes(&self) -> Vec<u8> {
        let l4_header_length = match self.l4 {
            L4::Tcp(_) => 20,
            L4::Other(_) => 0,
            _ => 8,
        };
        let mut ip =
            Ipv4Header::new(0, self.ttl, IpNumber(self.protocol()), self.src.ip().octets(), self.dst.ip().octets())
                .unwrap();
        ip.identification = 0x1234;
        ip.dont_fragment = false;
        ip.more_fragments = self.more_fragments;
        ip.fragment_offset = IpFragOffset::try_new(self.fragment_offset).unwrap();
        ip.options = self.options.as_slice().try_into().unwrap();
        // More than 64 KiB: BIG TCP says 0.
        let total = 20 + self.options.len() + l4_header_length + self.payload.len();
        ip.total_len = u16::try_from(total).unwrap_or(0);
        ip.header_checksum = ip.calc_header_checksum();
        let link = Ethernet2Header { destination: self.dst_mac.0, source: self.src_mac.0, ether_type: EtherType::IPV4 };
        let mut bytes = link.to_bytes().to_vec();
        bytes.extend(ip.to_bytes());
        bytes.extend(self.l4_header(&ip));
        bytes.extend(&self.payload);
        if self.is_partial {
            make_partial(&mut bytes);
        }
        bytes
    }
}

impl From<&Packet> for Vec<u8> {
    fn from(packet: &Packet) -> Self {
        packet.bytes()
    }
}

/// An ARP frame: `operation` 1 asks, 2 answers.
pub fn arp(operation: u16, link: (Mac, Mac), sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation(operation),
        &sender.0.0,
        &sender.1.octets(),
        &target.0.0,
        &target.1.octets(),
    )
    .unwrap();
    let (dst, src) = link;
    ethernet(dst, src, EtherType::ARP.0, &packet.to_bytes())
}

/// A question to everybody.
pub fn arp_request(sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    arp(1, (Mac::BROADCAST, sender.0), sender, (Mac::ZERO, target))
}

pub fn ethernet(dst: Mac, src: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { destination: dst.0, source: src.0, ether_type: EtherType(ether_type) };
    [&header.to_bytes()[..], payload].concat()
}

/// The frame with a tag in its bytes.
pub fn tagged(ether_type: u16, tci: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &ether_type.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1071: the folded sum, not complemented.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|two| u64::from(two[0]) << 8 | two.get(1).map_or(0, |low| u64::from(*low)));
    let mut total: u64 = words.sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// What lies where in an untagged IPv4 frame.
struct Layout {
    l4: usize,
    end: usize,
    checksum: usize,
    pseudo: Vec<u8>,
}

fn layout(frame: &[u8]) -> Option<Layout> {
    let l4 = ETHERNET + usize::from(frame[ETHERNET] & 0x0f) * 4;
    let end = match be16(frame, ETHERNET + 2) {
        0 => frame.len(),
        total => ETHERNET + usize::from(total),
    };
    let protocol = frame[ETHERNET + 9];
    let checksum = l4
        + match protocol {
            1 => 2,
            6 => 16,
            17 => 6,
            _ => return None,
        };
    let length = u32::try_from(end - l4).unwrap();
    let mut pseudo = Vec::new();
    if protocol != 1 {
        pseudo.extend(&frame[ETHERNET + 12..ETHERNET + 20]);
        // As the kernel counts it: in 32 bits.
        pseudo.extend([0, protocol]);
        pseudo.extend(length.to_be_bytes());
    }
    Some(Layout { l4, end, checksum, pseudo })
}

/// Puts the bare pseudo-header sum into the place of the L4 checksum.
pub fn make_partial(frame: &mut [u8]) {
    let Some(Layout { checksum, pseudo, .. }) = layout(frame) else { return };
    frame[checksum..checksum + 2].copy_from_slice(&sum(&[&pseudo]).to_be_bytes());
}

/// Does what the device does with a partial checksum.
pub fn finish_partial(frame: &mut [u8]) {
    let Some(Layout { l4, end, checksum, .. }) = layout(frame) else { return };
    let whole = !sum(&[&frame[l4..end]]);
    frame[checksum..checksum + 2].copy_from_slice(&whole.to_be_bytes());
}

/// Judges the checksums of an untagged IPv4 frame by full computation; `Err` says what is wrong.
pub fn judge(frame: &[u8]) -> Result<(), String> {
    let header = ETHERNET + usize::from(frame[ETHERNET] & 0x0f) * 4;
    if sum(&[&frame[ETHERNET..header]]) != 0xffff {
        return Err("IPv4 header checksum".to_owned());
    }
    let is_fragment = be16(frame, ETHERNET + 6) & 0x3fff != 0;
    let Some(Layout { l4, end, checksum, pseudo }) = layout(frame) else { return Ok(()) };
    let is_absent = frame[ETHERNET + 9] == 17 && be16(frame, checksum) == 0;
    if is_fragment || is_absent || sum(&[&pseudo, &frame[l4..end]]) == 0xffff {
        return Ok(());
    }
    Err(format!("L4 checksum {:04x}", be16(frame, checksum)))
}
