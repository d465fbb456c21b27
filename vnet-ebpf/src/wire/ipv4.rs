//! IPv4 (RFC 791).

use network_types::ip::Ipv4Hdr;
use vnet_common::DropReason;

/// Bytes of a header without options.
pub const HEADER: u32 = 20;
/// Offset of the twelve bytes from TTL to the destination address, which forwarding rewrites.
pub const FROM_TTL: u32 = 8;

/// "More fragments", and the fragment offset, in the flags word.
const MORE_OR_OFFSET: u16 = 0x3fff;

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

/// Multicast, limited broadcast and class E: nothing that is routed.
#[inline(always)]
pub const fn is_unroutable(raw: u32) -> bool {
    u32::from_be(raw) >> 28 >= 0xe
}
