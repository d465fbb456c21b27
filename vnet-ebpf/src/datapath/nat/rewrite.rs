//! Rewriting: addresses, ports, TTL, checksums, in as few writes as it takes.
//!
//! The IPv4 header's sum is kept right by hand (RFC 1624); the L4 sum only through the hook, which
//! knows whether it is partial (law 3). What the pseudo-header covers and what the segment holds go in
//! separately for that reason. SCTP's CRC covers no addresses.

use vnet_common::{DropReason, conntrack::protocol, flow::Endpoints};

use crate::{
    context::{Covers, Frame},
    datapath::parse::Packet,
    wire::{
        checksum::{self, Diff},
        crc32c, ipv4,
        l4::{self, Sum},
    },
};

/// Translates a packet and counts its TTL down. The TTL must be above 1.
#[inline(always)]
pub fn rewrite<F: Frame>(frame: &mut F, packet: &Packet, to: &Endpoints) -> Result<(), DropReason> {
    let ports = packet.ports.ok_or(DropReason::UnsupportedProtocol)?;
    let fields = l4::fields(packet.protocol).ok_or(DropReason::UnsupportedProtocol)?;
    let addresses = Diff::default().double(packet.src.v4_raw(), to.src).double(packet.dst.v4_raw(), to.dst);
    write_header(frame, packet, to.src, to.dst, addresses)?;
    if packet.is_later_fragment {
        // The L4 header, and the checksum in it, were in the first one.
        return Ok(());
    }

    let mut segment = Diff::default();
    if ports.src != to.src_port {
        segment = segment.word(ports.src.raw(), to.src_port.raw());
        frame.write(packet.l4.wrapping_add(fields.src_port), to.src_port.raw().to_ne_bytes())?;
    }
    if ports.dst != to.dst_port {
        segment = segment.word(ports.dst.raw(), to.dst_port.raw());
        frame.write(packet.l4.wrapping_add(fields.dst_port), to.dst_port.raw().to_ne_bytes())?;
    }
    let at = packet.l4.wrapping_add(fields.checksum);
    if fields.sum == Sum::Crc32c {
        return if segment == Diff::default() { Ok(()) } else { update_crc(frame, packet, to) };
    }
    if fields.sum == Sum::WithPseudoHeader {
        frame.update_l4_checksum(at, addresses.sum(), Covers::PseudoHeader, fields.zero)?;
    }
    if segment != Diff::default() {
        frame.update_l4_checksum(at, segment.sum(), Covers::Segment, fields.zero)?;
    }
    Ok(())
}

/// Mends an SCTP packet's CRC after its ports have changed.
///
/// A function of its own: others do not need its stack.
#[inline(never)]
fn update_crc<F: Frame>(frame: &mut F, packet: &Packet, to: &Endpoints) -> Result<(), DropReason> {
    if packet.is_fragment {
        // Nobody knows how much follows.
        return Err(DropReason::FragmentNotTranslated);
    }
    let ports = packet.ports.ok_or(DropReason::UnsupportedProtocol)?;
    let from = Endpoints { src_port: ports.src, dst_port: ports.dst, ..Endpoints::default() };
    let at = packet.l4.wrapping_add(l4::SCTP_CHECKSUM);
    let crc: [u8; 4] = frame.read(at).ok_or(DropReason::RewriteFailed)?;
    frame.write(at, crc32c::with_ports_changed(crc, &from, to, packet.l4_length))
}

/// Gives an ICMP error new addresses and counts its TTL down. The TTL must be above 1.
#[inline(always)]
pub fn rewrite_addresses<F: Frame>(frame: &mut F, packet: &Packet, to: &Endpoints) -> Result<(), DropReason> {
    let addresses = Diff::default().double(packet.src.v4_raw(), to.src).double(packet.dst.v4_raw(), to.dst);
    write_header(frame, packet, to.src, to.dst, addresses)
}

/// Counts the TTL down and leaves the rest. The TTL must be above 1.
#[inline(always)]
pub fn rewrite_ttl<F: Frame>(frame: &mut F, packet: &Packet) -> Result<(), DropReason> {
    write_header(frame, packet, packet.src.v4_raw(), packet.dst.v4_raw(), Diff::default())
}

/// Writes the twelve bytes from TTL to destination address.
#[inline(always)]
fn write_header<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    src: u32,
    dst: u32,
    addresses: Diff,
) -> Result<(), DropReason> {
    let ttl = packet.ttl.wrapping_sub(1);
    let diff =
        addresses.word(u16::from_ne_bytes([packet.ttl, packet.protocol]), u16::from_ne_bytes([ttl, packet.protocol]));
    let sum = checksum::updated(packet.header_checksum, diff.sum(), crate::context::ZeroChecksum::Ordinary);
    let [c0, c1] = sum.to_ne_bytes();
    let [s0, s1, s2, s3] = src.to_ne_bytes();
    let [d0, d1, d2, d3] = dst.to_ne_bytes();
    let bytes = [ttl, packet.protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3];
    frame.write(packet.l3.wrapping_add(ipv4::FROM_TTL), bytes)
}

/// True where the L4 checksum is the bare pseudo-header sum: a segment whose sender left the rest to the
/// device. XDP cannot be told so; a wrong guess costs the detour by TC, no more.
#[inline(always)]
pub fn is_partial<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let Some(fields) = l4::fields(packet.protocol) else { return packet.protocol != protocol::ICMP };
    let at = packet.l4.wrapping_add(fields.checksum);
    match fields.sum {
        Sum::OfSegment => false,
        Sum::Crc32c => frame.read::<[u8; 4]>(at).is_none_or(|crc| crc == [0; 4]),
        Sum::WithPseudoHeader => {
            let Some(sum) = frame.read::<[u8; 2]>(at) else { return true };
            let (src, dst) = (packet.src.v4_raw(), packet.dst.v4_raw());
            u16::from_ne_bytes(sum) == checksum::pseudo_header_v4(src, dst, packet.protocol, packet.l4_length)
        }
    }
}
