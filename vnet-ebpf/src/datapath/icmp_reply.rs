//! ICMP reply: a packet that cannot be routed becomes an ICMP error to its sender, and goes back out of the
//! port that it came in on.
//!
//! It quotes the packet as it arrived, before any translation: 576 bytes in all (RFC 1812 4.3.2.3), from the
//! address that the sender knows the router by. What must not be answered (RFC 1122 3.2.2, RFC 1812
//! 4.3.2.7) is not, and each port has an [`super::ErrorBudget`]. The drop is counted under its own
//! reason, answered or not.
//!
//! TC only: XDP passes up what it cannot route. Left out: RFC 4884's extensions, and fragmentation. No TC
//! helper fragments, and the host's stack must not forward (law 11), so a packet over the MTU that might be
//! fragmented is answered like one that must not be: path-MTU discovery then mends it.

mod answerable;

use network_types::ip::Ipv4Hdr;
use vnet_common::{
    DropReason, Ip,
    conntrack::protocol,
    stats::EventCount,
    vport::{VportEntry, VportId, VportRole},
};

use super::{Outcome, Work, parse::Packet};
use crate::{
    context::{Covers, Frame, Side, ZeroChecksum},
    tables::Tables,
    wire::{
        checksum, ethernet,
        icmp::{self, Error},
        ipv4, l4,
    },
};

/// Bytes of an error's packet, at most.
const MAX_PACKET: u32 = 576;
/// Bytes of the headers before the quotation.
const HEADERS: u32 = ipv4::HEADER + icmp::HEADER;
/// Bytes of a quotation, at most.
const MAX_QUOTED: u32 = MAX_PACKET - HEADERS;
/// Words of four bytes in it.
const MAX_WORDS: u32 = MAX_QUOTED / 4;

/// Time to live of an error (RFC 1700's default).
const TTL: u8 = 64;
/// Type of service: the packet's own, with precedence "internetwork control" (RFC 1812 4.3.2.5).
const TOS_KEPT: u8 = 0x1e;
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Hands an outcome of the routed path on; what it dropped is answered, where it may be.
#[inline(always)]
pub fn with_reply<F: Frame, T: Tables>(frame: &mut F, tables: &T, from_vport: VportId, outcome: Outcome) -> Outcome {
    if F::COMPLETE
        && let Err(reason) = outcome
    {
        reply(frame, tables, from_vport, reason);
    }
    outcome
}

/// The error that tells the sender of a reason for a drop.
#[inline(always)]
const fn error(reason: DropReason, is_from_guest: bool) -> Error {
    match reason {
        DropReason::TtlExceeded => Error::TtlExceeded,
        DropReason::OverMtu => Error::TooBig,
        // From the outside there is a network, but not this guest.
        DropReason::NoRoute if !is_from_guest => Error::HostUnreachable,
        DropReason::NoRoute | DropReason::NotAnUplink | DropReason::NoExternalAddress => Error::NetUnreachable,
        DropReason::PortsExhausted
        | DropReason::TableFull
        | DropReason::GuestConnections
        | DropReason::GuestPorts
        | DropReason::GuestRate
        | DropReason::OutsideRefused => Error::Prohibited,
        _ => Error::None,
    }
}

/// An error to be sent.
#[repr(C)]
pub struct ErrorMessage {
    error: Error,
    pad: u8,
    /// Of the next hop, in bytes of an IP packet, for [`Error::TooBig`].
    mtu: u16,
    /// The router's address, raw.
    source: u32,
    /// Bytes of the packet that are quoted, and the sum of their words in memory order, not folded.
    length: u32,
    sum: u32,
}

#[cfg(not(target_arch = "bpf"))]
impl ErrorMessage {
    pub const EMPTY: Self = Self { error: Error::None, pad: 0, mtu: 0, source: 0, length: 0, sum: 0 };
}

/// Sends an error about the packet in the working memory.
///
/// In steps side by side, each a function of its own: below one another they would need more stack than there
/// is ("combined stack size of 5 calls is 528. Too large").
#[inline(never)]
fn reply<F: Frame, T: Tables>(frame: &mut F, tables: &T, from_vport: VportId, reason: DropReason) {
    let Some(mut work) = tables.work() else { return };
    if !decide(frame, tables, &mut work, from_vport, reason) {
        return;
    }
    if !tables.error_budget(from_vport).is_some_and(|budget| budget.take(frame.now())) {
        tables.count_event(EventCount::IcmpErrorsLimited);
        return;
    }
    if quote(frame, &mut work).is_ok() && write(frame, &work).is_ok() {
        frame.redirect(frame.ifindex(), Side::Egress);
        tables.count_sent(from_vport, frame.len());
        tables.count_event(EventCount::IcmpErrorsSent);
    }
}

/// Decides what is sent, into `work.error`. False: nothing.
#[inline(never)]
fn decide<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    work: &mut Work,
    from_vport: VportId,
    reason: DropReason,
) -> bool {
    let Some(vport) = tables.vport(from_vport) else { return false };
    let is_from_guest = vport.role() == Some(VportRole::Guest);
    let error = error(reason, is_from_guest);
    if error == Error::None || !answerable::may_be_answered(frame, tables, &work.packet) {
        return false;
    }
    let next_hop = if error == Error::TooBig { work.next_hop.to_vport } else { 0 };
    work.error.mtu = tables.vport(next_hop).map_or(0, |vport| vport.mtu);
    work.error.error = error;
    work.error.source =
        if is_from_guest { gateway_address(tables, &vport, &work.packet) } else { vport.external.v4_raw() };
    work.error.source != 0
}

/// The gateway's address (raw) in the subnet of the guest that sent the packet; 0 where it has none, or where
/// the source is the subnet's broadcast address.
#[inline(always)]
fn gateway_address<T: Tables>(tables: &T, vport: &VportEntry, packet: &Packet) -> u32 {
    let Some(network) = tables.network(vport.network) else { return 0 };
    if answerable::is_broadcast_of(&network, &packet.src) {
        return 0;
    }
    let holds = |length: u8, gateway: &Ip| length != 0 && packet.src.in_prefix(gateway, length);
    let subnet = network.subnets.iter().find(|subnet| holds(subnet.length, &subnet.gateway));
    subnet.map_or(0, |subnet| subnet.gateway.v4_raw())
}

/// Makes the packet the quotation of an error whose headers are still to be written.
#[inline(never)]
fn quote<F: Frame>(frame: &mut F, work: &mut Work) -> Result<(), DropReason> {
    work.error.length = quoted_length(frame, &work.packet);
    frame.quote(work.packet.l3.wrapping_add(work.error.length), HEADERS)?;
    work.error.sum = sum_quoted(frame, &work.packet, work.error.length)?;
    Ok(())
}

/// Writes the headers, and turns the link addresses round.
#[inline(never)]
fn write<F: Frame>(frame: &mut F, work: &Work) -> Result<(), DropReason> {
    let Work { packet, error, .. } = work;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]: [u8; 12] =
        frame.read(ethernet::ADDRESSES).ok_or(DropReason::RewriteFailed)?;
    frame.write(ethernet::ADDRESSES, [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])?;
    // A number of its own would have to be remembered; the packet's is as good.
    let id = packet.l3.wrapping_add(HEADERS).wrapping_add(ipv4::IDENTIFICATION);
    let header = Ipv4Hdr {
        vihl: 0x45,
        tos: packet.tos & TOS_KEPT | INTERNETWORK_CONTROL,
        tot_len: (HEADERS.wrapping_add(error.length) as u16).to_be_bytes(),
        id: frame.read(id).ok_or(DropReason::RewriteFailed)?,
        frags: [0; 2],
        ttl: TTL,
        proto: protocol::ICMP,
        check: [0; 2],
        src_addr: error.source.to_ne_bytes(),
        dst_addr: packet.src.v4_raw().to_ne_bytes(),
    };
    frame.write(packet.l3, ipv4::with_checksum(header))?;
    frame.write(packet.l3.wrapping_add(ipv4::HEADER), error.error.header(error.mtu, error.sum))
}

/// Bytes of the packet that are quoted; what lies behind its total length is padding.
#[inline(always)]
fn quoted_length<F: Frame>(frame: &F, packet: &Packet) -> u32 {
    let header = packet.l4.wrapping_sub(packet.l3) as u16;
    let available = frame.len().saturating_sub(packet.l3);
    let length = match packet.l4_length.wrapping_add(header) {
        // A GSO frame of more than 64 KiB.
        0 => available,
        total => available.min(u32::from(total)),
    };
    length.min(MAX_QUOTED)
}

/// The sum of the quotation's words, as the error's checksum takes them.
///
/// Where the device has still to complete the quoted L4 checksum (it will: the kernel's note of it moves with
/// the bytes), what it makes of the segment sums up to the complement of what stands in the field now,
/// whatever the segment's bytes are (Documentation/networking/checksum-offloads.rst, "local checksum offload").
#[inline(always)]
fn sum_quoted<F: Frame>(frame: &mut F, packet: &Packet, length: u32) -> Result<u32, DropReason> {
    let l3 = packet.l3.wrapping_add(HEADERS);
    let Some(fields) = l4::fields(packet.protocol) else { return sum(frame, l3, length) };
    if packet.ports.is_none() {
        return sum(frame, l3, length);
    }
    let header = packet.l4.wrapping_sub(packet.l3);
    let at = l3.wrapping_add(header).wrapping_add(fields.checksum);
    let field: [u8; 2] = frame.read(at).ok_or(DropReason::RewriteFailed)?;
    if !is_left_to_device(frame, at, field)? {
        return sum(frame, l3, length);
    }
    if fields.sum != l4::Sum::WithPseudoHeader {
        // The device writes something else there than an Internet checksum.
        return Err(DropReason::RewriteFailed);
    }
    Ok(sum(frame, l3, header)?.wrapping_add(u32::from(!u16::from_ne_bytes(field))))
}

/// True where the L4 checksum at `at`, which holds `field`, is partial. Unlike at XDP it is certain here: the
/// kernel leaves a partial checksum alone when the segment's bytes change.
#[inline(always)]
fn is_left_to_device<F: Frame>(frame: &mut F, at: u32, field: [u8; 2]) -> Result<bool, DropReason> {
    frame.update_l4_checksum(at, 1, Covers::Segment, ZeroChecksum::Ordinary)?;
    let after: [u8; 2] = frame.read(at).ok_or(DropReason::RewriteFailed)?;
    frame.write(at, field)?;
    Ok(after == field)
}

/// The sum of `length` bytes from `at` (even) on, as 16-bit words in memory order, not folded.
#[inline(never)]
fn sum<F: Frame>(frame: &mut F, at: u32, length: u32) -> Result<u32, DropReason> {
    let mut total = 0u32;
    let mut is_whole = true;
    frame.repeat((length / 4).min(MAX_WORDS), |frame, turn| {
        match frame.read::<[u8; 4]>(at.wrapping_add(turn.wrapping_mul(4))) {
            // At most 137 words: it does not overflow.
            Some([a, b, c, d]) => {
                let (first, second) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
                total = total.wrapping_add(u32::from(first)).wrapping_add(u32::from(second));
                true
            }
            None => {
                is_whole = false;
                false
            }
        }
    });
    let mut tail = [0u8; 4];
    let rest = length % 4;
    let end = at.wrapping_add(length.wrapping_sub(rest));
    for (index, place) in (0u32..).zip(&mut tail) {
        if index < rest {
            *place = frame.byte(end.wrapping_add(index)).ok_or(DropReason::RewriteFailed)?;
        }
    }
    if !is_whole {
        return Err(DropReason::RewriteFailed);
    }
    let [a, b, c, d] = tail;
    let tail = u32::from(u16::from_ne_bytes([a, b])).wrapping_add(u32::from(u16::from_ne_bytes([c, d])));
    Ok(u32::from(checksum::fold(total)).wrapping_add(tail))
}
