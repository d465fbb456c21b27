//! The index that leads from keys to records: buckets of eight slots, one cache line each.
//!
//! Connections and bindings are records in plain arrays, each found by two keys. A key may lie in either
//! of two buckets; a slot holds a part of its hash (the tag), the record's number and which of the
//! record's keys it is. The algorithms stand in `vnet-ebpf/src/tables/pairs.rs`.

use crate::{DoubleWord, Word};

/// Slots of a bucket.
pub const BUCKET_SLOTS: usize = 8;

/// Value of the bucket arrays.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Clone, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Bucket {
    pub slots: [DoubleWord; BUCKET_SLOTS],
}

/// Numbers of records fit into that many bits, so that a place in [`Pool`]'s ring can also say its lap.
pub const INDEX_BITS: u32 = 21;

/// Records of one array, at most.
pub const MAX_RECORDS: u32 = 1 << INDEX_BITS;

/// Which of a record's two keys.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySide {
    /// Original direction; internal side.
    First = 0,
    /// Reply direction; external side.
    Second = 1,
}

impl KeySide {
    /// From its number, of which the lowest bit counts.
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Self {
        if number & 1 == 0 { Self::First } else { Self::Second }
    }
}

/// A record that a key leads to: its number, and which of its keys it is. In one word, which the verifier
/// follows better than an `Option` of two.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(pub u32);

impl Found {
    pub const NOTHING: Self = Self(0);

    #[inline(always)]
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 >> 1
    }

    #[inline(always)]
    pub const fn side(self) -> KeySide {
        KeySide::from_u32(self.0)
    }
}

/// A slot in use. 0 stands for a free one: record 0 is never used.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Slot {
    pub const FREE: Self = Self(0);
    const INDEX_SHIFT: u32 = 1;
    /// Inserted, but another CPU may be inserting the same key.
    const TENTATIVE: u64 = 1 << 31;
    const TAG_SHIFT: u32 = 32;

    #[inline(always)]
    pub const fn new(hash: u64, index: u32, side: KeySide) -> Self {
        Self((hash >> 32) << Self::TAG_SHIFT | (index as u64) << Self::INDEX_SHIFT | side as u64)
    }

    #[inline(always)]
    pub const fn tentative(self) -> Self {
        Self(self.0 | Self::TENTATIVE)
    }

    #[inline(always)]
    pub const fn is_tentative(self) -> bool {
        self.0 & Self::TENTATIVE != 0
    }

    /// True where the tag is that of `hash`, in a slot in use.
    #[inline(always)]
    pub const fn has_tag(self, hash: u64) -> bool {
        self.0 != 0 && self.0 >> Self::TAG_SHIFT == hash >> 32
    }

    /// Where it leads.
    #[inline(always)]
    pub const fn found(self) -> Found {
        Found(self.0 as u32 & !(Self::TENTATIVE as u32))
    }
}

/// Which records of an array are free: those never used, and a ring of those given back, first in first
/// out. All zero, as the kernel makes it, is the pool of an array in which nothing is used.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Clone, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Pool {
    /// How many records were ever used; record 0 never is.
    pub fresh: Word,
    /// Places of the ring that the next record is taken from and given back to; both only grow (and wrap).
    pub head: Word,
    pub tail: Word,
    pub pad: u32,
}

/// One place of the ring: the record's number, and above it the lap in which it was put there.
#[inline(always)]
pub const fn ring_entry(place: u32, capacity: u32, index: u32) -> u32 {
    lap(place, capacity) << INDEX_BITS | index
}

/// The record in a ring entry, if it was put there in `place`'s lap (else it is not written yet).
#[inline(always)]
pub const fn ring_index(entry: u32, place: u32, capacity: u32) -> Option<u32> {
    let index = entry & (MAX_RECORDS - 1);
    if index != 0 && entry >> INDEX_BITS == lap(place, capacity) { Some(index) } else { None }
}

/// How often `place` has gone round the ring, as far as an entry has bits for it. `capacity` is a power of
/// two.
#[inline(always)]
const fn lap(place: u32, capacity: u32) -> u32 {
    (place >> capacity.trailing_zeros()) & ((1 << (32 - INDEX_BITS)) - 1)
}

/// A keyed 64-bit hash of 64-bit words: multilinear (which nobody without the seed can find collisions
/// for), then mixed so that every bit counts.
#[inline(always)]
pub const fn hash(words: [u64; 3], seed: &[u64; 4]) -> u64 {
    let [a, b, c] = words;
    let [s0, s1, s2, s3] = *seed;
    let sum = a.wrapping_mul(s0 | 1).wrapping_add(b.wrapping_mul(s1 | 1)).wrapping_add(c.wrapping_mul(s2 | 1));
    let mixed = (sum ^ sum >> 32).wrapping_mul(s3 | 1);
    mixed ^ mixed >> 29
}

/// The two buckets of a hash; `buckets` is a power of two.
#[inline(always)]
pub const fn buckets_of(hash: u64, buckets: u32) -> [u32; 2] {
    let mask = buckets.wrapping_sub(1);
    let low = hash as u32;
    // The second one differs from the first by an odd number.
    [low & mask, (low ^ ((hash >> 40) as u32 | 1)) & mask]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_back_what_it_was_made_of() {
        let hash = 0xfedc_ba98_7654_3210;
        for (index, side) in [(1, KeySide::First), (MAX_RECORDS - 1, KeySide::Second)] {
            let slot = Slot::new(hash, index, side);
            for slot in [slot, slot.tentative()] {
                assert_eq!((slot.found().index(), slot.found().side()), (index, side));
                assert!(slot.has_tag(hash) && !slot.has_tag(hash ^ 1 << 40));
            }
            assert!(slot.tentative().is_tentative() && !slot.is_tentative());
        }
        assert!(!Slot(0).has_tag(0));
    }

    #[test]
    fn a_ring_entry_counts_in_its_own_lap_only() {
        let capacity = 1024;
        let entry = ring_entry(1030, capacity, 77);
        assert_eq!(ring_index(entry, 1030, capacity), Some(77));
        assert_eq!(ring_index(entry, 6, capacity), None);
        assert_eq!(ring_index(entry, 2054, capacity), None);
        assert_eq!(ring_index(0, 0, capacity), None);
        assert_eq!(ring_index(0, u32::MAX, capacity), None);
    }

    #[test]
    fn a_key_has_two_buckets() {
        let seed = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d];
        for key in 0..1000 {
            let [first, second] = buckets_of(hash([key, 7, 0], &seed), 64);
            assert!(first != second && first < 64 && second < 64);
        }
    }
}
