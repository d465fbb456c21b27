//! ICMP errors (RFC 792): the message, without the packet that it quotes.

use network_types::icmp::Icmpv4Hdr;

use super::checksum;

/// Bytes of the header of every ICMP error; the quotation follows.
pub const HEADER: u32 = 8;

/// Offset of its checksum.
pub const CHECKSUM: u32 = 2;

const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const ROUTER_SOLICITATION: u8 = 10;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const TIMESTAMP: u8 = 13;
const ADDRESS_MASK_REPLY: u8 = 18;

/// Type and code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Error {
    /// No error is to be sent.
    None,
    NetUnreachable,
    HostUnreachable,
    /// "Fragmentation needed and DF set", with the next hop's MTU (RFC 1191 section 4).
    TooBig,
    /// "Communication administratively prohibited" (RFC 1812 5.2.7.1), which NAT sends when it has no
    /// resources left (RFC 5508 REQ-8).
    Prohibited,
    /// "Time to live exceeded in transit".
    TtlExceeded,
}

impl Error {
    /// Type and code as they stand in the message; `None` has no message.
    #[inline(always)]
    const fn type_and_code(self) -> [u8; 2] {
        match self {
            Self::None => [0, 0],
            Self::NetUnreachable => [DESTINATION_UNREACHABLE, 0],
            Self::HostUnreachable => [DESTINATION_UNREACHABLE, 1],
            Self::TooBig => [DESTINATION_UNREACHABLE, 4],
            Self::Prohibited => [DESTINATION_UNREACHABLE, 13],
            Self::TtlExceeded => [TIME_EXCEEDED, 0],
        }
    }

    /// The header. `mtu` (host order, bytes of an IP packet) counts for `TooBig` only; `quoted` is the sum of
    /// the quotation's words as they lie in memory, not folded.
    #[inline(always)]
    pub fn header(self, mtu: u16, quoted: u32) -> Icmpv4Hdr {
        let mtu = if matches!(self, Self::TooBig) { mtu } else { 0 };
        let [m0, m1] = mtu.to_be_bytes();
        let type_and_code = self.type_and_code();
        let [type_, code] = type_and_code;
        let own = u32::from(u16::from_ne_bytes(type_and_code)).wrapping_add(u32::from(mtu.to_be()));
        let check = !checksum::fold(own.wrapping_add(u32::from(checksum::fold(quoted))));
        Icmpv4Hdr { type_, code, check: check.to_ne_bytes(), data: [0, 0, m0, m1] }
    }
}

/// True for the errors that concern more than one link, and are not deprecated (RFC 6633).
#[inline(always)]
pub const fn is_end_to_end_error(type_: u8) -> bool {
    matches!(type_, DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// True for the messages that are known to be no errors: errors are sent about them only (RFC 1122
/// 3.2.2).
#[inline(always)]
pub const fn is_query(type_: u8) -> bool {
    matches!(type_, ECHO_REPLY | ECHO..=ROUTER_SOLICITATION | TIMESTAMP..=ADDRESS_MASK_REPLY)
}
