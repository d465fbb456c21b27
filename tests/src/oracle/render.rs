//! What came out of a side, as text that is equal on both sides when the NATs did the same.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddrV4};

use super::side::{OUTSIDE_END, Owners};
use crate::{
    checksum::{self, L4},
    frame::{ETHERNET, ETHERTYPE_IPV4, ICMP, Ipv4Summary, Mac, TCP, UDP, be16, ethernet, summary},
    topology::{GATEWAY, HOST},
};

/// Offset of flags and fragment offset in an IPv4 frame.
const FRAGMENT: usize = ETHERNET + 6;
/// Types of echo messages: the answer and the question.
const ECHO: [u8; 2] = [0, 8];
/// Link addresses of a quoted packet, which has none.
const NOBODY: Mac = Mac([0; 6]);

/// Lines, one a packet; fragments are put together first.
pub fn lines(came: &[(usize, Vec<u8>)], owners: &Owners, guest_sends_error: bool) -> Vec<String> {
    let mut lines: Vec<String> = whole(came)
        .iter()
        .map(|(end, frame)| {
            let place = if *end == OUTSIDE_END { "outside".to_owned() } else { format!("guest {end}") };
            format!("{place}: {}", packet(frame, owners, guest_sends_error))
        })
        .collect();
    lines.sort();
    lines
}

/// Packets whose fragments have all come, and whatever is no fragment. The rest stays as it is.
pub fn whole(came: &[(usize, Vec<u8>)]) -> Vec<(usize, Vec<u8>)> {
    let mut done = Vec::new();
    let mut parts: BTreeMap<(usize, Vec<u8>), Vec<&Vec<u8>>> = BTreeMap::new();
    for (end, frame) in came {
        if be16(frame, FRAGMENT).unwrap_or(0) & 0x3fff == 0 {
            done.push((*end, frame.clone()));
        } else {
            // Identification, protocol and addresses name the packet.
            let name = [&frame[18..20], &frame[23..24], &frame[26..34]].concat();
            parts.entry((*end, name)).or_default().push(frame);
        }
    }
    for ((end, _), mut frames) in parts {
        frames.sort_by_key(|frame| offset(frame));
        match joined(&frames) {
            Some(frame) => done.push((end, frame)),
            None => done.extend(frames.into_iter().map(|frame| (end, frame.clone()))),
        }
    }
    done
}

fn offset(frame: &[u8]) -> usize {
    usize::from(be16(frame, FRAGMENT).unwrap_or(0) & 0x1fff) * 8
}

/// One packet of fragments in order, if none is missing.
fn joined(frames: &[&Vec<u8>]) -> Option<Vec<u8>> {
    let first = frames.first()?;
    let mut packet = first[ETHERNET..ETHERNET + 20].to_vec();
    for frame in frames {
        let length = usize::from(be16(frame, ETHERNET + 2)?);
        if offset(frame) != packet.len() - 20 || checksum::judge(frame).is_err() {
            return None;
        }
        packet.extend_from_slice(frame.get(ETHERNET + 20..ETHERNET + length)?);
    }
    if be16(frames.last()?, FRAGMENT)? & 0x2000 != 0 {
        return None;
    }
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet[6..8].fill(0);
    packet[10..12].fill(0);
    let sum = checksum::checksum(&[&packet[..20]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    Some([&first[..ETHERNET], &packet].concat())
}

fn packet(frame: &[u8], owners: &Owners, guest_sends_error: bool) -> String {
    let Some(ip) = summary(frame).and_then(|frame| frame.ipv4) else { return format!("{frame:02x?}") };
    let length = ETHERNET + usize::from(be16(frame, ETHERNET + 2).unwrap_or(0));
    let body = frame.get(ip.l4..length.min(frame.len())).unwrap_or_default();
    if ip.protocol == ICMP && body.first().is_some_and(|kind| !ECHO.contains(kind)) {
        return error(&ip, frame, body, owners, guest_sends_error);
    }
    let id = be16(frame, ETHERNET + 4).unwrap_or(0);
    format!("{} ttl {} id {id:04x} {}", tuple(&ip, frame, owners), ip.ttl, rest(frame, &ip, body))
}

/// An ICMP error. One that the NAT itself has made up is compared by what it says only.
fn error(ip: &Ipv4Summary, frame: &[u8], body: &[u8], owners: &Owners, guest_sends_error: bool) -> String {
    let own = ip.src == GATEWAY || ip.src == HOST && !guest_sends_error;
    let [kind, code] = [0, 1].map(|at| body.get(at).copied().unwrap_or(0));
    let mut text = format!("error {kind}/{code} {} > {}", ip.src, ip.dst);
    if !own {
        let sum = checksum::judge(frame);
        // Writing to a String cannot fail.
        let _ = write!(text, " ttl {} word {:02x?} checksum {sum:?}", ip.ttl, &body[4..8]);
    }
    let inner = ethernet(NOBODY, NOBODY, ETHERTYPE_IPV4, body.get(8..).unwrap_or(&[]));
    let Some(inner_ip) = summary(&inner).and_then(|inner| inner.ipv4) else { return text + " about nothing" };
    text += &format!(" about ({}", tuple(&inner_ip, &inner, owners));
    if !own {
        let header = inner.get(ETHERNET..inner_ip.l4).unwrap_or_default();
        let right = checksum::sum(&[header]) == 0xffff;
        let quoted = inner.get(inner_ip.l4..).unwrap_or_default();
        text += &format!(" ttl {} header {right} {}", inner_ip.ttl, rest(&inner, &inner_ip, quoted));
    }
    text + ")"
}

/// Protocol and both ends by name.
fn tuple(ip: &Ipv4Summary, frame: &[u8], owners: &Owners) -> String {
    let (src_port, dst_port) = match ip.protocol {
        // The identifier belongs to the inside, whichever way the message goes.
        ICMP => {
            let id = be16(frame, ip.l4 + 4).unwrap_or(0);
            if frame.get(ip.l4) == Some(&8) { (id, 0) } else { (0, id) }
        }
        TCP | UDP => (ip.src_port, ip.dst_port),
        _ => (0, 0),
    };
    let (src, dst) = (SocketAddrV4::new(ip.src, src_port), SocketAddrV4::new(ip.dst, dst_port));
    let name = |local: SocketAddrV4, remote: SocketAddrV4| name(local, remote, ip.protocol, owners);
    format!("{} {} > {}", protocol(ip.protocol), name(src, dst), name(dst, src))
}

fn name(local: SocketAddrV4, remote: SocketAddrV4, protocol: u8, owners: &Owners) -> String {
    match owners.get(&(protocol, local.port(), remote)) {
        Some(inside) if *local.ip() == HOST => format!("external(guest {} port {})", inside.guest, inside.port),
        _ => local.to_string(),
    }
}

fn protocol(number: u8) -> String {
    match number {
        ICMP => "icmp".to_owned(),
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// All that a NAT must leave alone behind ports and checksum, and whether the checksum is right.
fn rest(frame: &[u8], ip: &Ipv4Summary, body: &[u8]) -> String {
    let fragment = be16(frame, FRAGMENT).unwrap_or(0);
    let whole = usize::from(be16(frame, ETHERNET + 2).unwrap_or(0)) + ETHERNET <= frame.len();
    let sum = if whole { format!("{:?}", checksum::judge(frame).map(named)) } else { "cut".to_owned() };
    let kept = match ip.protocol {
        _ if fragment & 0x1fff != 0 => body.to_vec(),
        // Ports go, and the checksum where it is.
        TCP => [body.get(4..16.min(body.len())).unwrap_or(&[]), body.get(18..).unwrap_or(&[])].concat(),
        UDP => [body.get(4..6).unwrap_or(&[]), body.get(8..).unwrap_or(&[])].concat(),
        ICMP => [body.get(..2).unwrap_or(&[]), body.get(6..).unwrap_or(&[])].concat(),
        _ => body.to_vec(),
    };
    let text: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("fragment {fragment:04x} checksum {sum} {text}")
}

/// A sum that is by chance two things at once is right.
fn named(sum: L4) -> &'static str {
    match sum {
        L4::Full | L4::Either => "right",
        L4::Partial => "partial",
        L4::Absent => "absent",
        L4::None => "none",
        L4::Wrong { .. } => "wrong",
    }
}
