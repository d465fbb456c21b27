//! Rewriting: addresses, ports, TTL, checksums, in as few writes as it takes.
//!
//! The IPv4 header's sum is kept right by hand (RFC 1624); the L4 sum only through the hook, which
//! knows whether it is partial (law 3). What the pseudo-header covers and what the segment holds go in
//! separately for that reason.

use vnet_common::{Be16, DropReason, Ip, conntrack::protocol, flow::FlowEntry};

use crate::{
    context::{Covers, Frame},
    datapath::parse::Packet,
    wire::{
        checksum::{self, Diff},
        ipv4, l4,
    },
};

/// The tuple that a packet leaves with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    pub src: Ip,
    pub dst: Ip,
    pub src_port: Be16,
    pub dst_port: Be16,
}

impl Translation {
    #[inline(always)]
    pub const fn of(flow: &FlowEntry) -> Self {
        Self { src: flow.src, dst: flow.dst, src_port: flow.src_port, dst_port: flow.dst_port }
    }
}

/// Translates a packet and counts its TTL down. The TTL must be above 1.
#[inline(always)]
pub fn rewrite<F: Frame>(frame: &mut F, packet: &Packet, to: &Translation) -> Result<(), DropReason> {
    let ports = packet.ports.ok_or(DropReason::UnsupportedProtocol)?;
    let fields = l4::fields(packet.protocol).ok_or(DropReason::UnsupportedProtocol)?;
    let addresses =
        Diff::default().double(packet.src.v4_raw(), to.src.v4_raw()).double(packet.dst.v4_raw(), to.dst.v4_raw());
    write_header(frame, packet, to.src, to.dst, addresses)?;

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
    if fields.has_pseudo_header {
        frame.update_l4_checksum(at, addresses.sum(), Covers::PseudoHeader, fields.zero)?;
    }
    if segment != Diff::default() {
        frame.update_l4_checksum(at, segment.sum(), Covers::Segment, fields.zero)?;
    }
    Ok(())
}

/// Counts the TTL down and leaves the rest. The TTL must be above 1.
#[inline(always)]
pub fn rewrite_ttl<F: Frame>(frame: &mut F, packet: &Packet) -> Result<(), DropReason> {
    write_header(frame, packet, packet.src, packet.dst, Diff::default())
}

/// Writes the twelve bytes from TTL to destination address.
#[inline(always)]
fn write_header<F: Frame>(frame: &mut F, packet: &Packet, src: Ip, dst: Ip, addresses: Diff) -> Result<(), DropReason> {
    let ttl = packet.ttl.wrapping_sub(1);
    let diff =
        addresses.word(u16::from_ne_bytes([packet.ttl, packet.protocol]), u16::from_ne_bytes([ttl, packet.protocol]));
    let sum = checksum::updated(packet.header_checksum, diff.sum(), crate::context::ZeroChecksum::Ordinary);
    let [c0, c1] = sum.to_ne_bytes();
    let [s0, s1, s2, s3] = src.v4_raw().to_ne_bytes();
    let [d0, d1, d2, d3] = dst.v4_raw().to_ne_bytes();
    let bytes = [ttl, packet.protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3];
    frame.write(packet.l3.wrapping_add(ipv4::FROM_TTL), bytes)
}

/// True where the L4 checksum is the bare pseudo-header sum: a segment whose sender left the rest to the
/// device. XDP cannot be told so; a wrong guess costs the detour by TC, no more.
#[inline(always)]
pub fn is_partial<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let Some(fields) = l4::fields(packet.protocol) else { return packet.protocol != protocol::ICMP };
    if !fields.has_pseudo_header {
        return false;
    }
    let Some(sum) = frame.read::<[u8; 2]>(packet.l4.wrapping_add(fields.checksum)) else { return true };
    let bare = checksum::pseudo_header_v4(packet.src.v4_raw(), packet.dst.v4_raw(), packet.protocol, packet.l4_length);
    u16::from_ne_bytes(sum) == bare
}
