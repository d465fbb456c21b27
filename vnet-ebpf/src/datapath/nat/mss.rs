//! MSS clamping: a SYN asks for no longer segments than both ports can carry.
//!
//! Path-MTU discovery finds that out, too, where ICMP gets through; this spares it (and helps where it does
//! not). The option is only ever lowered, and only where it stands; options that are malformed are the
//! receiver's business.

use vnet_common::{
    DropReason,
    conntrack::{protocol, tcp_flag},
};

use crate::{
    context::{Covers, Frame},
    datapath::parse::Packet,
    tables::Tables,
    wire::{checksum::Diff, l4, tcp},
};

/// Lowers the MSS of a SYN or SYN/ACK to what the port that it came in by and the one it leaves by (whose MTU
/// is given) can carry. XDP leaves every SYN to TC.
#[inline(always)]
pub fn clamp<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet, mtu: u16) -> Result<(), DropReason> {
    let is_syn =
        packet.protocol == protocol::TCP && packet.ports.is_some_and(|ports| ports.tcp_flags & tcp_flag::SYN != 0);
    if !F::COMPLETE || !is_syn {
        return Ok(());
    }
    match find(frame, packet.l4) {
        0 => Ok(()),
        at => lower(frame, tables, packet.l4, at, mtu),
    }
}

/// Lowers the size at `at` in the segment at `l4`.
#[inline(never)]
fn lower<F: Frame, T: Tables>(frame: &mut F, tables: &T, l4: u32, at: u32, mtu: u16) -> Result<(), DropReason> {
    let ingress = tables.vport_by_ifindex(frame.ifindex()).and_then(|id| tables.vport(id));
    let mtu = ingress.map_or(mtu, |vport| vport.mtu.min(mtu));
    // An MTU of 0 is not known.
    let Some(limit) = mtu.checked_sub(tcp::HEADERS_IPV4) else { return Ok(()) };
    let (Some(high), Some(low)) = (frame.byte(at), frame.byte(at.wrapping_add(1))) else { return Ok(()) };
    if u16::from_be_bytes([high, low]) <= limit {
        return Ok(());
    }
    let diff = write(frame, at, limit.to_be_bytes())?;
    let fields = l4::fields(protocol::TCP).ok_or(DropReason::RewriteFailed)?;
    frame.update_l4_checksum(l4.wrapping_add(fields.checksum), diff.sum(), Covers::Segment, fields.zero)
}

/// Offset of the size that the MSS option of the segment at `l4` holds; 0 where there is none.
///
/// It and [`lower`] are functions of their own, side by side: not on the stack of every packet, nor of each other.
#[inline(never)]
fn find<F: Frame>(frame: &mut F, l4: u32) -> u32 {
    let Some(words) = frame.byte(l4.wrapping_add(l4::TCP_DATA_OFFSET)) else { return 0 };
    let end = l4.wrapping_add(u32::from(words >> 4).wrapping_mul(4));
    let mut option = l4.wrapping_add(l4::TCP_HEADER);
    let mut found = 0;
    frame.repeat(tcp::MAX_OPTIONS, |frame, _| {
        if option >= end {
            return false;
        }
        let Some(kind) = frame.byte(option) else { return false };
        if kind == tcp::NO_OPERATION {
            option = option.wrapping_add(1);
            return true;
        }
        let Some(length) = frame.byte(option.wrapping_add(1)) else { return false };
        let next = option.wrapping_add(u32::from(length));
        if kind == tcp::END_OF_LIST || length < 2 || next > end {
            return false;
        }
        if kind == tcp::MAXIMUM_SEGMENT_SIZE {
            if length == tcp::MAXIMUM_SEGMENT_SIZE_LENGTH {
                found = option.wrapping_add(2);
            }
            return false;
        }
        option = next;
        true
    });
    found
}

/// Writes two bytes of a TCP header, at an odd offset too, and says what it changes of the sum.
#[inline(always)]
fn write<F: Frame>(frame: &mut F, at: u32, [new_high, new_low]: [u8; 2]) -> Result<Diff, DropReason> {
    // The words of the sum begin at even offsets, as headers and frames do.
    let first = at & !1;
    frame.pull(first.wrapping_add(4));
    let [before, old_first]: [u8; 2] = frame.read(first).ok_or(DropReason::RewriteFailed)?;
    let word = |a: u8, b: u8| u16::from_ne_bytes([a, b]);
    if first == at {
        frame.write(first, [new_high, new_low])?;
        return Ok(Diff::default().word(word(before, old_first), word(new_high, new_low)));
    }
    let second = first.wrapping_add(2);
    let [old_second, behind]: [u8; 2] = frame.read(second).ok_or(DropReason::RewriteFailed)?;
    frame.write(first, [before, new_high])?;
    frame.write(second, [new_low, behind])?;
    let diff = Diff::default().word(word(before, old_first), word(before, new_high));
    Ok(diff.word(word(old_second, behind), word(new_low, behind)))
}
