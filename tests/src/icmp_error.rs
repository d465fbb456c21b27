//! ICMP errors (RFC 792) with the packet that they are about.

use std::net::Ipv4Addr;

use crate::frame::{ETHERNET, ICMP, Ipv4};

/// Type and code of an error, and the word behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorKind {
    pub kind: u8,
    pub code: u8,
    /// The next hop's MTU in its low half for 3/4 (RFC 1191), the pointer in its first byte for 12/0.
    pub word: [u8; 4],
}

const fn error(kind: u8, code: u8) -> ErrorKind {
    ErrorKind { kind, code, word: [0; 4] }
}

/// Port unreachable.
pub const UNREACHABLE_PORT: ErrorKind = error(3, 3);

/// Errors that say something of a connection, and pass a NAT (RFC 5508 REQ-3, REQ-4).
pub const PASSING: [ErrorKind; 9] = [
    error(3, 0),
    error(3, 1),
    error(3, 2),
    UNREACHABLE_PORT,
    ErrorKind { kind: 3, code: 4, word: [0, 0, 0x05, 0x78] },
    error(3, 13),
    error(11, 0),
    error(11, 1),
    ErrorKind { kind: 12, code: 0, word: [20, 0, 0, 0] },
];

/// Source quench (deprecated by RFC 6633) and redirects (of one link only) pass no router.
pub const STOPPED: [ErrorKind; 3] = [error(4, 0), error(5, 0), error(5, 1)];

/// How much of the packet an error quotes behind its IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// The least that RFC 792 asks for: 8 bytes.
    Least,
    /// All of it (RFC 1812 4.3.2.3).
    All,
}

impl Ipv4 {
    /// Header and the quoted part of the payload: the lengths and checksums in them are the whole packet's.
    pub fn quoted(&self, quote: Quote) -> Vec<u8> {
        let mut packet = self.packet();
        if quote == Quote::Least {
            packet.truncate(20 + self.options.len() + 8);
        }
        packet
    }

    /// A router's ICMP error (type and code) about an untagged IPv4 frame, the next hop's MTU in it: 576 bytes at
    /// most (RFC 1812 4.3.2.3), precedence "internetwork control".
    pub fn icmp_refusal(router: Ipv4Addr, [kind, code]: [u8; 2], mtu: u16, frame: &[u8]) -> Self {
        let packet = &frame[ETHERNET..];
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let quoted = &packet[..total.min(576 - 28)];
        let message = [&[kind, code, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quoted].concat();
        let to = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        let id = u16::from_be_bytes([packet[4], packet[5]]);
        let tos = packet[1] & 0x1e | 0xc0;
        Self { id, tos, ..Self::new(router, to, ICMP, message).with_l4_checksum(2) }
    }

    /// An error about a quoted packet.
    pub fn icmp_error(src: Ipv4Addr, dst: Ipv4Addr, error: ErrorKind, quoted: &[u8]) -> Self {
        let message = [&[error.kind, error.code, 0, 0][..], &error.word, quoted].concat();
        Self::new(src, dst, ICMP, message).with_l4_checksum(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checksum, frame::Mac};

    #[test]
    fn an_error_quotes_what_it_is_told_to_and_its_checksum_is_right() {
        let [a, b] = ["192.0.2.1:1000", "192.0.2.2:2000"].map(|text| text.parse().expect("an address"));
        let packet = Ipv4::udp(a, b, b"twenty-one characters").options(&[1, 1, 1, 0]);
        for (quote, length) in [(Quote::Least, 24 + 8), (Quote::All, 24 + 8 + 21)] {
            let error = Ipv4::icmp_error(*b.ip(), *a.ip(), UNREACHABLE_PORT, &packet.quoted(quote));
            assert_eq!(error.payload.len(), 8 + length);
            assert_eq!(error.payload[8..], packet.packet()[..length]);
            assert_eq!(checksum::judge(&error.frame(Mac([2; 6]), Mac([4; 6]))), Ok(checksum::L4::Full));
        }
    }
}
