//! Port allocation: candidates in order, the claim is the insert (law 7).

use vnet_common::Be16;

/// External ports tried for one new binding.
///
/// A range smaller than that is searched whole.
pub const MAX_PROBES: u32 = 129;

/// The `probe`th candidate within `first..=last`: the guest's own port first, then from a random start
/// upwards, round the range.
#[inline(always)]
pub fn candidate(probe: u32, wanted: Be16, first: u16, last: u16, start: u32) -> Be16 {
    let wanted = wanted.get();
    if probe == 0 && wanted >= first && wanted <= last {
        return Be16::new(wanted);
    }
    let size = u32::from(last).wrapping_sub(u32::from(first)).wrapping_add(1);
    // Reduced first: the sum must not wrap round anything but the range.
    let start = start.checked_rem(size).unwrap_or(0);
    let offset = start.wrapping_add(probe).checked_rem(size).unwrap_or(0);
    Be16::new(first.wrapping_add(offset as u16))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_candidate_lies_in_the_range(first in 1u16.., size in 0u16..2000, wanted: u16, start: u32, probe in 0..MAX_PROBES) {
            let last = first.saturating_add(size);
            let port = candidate(probe, Be16::new(wanted), first, last, start).get();
            prop_assert!((first..=last).contains(&port));
        }

        #[test]
        fn a_small_range_is_searched_whole(
            first in 1u16..60_000,
            size in 0u16..128,
            start in prop_oneof![any::<u32>(), u32::MAX - 300..],
            wanted in prop_oneof![Just(0), 1u16..],
        ) {
            let last = first + size;
            let tried: HashSet<u16> =
                (0..MAX_PROBES).map(|probe| candidate(probe, Be16::new(wanted), first, last, start).get()).collect();
            prop_assert_eq!(tried.len(), usize::from(size) + 1);
        }
    }

    #[test]
    fn the_guests_own_port_comes_first() {
        assert_eq!(candidate(0, Be16::new(50_000), 49_152, 65_535, 7).get(), 50_000);
        assert_ne!(candidate(1, Be16::new(50_000), 49_152, 65_535, 7).get(), 50_000);
    }
}
