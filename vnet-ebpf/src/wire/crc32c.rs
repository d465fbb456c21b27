//! CRC32c (RFC 9260 appendix A), updated in place.
//!
//! A CRC is linear over GF(2): where a word of the message changes, the CRC changes by the CRC (without
//! initial value and final complement) of the difference followed by as many zeros as there are bytes
//! behind it. A step over zeros is a multiplication by a power of x modulo the polynomial, so the rest of
//! the message need not be looked at.

use vnet_common::flow::Endpoints;

/// The Castagnoli polynomial, bits reversed: bit 31 stands for x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^0.
const ONE: u32 = 1 << 31;

/// Bits of a message's length in bytes.
const LENGTH_BITS: usize = 16;

/// x^(8 · 2^i): what a step over 2^i bytes of zeros multiplies by.
const STEPS: [u32; LENGTH_BITS] = steps();

#[allow(clippy::indexing_slicing, reason = "computed at compile time")]
const fn steps() -> [u32; LENGTH_BITS] {
    let mut steps = [0; LENGTH_BITS];
    // x^8.
    let mut step = ONE >> 8;
    let mut bit = 0;
    while bit < LENGTH_BITS {
        steps[bit] = step;
        step = product(step, step);
        bit = bit.wrapping_add(1);
    }
    steps
}

/// The product of two polynomials, modulo [`POLYNOMIAL`]. Without branches: one path for the verifier.
const fn product(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut sum) = (a, b, 0);
    let mut bit = 0;
    while bit < u32::BITS {
        // From x^0 upwards: `b` is multiplied by x each turn.
        sum ^= b & all_or_nothing(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & all_or_nothing(b & 1));
        bit = bit.wrapping_add(1);
    }
    sum
}

/// 1 gives all bits, 0 none.
#[inline(always)]
const fn all_or_nothing(bit: u32) -> u32 {
    0u32.wrapping_sub(bit)
}

/// What a change of a word `length` bytes before the message's end makes of the CRC.
///
/// In BPF a global function, which the verifier looks at once and knows no arguments of: those it knows it
/// would calculate with, path by path ("BPF program is too large. Processed 1000001 insn").
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
#[inline(never)]
extern "C" fn crc32c_shifted(change: u32, length: u32) -> u32 {
    let mut change = change;
    for (bit, step) in STEPS.iter().enumerate() {
        if length >> bit & 1 != 0 {
            change = product(change, *step);
        }
    }
    change
}

/// The CRC after a word of the message has changed from `old` to `new`. `length` is that of the message from
/// this word on, in bytes. All as the bytes lie in the message, the CRC as SCTP carries it.
#[inline(always)]
pub fn updated(crc: [u8; 4], old: [u8; 4], new: [u8; 4], length: u16) -> [u8; 4] {
    let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    (u32::from_le_bytes(crc) ^ crc32c_shifted(change, u32::from(length))).to_le_bytes()
}

/// The CRC of an SCTP packet of `length` bytes after its ports, its first word, have changed. An absent one
/// (0) is the device's to compute, over what stands in the field, too.
#[inline(always)]
pub fn with_ports_changed(crc: [u8; 4], old: &Endpoints, new: &Endpoints, length: u16) -> [u8; 4] {
    let word = |ends: &Endpoints| {
        let ([a, b], [c, d]) = (ends.src_port.raw().to_ne_bytes(), ends.dst_port.raw().to_ne_bytes());
        [a, b, c, d]
    };
    if crc == [0; 4] { crc } else { updated(crc, word(old), word(new), length) }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    fn full(message: &[u8]) -> [u8; 4] {
        let mut crc = u32::MAX;
        for byte in message {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        (!crc).to_le_bytes()
    }

    #[test]
    fn the_definition_gives_the_known_vectors() {
        // RFC 3720 appendix B.4, and the check value of the catalogues.
        assert_eq!(full(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(full(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(full(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn an_update_equals_a_full_computation(
            mut message in proptest::collection::vec(any::<u8>(), 4..3000),
            at in any::<prop::sample::Index>(),
            new: [u8; 4],
        ) {
            let at = at.index(message.len() - 3);
            let before = full(&message);
            let old: [u8; 4] = message[at..at + 4].try_into().unwrap();
            message[at..at + 4].copy_from_slice(&new);
            let behind = u16::try_from(message.len() - at).unwrap();
            prop_assert_eq!(updated(before, old, new, behind), full(&message));
        }
    }

    #[test]
    fn the_longest_message_is_updated_too() {
        let mut message = vec![0x5a; usize::from(u16::MAX)];
        let before = full(&message);
        message[..4].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(updated(before, [0x5a; 4], [1, 2, 3, 4], u16::MAX), full(&message));
    }
}
