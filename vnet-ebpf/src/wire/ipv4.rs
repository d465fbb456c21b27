//! IPv4 (RFC 791).

use network_types::ip::Ipv4Hdr;
use vnet_common::DropReason;

use super::checksum;

/// Bytes of a header without options.
pub const HEADER: u32 = 20;
/// Offset of the identification, and of the word of flags and fragment offset.
pub const IDENTIFICATION: u32 = 4;
pub const FRAGMENT: u32 = 6;
/// Offsets of the header's checksum and addresses.
pub const CHECKSUM: u32 = 10;
pub const SOURCE: u32 = 12;
pub const DESTINATION: u32 = 16;
/// Offset of the twelve bytes from TTL to the destination address, which forwarding rewrites.
pub const FROM_TTL: u32 = 8;

/// "More fragments", and the fragment offset, in the flags word.
const MORE_OR_OFFSET: u16 = 0x3fff;
/// "More fragments" alone.
const MORE: u16 = 0x2000;
/// The fragment offset alone.
const OFFSET: u16 = 0x1fff;

/// Header length in bytes and total length, checked against `available` bytes (header included).
///
/// `total_length` may be 0 on a GSO frame above 64 KiB (IPv4 BIG TCP, kernel ≥ 6.3).
#[inline(always)]
pub fn lengths(header: &Ipv4Hdr, available: u32, is_gso: bool) -> Result<u32, DropReason> {
    if header.vihl >> 4 != 4 {
        return Err(DropReason::InvalidIpv4);
    }
    // Bounded for the verifier: 20 to 60.
    let header_length = u32::from(header.vihl & 0x0f).wrapping_mul(4);
    if header_length < HEADER {
        return Err(DropReason::InvalidIpv4);
    }
    let total_length = u32::from(u16::from_be_bytes(header.tot_len));
    if total_length < header_length && !(is_gso && total_length == 0) {
        return Err(DropReason::InvalidIpv4);
    }
    if total_length > available || header_length > available {
        return Err(DropReason::TruncatedIpv4);
    }
    Ok(header_length)
}

/// True for any part of a fragmented datagram.
#[inline(always)]
pub const fn is_fragment(header: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(header.frags) & MORE_OR_OFFSET != 0
}

/// True where the flags word (as it lies in the header) is that of a fragment without the L4 header.
#[inline(always)]
pub const fn is_later_fragment(flags: [u8; 2]) -> bool {
    u16::from_be_bytes(flags) & OFFSET != 0
}

/// Where the last fragment ends, in bytes of the datagram's payload, of which it carries `length`; 0 where the
/// flags word says that more follow.
#[inline(always)]
pub const fn last_end(flags: [u8; 2], length: u16) -> u32 {
    let flags = u16::from_be_bytes(flags);
    if flags & MORE != 0 { 0 } else { ((flags & OFFSET) as u32).wrapping_mul(8).wrapping_add(length as u32) }
}

/// A header without options, completed by its checksum.
#[inline(always)]
pub fn with_checksum(header: Ipv4Hdr) -> Ipv4Hdr {
    let word = |bytes: [u8; 2]| u32::from(u16::from_ne_bytes(bytes));
    let double = |bytes: [u8; 4]| {
        let [a, b, c, d] = bytes;
        word([a, b]).wrapping_add(word([c, d]))
    };
    let sum = word([header.vihl, header.tos])
        .wrapping_add(word(header.tot_len))
        .wrapping_add(word(header.id))
        .wrapping_add(word(header.frags))
        .wrapping_add(word([header.ttl, header.proto]))
        .wrapping_add(double(header.src_addr))
        .wrapping_add(double(header.dst_addr));
    Ipv4Hdr { check: (!checksum::fold(sum)).to_ne_bytes(), ..header }
}

/// Multicast, limited broadcast and class E: nothing that is routed.
#[inline(always)]
pub const fn is_unroutable(raw: u32) -> bool {
    u32::from_be(raw) >> 28 >= 0xe
}
