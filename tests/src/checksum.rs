//! The Internet checksum (RFC 1071), and a judge of whole frames.

use crate::frame::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_VLAN, be16};

/// One's complement sum of the 16-bit words, folded, not inverted.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        total += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        total += rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The checksum over the parts, whose own checksum field must be zero. All but the last are even.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !sum(parts)
}

/// The pseudo-header of an IPv4 packet (source and destination as they stand in its header).
pub fn pseudo_header(ipv4: &[u8], l4_length: usize) -> [u8; 12] {
    let mut pseudo = [0; 12];
    pseudo[..8].copy_from_slice(&ipv4[12..20]);
    pseudo[9] = ipv4[9];
    pseudo[10..].copy_from_slice(&(l4_length as u16).to_be_bytes());
    pseudo
}

/// The network header: its offset and ethertype, behind a VLAN tag if there is one.
pub fn network_header(frame: &[u8]) -> Option<(usize, u16)> {
    let outer = be16(frame, ETHERNET - 2)?;
    if outer == ETHERTYPE_VLAN { Some((ETHERNET + 4, be16(frame, ETHERNET + 2)?)) } else { Some((ETHERNET, outer)) }
}

/// How an IPv4 frame's L4 checksum stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// Right and complete.
    Full,
    /// The bare pseudo-header sum, to be completed by whoever sends it out (CHECKSUM_PARTIAL).
    Partial,
    /// Complete and, by chance, the bare pseudo-header sum as well.
    Either,
    /// UDP without one (RFC 768).
    Absent,
    /// There is none to judge: another protocol, or a fragment.
    None,
    Wrong {
        found: u16,
        expected: u16,
    },
}

/// Judges an IPv4 frame: the header's checksum and lengths must be right; tells of the L4 checksum.
pub fn judge(frame: &[u8]) -> Result<L4, String> {
    let (offset, ethertype) = network_header(frame).ok_or("no Ethernet header")?;
    if ethertype != ETHERTYPE_IPV4 {
        return Ok(L4::None);
    }
    let packet = &frame[offset..];
    let header_length = usize::from(packet.first().ok_or("no IPv4 header")? & 0x0f) * 4;
    if header_length < 20 || packet.len() < header_length {
        return Err(format!("IPv4 header of {header_length} bytes in {} bytes", packet.len()));
    }
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    if total < header_length || total > packet.len() {
        return Err(format!("IPv4 total length {total} in {} bytes", packet.len()));
    }
    let (header, l4) = packet[..total].split_at(header_length);
    if sum(&[header]) != 0xffff {
        return Err(format!("wrong IPv4 header checksum {:02x}{:02x}", header[10], header[11]));
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Ok(L4::None);
    }
    Ok(judge_l4(header, l4))
}

/// Offset of the checksum within the L4 header.
fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        1 => Some(2),
        6 => Some(16),
        17 => Some(6),
        _ => None,
    }
}

fn judge_l4(header: &[u8], l4: &[u8]) -> L4 {
    let Some(offset) = checksum_offset(header[9]) else { return L4::None };
    let Some(found) = be16(l4, offset) else { return L4::None };
    let pseudo = pseudo_header(header, l4.len());
    let pseudo: &[u8] = if header[9] == 1 { &[] } else { &pseudo };
    let expected = match checksum(&[pseudo, &l4[..offset], &[0, 0], &l4[offset + 2..]]) {
        0 if header[9] == 17 => 0xffff,
        other => other,
    };
    let partial = !pseudo.is_empty() && found == sum(&[pseudo]);
    match (found == expected, partial) {
        _ if found == 0 && header[9] == 17 => L4::Absent,
        (true, false) => L4::Full,
        (true, true) => L4::Either,
        (false, true) => L4::Partial,
        (false, false) => L4::Wrong { found, expected },
    }
}
