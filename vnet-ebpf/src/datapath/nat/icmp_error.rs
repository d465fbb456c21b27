//! ICMP errors about translated packets: what they quote is turned back into what its sender has sent
//! (RFC 5508 REQ-3 to REQ-5), with every checksum right. They never keep a connection alive, nor end one.
//!
//! Types 3, 11 and 12 pass. Source quench is deprecated (RFC 6633), redirects concern one link only.

use network_types::{icmp::Icmpv4Hdr, ip::Ipv4Hdr};
use vnet_common::{
    Be16, DropReason,
    config::{NetworkId, OUTSIDE},
    conntrack::protocol,
    flow::{Connection, Direction, Endpoints, FlowKey, KeptPath},
};

use crate::{
    context::{Covers, Frame, ZeroChecksum},
    datapath::{Work, conntrack::Known, parse::Packet, path},
    tables::{
        Tables,
        pairs::{self, Pairs as _},
    },
    wire::{
        checksum::{self, Diff},
        crc32c, icmp, ipv4,
        l4::{self, Sum},
    },
};

/// The packet that an ICMP error quotes, and what it must become.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Quotation {
    /// Offsets of its headers.
    pub l3: u32,
    pub l4: u32,
    /// Bytes of its segment that are there.
    pub available: u32,
    /// As quoted, and as its sender sent it.
    pub quoted: Endpoints,
    pub sent: Endpoints,
    pub protocol: u8,
    pub pad: u8,
    /// Bytes of its segment that were sent.
    pub l4_length: u16,
    pub header_checksum: u16,
    pub pad2: u16,
}

impl Quotation {
    pub const NONE: Self = Self {
        l3: 0,
        l4: 0,
        available: 0,
        quoted: Endpoints { src: 0, dst: 0, src_port: Be16::ZERO, dst_port: Be16::ZERO },
        sent: Endpoints { src: 0, dst: 0, src_port: Be16::ZERO, dst_port: Be16::ZERO },
        protocol: 0,
        pad: 0,
        l4_length: 0,
        header_checksum: 0,
        pad2: 0,
    };
}

/// Finds the connection that an ICMP error is about, and the way to the sender of what it quotes. The new
/// addresses of the error itself are left in `work.translation`.
#[inline(never)]
pub fn find_reported<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from: NetworkId,
) -> Result<Known, DropReason> {
    if !F::COMPLETE {
        return Ok(Known::PassUp);
    }
    if !read_quotation(frame, &work.packet, &mut work.quotation) {
        return Ok(Known::Nothing);
    }
    // What is quoted went the other way: it is an answer to what comes from here.
    work.key = FlowKey::new(work.quotation.quoted.reversed(), from, work.quotation.protocol);
    work.found = pairs::find(tables.connections(), &work.key);
    if work.found.is_nothing() {
        return Ok(Known::Nothing);
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let index = work.found.index();
    let direction = Direction::of(work.found.side());
    let Some(connection) = tables.connections().record(index) else { return Ok(Known::Nothing) };
    work.quotation.sent = connection.translated(direction).reversed();
    work.translation = new_addresses(&work.packet, &work.quotation, from);
    let id = connection.path_network(direction);
    let Some(network) = tables.network(id) else { return Ok(Known::Nothing) };
    let stamp = KeptPath::stamp(network.generation.load(), index, frame.now());
    if let Some(slot) = path::kept(&connection, direction, stamp) {
        path::take::<F, T>(tables, slot, &mut work.next_hop)?;
        return Ok(Known::Decided);
    }
    Ok(Known::Undecided { network: id, goes_outside: goes_outside(&connection, direction) })
}

/// Reads what an error quotes: the IP header, and eight bytes of the segment at least (RFC 792).
#[inline(never)]
fn read_quotation<F: Frame>(frame: &mut F, packet: &Packet, quotation: &mut Quotation) -> bool {
    let l3 = packet.l4.wrapping_add(icmp::HEADER);
    frame.pull(frame.len().min(l3.wrapping_add(QUOTED_HEADERS)));
    let Some(header) = frame.read::<Ipv4Hdr>(l3) else { return false };
    let header_length = u32::from(header.vihl & 0x0f).wrapping_mul(4);
    let end = packet.l4.wrapping_add(u32::from(packet.l4_length));
    let l4 = l3.wrapping_add(header_length);
    let available = end.saturating_sub(l4);
    let is_sound = header.vihl >> 4 == 4 && header_length >= ipv4::HEADER && available >= LEAST_QUOTED;
    if !is_sound || ipv4::is_later_fragment(header.frags) {
        return false;
    }
    quotation.l3 = l3;
    quotation.l4 = l4;
    quotation.available = available;
    quotation.protocol = header.proto;
    quotation.l4_length = u16::from_be_bytes(header.tot_len).wrapping_sub(header_length as u16);
    quotation.header_checksum = u16::from_ne_bytes(header.check);
    quotation.quoted.src = u32::from_ne_bytes(header.src_addr);
    quotation.quoted.dst = u32::from_ne_bytes(header.dst_addr);
    read_quoted_ports(frame, quotation)
}

#[inline(always)]
fn read_quoted_ports<F: Frame>(frame: &F, quotation: &mut Quotation) -> bool {
    match quotation.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let Some([s0, s1, d0, d1]) = frame.read::<[u8; 4]>(quotation.l4) else { return false };
            quotation.quoted.src_port = Be16::from_bytes([s0, s1]);
            quotation.quoted.dst_port = Be16::from_bytes([d0, d1]);
            true
        }
        protocol::ICMP => {
            let Some(header) = frame.read::<Icmpv4Hdr>(quotation.l4) else { return false };
            let [i0, i1, ..] = header.data;
            let id = Be16::from_bytes([i0, i1]);
            let is_request = header.type_ == l4::ICMP_ECHO;
            quotation.quoted.src_port = if is_request { id } else { Be16::ZERO };
            quotation.quoted.dst_port = if is_request { Be16::ZERO } else { id };
            is_request || header.type_ == l4::ICMP_ECHO_REPLY
        }
        _ => false,
    }
}

/// Bytes of a quoted IP header with options and of the smallest TCP header.
const QUOTED_HEADERS: u32 = 60 + 20;
/// Bytes of a quoted segment, at least.
const LEAST_QUOTED: u32 = 8;

#[inline(always)]
const fn goes_outside(connection: &Connection, direction: Direction) -> bool {
    connection.destination(direction) == OUTSIDE
}

/// The error's own addresses: to the sender of the quoted packet, and from where that was sent to, if it
/// comes from there or from behind us (RFC 5508 REQ-4 and REQ-5); a router outside keeps its address.
#[inline(always)]
fn new_addresses(packet: &Packet, quotation: &Quotation, from: NetworkId) -> Endpoints {
    let src = packet.src.v4_raw();
    let is_ours = from != OUTSIDE || src == quotation.quoted.dst;
    Endpoints {
        src: if is_ours { quotation.sent.dst } else { src },
        dst: quotation.sent.src,
        src_port: Be16::ZERO,
        dst_port: Be16::ZERO,
    }
}

/// Rewrites what the error quotes, and mends the error's own checksum.
#[inline(never)]
pub fn rewrite_quotation<F: Frame>(frame: &mut F, packet: &Packet, quotation: &Quotation) -> Result<(), DropReason> {
    let Quotation { quoted, sent, .. } = quotation;
    let fields = l4::fields(quotation.protocol).ok_or(DropReason::UnsupportedProtocol)?;
    let addresses = Diff::default().double(quoted.src, sent.src).double(quoted.dst, sent.dst);
    // The header: its own sum stays right, and so its words add up to what they did before.
    let sum = checksum::updated(quotation.header_checksum, addresses.sum(), ZeroChecksum::Ordinary);
    let [s0, s1, s2, s3] = sent.src.to_ne_bytes();
    let [d0, d1, d2, d3] = sent.dst.to_ne_bytes();
    frame.write(quotation.l3.wrapping_add(ipv4::CHECKSUM), sum.to_ne_bytes())?;
    frame.write(quotation.l3.wrapping_add(ipv4::SOURCE), [s0, s1, s2, s3])?;
    frame.write(quotation.l3.wrapping_add(ipv4::DESTINATION), [d0, d1, d2, d3])?;
    let mut changed =
        Diff::default().double(quoted.src, sent.src).double(quoted.dst, sent.dst).word(quotation.header_checksum, sum);
    let mut segment = Diff::default();
    if quoted.src_port != sent.src_port {
        segment = segment.word(quoted.src_port.raw(), sent.src_port.raw());
        frame.write(quotation.l4.wrapping_add(fields.src_port), sent.src_port.raw().to_ne_bytes())?;
        changed = changed.word(quoted.src_port.raw(), sent.src_port.raw());
    }
    if quoted.dst_port != sent.dst_port {
        segment = segment.word(quoted.dst_port.raw(), sent.dst_port.raw());
        frame.write(quotation.l4.wrapping_add(fields.dst_port), sent.dst_port.raw().to_ne_bytes())?;
        changed = changed.word(quoted.dst_port.raw(), sent.dst_port.raw());
    }
    let diff = match fields.sum {
        Sum::WithPseudoHeader => segment.plus(addresses),
        Sum::OfSegment | Sum::Crc32c => segment,
    };
    changed = changed.plus(match fields.sum {
        Sum::Crc32c => mend_crc(frame, quotation)?,
        _ => mend_segment(frame, quotation, &fields, diff)?,
    });
    let at = packet.l4.wrapping_add(icmp::CHECKSUM);
    frame.update_l4_checksum(at, changed.sum(), Covers::Segment, ZeroChecksum::Ordinary)
}

/// Mends the quoted segment's checksum, where it is quoted. Returns how its words changed by that.
#[inline(always)]
fn mend_segment<F: Frame>(
    frame: &mut F,
    quotation: &Quotation,
    fields: &l4::Fields,
    diff: Diff,
) -> Result<Diff, DropReason> {
    if fields.checksum.wrapping_add(2) > quotation.available {
        return Ok(Diff::default());
    }
    let at = quotation.l4.wrapping_add(fields.checksum);
    let old: [u8; 2] = frame.read(at).ok_or(DropReason::RewriteFailed)?;
    let old = u16::from_ne_bytes(old);
    let new = checksum::updated(old, diff.sum(), fields.zero);
    frame.write(at, new.to_ne_bytes())?;
    Ok(Diff::default().word(old, new))
}

/// As [`mend_segment`], for SCTP: the CRC of the whole packet can be mended where only its head is quoted.
#[inline(never)]
fn mend_crc<F: Frame>(frame: &mut F, quotation: &Quotation) -> Result<Diff, DropReason> {
    if quotation.available < l4::SCTP_HEADER {
        return Ok(Diff::default());
    }
    let at = quotation.l4.wrapping_add(l4::SCTP_CHECKSUM);
    let old: [u8; 4] = frame.read(at).ok_or(DropReason::RewriteFailed)?;
    let new = crc32c::with_ports_changed(old, &quotation.quoted, &quotation.sent, quotation.l4_length);
    frame.write(at, new)?;
    Ok(Diff::default().double(u32::from_ne_bytes(old), u32::from_ne_bytes(new)))
}
