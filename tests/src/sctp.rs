//! SCTP packets (RFC 9260) with their CRC32c, computed bit by bit.

use std::net::SocketAddrV4;

use crate::frame::{Ipv4, SCTP};

/// Chunk types (RFC 9260 section 3.2).
pub const DATA: u8 = 0;
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;

/// Both ends' verification tag (RFC 9260 section 3.3.2).
const TAG: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
/// The value of INIT and INIT ACK: tag, window of 64 KiB, one stream each way, first TSN.
pub const INIT_VALUE: [u8; 16] = [TAG[0], TAG[1], TAG[2], TAG[3], 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];

/// Offset of the CRC in the common header.
const CRC: usize = 8;
/// The Castagnoli polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// CRC32c (RFC 9260 appendix A) over bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        }
    }
    !crc
}

impl Ipv4 {
    /// A packet with one chunk of this type.
    pub fn sctp(src: SocketAddrV4, dst: SocketAddrV4, chunk: u8, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        let payload = [
            &src.port().to_be_bytes()[..],
            &dst.port().to_be_bytes(),
            // The verification tag, which is zero in front of INIT only, and room for the CRC.
            &if chunk == INIT { [0; 4] } else { TAG },
            &[0; 4],
            &[chunk, 0],
            &length.to_be_bytes(),
            value,
            &padding,
        ]
        .concat();
        // The CRC travels with its least significant byte first.
        let crc = crc32c(&payload).to_le_bytes();
        Self::new(*src.ip(), *dst.ip(), SCTP, payload).spoil(CRC, &crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_the_known_vectors() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
