//! The Internet checksum, updated in place (RFC 1624, equation 3).
//!
//! Words are summed as they lie in memory: ones' complement addition does not depend on byte order.

use crate::context::ZeroChecksum;

/// What a change of words adds to a sum, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diff(u32);

impl Diff {
    /// Notes that a 16-bit word changes.
    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        // A header has a few dozen words: the 32-bit sum of 16-bit terms cannot overflow.
        Self(self.0.wrapping_add(!old as u32).wrapping_add(new as u32))
    }

    /// Notes that a 32-bit word changes.
    #[inline(always)]
    pub const fn double(self, old: u32, new: u32) -> Self {
        self.word(old as u16, new as u16).word((old >> 16) as u16, (new >> 16) as u16)
    }

    /// Both changes.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The difference as the kernel's helpers take it (`__wsum`).
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        self.0
    }
}

/// A sum folded into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

/// The checksum field after its data changed by `diff`.
#[inline(always)]
pub const fn updated(old: u16, diff: u32, zero: ZeroChecksum) -> u16 {
    match zero {
        ZeroChecksum::Absent if old == 0 => 0,
        ZeroChecksum::Absent => match updated_ordinary(old, diff) {
            // RFC 768: a computed zero is sent as all ones.
            0 => 0xffff,
            sum => sum,
        },
        ZeroChecksum::Ordinary => updated_ordinary(old, diff),
    }
}

#[inline(always)]
const fn updated_ordinary(old: u16, diff: u32) -> u16 {
    // `diff` is at most a few dozen 16-bit terms: no overflow.
    !fold(diff.wrapping_add(!old as u32))
}

/// The checksum field of a partial segment: the bare pseudo-header sum, not complemented.
#[inline(always)]
pub const fn pseudo_header_v4(src: u32, dst: u32, protocol: u8, l4_length: u16) -> u16 {
    let sum = (src & 0xffff)
        .wrapping_add(src >> 16)
        .wrapping_add(dst & 0xffff)
        .wrapping_add(dst >> 16)
        .wrapping_add((protocol as u16).to_be() as u32)
        .wrapping_add(l4_length.to_be() as u32);
    fold(sum)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, the slow way.
    fn full(words: &[u16]) -> u16 {
        let mut sum: u32 = 0;
        for word in words {
            sum += u32::from(*word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_update_equals_a_full_computation(words in proptest::collection::vec(any::<u16>(), 10), new in any::<u32>(), port in any::<u16>()) {
            let before = full(&words);
            let mut changed = words.clone();
            let diff = Diff::default()
                .double(u32::from(words[2]) | u32::from(words[3]) << 16, new)
                .word(words[7], port)
                .sum();
            changed[2] = new as u16;
            changed[3] = (new >> 16) as u16;
            changed[7] = port;
            let after = updated(before, diff, ZeroChecksum::Ordinary);
            // Ones' complement has two zeros; a receiver accepts both.
            let expected = full(&changed);
            prop_assert!(after == expected || (after == 0xffff && expected == 0) || (after == 0 && expected == 0xffff));
        }
    }

    #[test]
    fn an_absent_checksum_stays_absent() {
        assert_eq!(updated(0, 0x1234, ZeroChecksum::Absent), 0);
    }

    #[test]
    fn a_checksum_that_becomes_zero_is_sent_as_all_ones() {
        // ~(~1 + x) == 0 for x == 1.
        assert_eq!(updated(1, 1, ZeroChecksum::Ordinary), 0);
        assert_eq!(updated(1, 1, ZeroChecksum::Absent), 0xffff);
    }
}
