//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP queries (RFC 792): what NAT needs of them.

use vnet_common::conntrack::protocol;

use crate::context::ZeroChecksum;

/// Bytes of the smallest TCP header.
pub const TCP_HEADER: u32 = 20;
/// Bytes of a UDP header, and of an ICMP query's.
pub const UDP_HEADER: u32 = 8;
/// Bytes of SCTP's common header; the first chunk follows.
pub const SCTP_HEADER: u32 = 12;
/// Offset of its CRC32c.
pub const SCTP_CHECKSUM: u32 = 8;
/// What stands for the type of the first chunk where there is none (RFC 9260 section 3.2: reserved).
pub const NO_CHUNK: u8 = 0xff;
/// Offset of two bytes of a TCP header: the data offset (high four bits, in words), then the flags.
pub const TCP_DATA_OFFSET: u32 = 12;

pub const ICMP_ECHO_REPLY: u8 = 0;
pub const ICMP_ECHO: u8 = 8;

const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const ICMP_CHECKSUM: u32 = 2;
const ICMP_IDENTIFIER: u32 = 4;

/// What a checksum is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The Internet checksum over the segment alone.
    OfSegment,
    /// The same, and over the pseudo-header.
    WithPseudoHeader,
    /// CRC32c over the segment, four bytes; 0 where the device computes it (the kernel has it so, and no
    /// update could be told from the device's start value).
    Crc32c,
}

/// Where a protocol keeps what translation changes, as offsets into its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub src_port: u32,
    pub dst_port: u32,
    pub checksum: u32,
    pub zero: ZeroChecksum,
    pub sum: Sum,
}

/// The fields of a protocol that can be translated over IPv4.
///
/// ICMP queries have one identifier, which stands for both ports; their checksum has no pseudo-header.
#[inline(always)]
pub const fn fields(protocol: u8) -> Option<Fields> {
    Some(match protocol {
        protocol::TCP => Fields {
            src_port: 0,
            dst_port: 2,
            checksum: TCP_CHECKSUM,
            zero: ZeroChecksum::Ordinary,
            sum: Sum::WithPseudoHeader,
        },
        protocol::UDP => Fields {
            src_port: 0,
            dst_port: 2,
            checksum: UDP_CHECKSUM,
            zero: ZeroChecksum::Absent,
            sum: Sum::WithPseudoHeader,
        },
        protocol::SCTP => {
            Fields { src_port: 0, dst_port: 2, checksum: SCTP_CHECKSUM, zero: ZeroChecksum::Absent, sum: Sum::Crc32c }
        }
        protocol::ICMP => Fields {
            src_port: ICMP_IDENTIFIER,
            dst_port: ICMP_IDENTIFIER,
            checksum: ICMP_CHECKSUM,
            zero: ZeroChecksum::Ordinary,
            sum: Sum::OfSegment,
        },
        _ => return None,
    })
}
