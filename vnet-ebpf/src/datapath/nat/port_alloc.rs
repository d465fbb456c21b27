//! Port allocation: candidates in order, the claim is the insert (law 7).
//!
//! The guest's own port first (RFC 4787 REQ-3), then ports of the same parity (REQ-4) from a random start
//! (RFC 6056), then the others: every port of the range is tried once.

use vnet_common::Be16;

/// Ports to choose from, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u16,
    pub last: u16,
}

impl Range {
    /// Ports in the range.
    #[inline(always)]
    pub const fn size(self) -> u32 {
        if self.last < self.first { 0 } else { (self.last as u32).wrapping_sub(self.first as u32).wrapping_add(1) }
    }

    /// Candidates that reach every port: the guest's own counts twice.
    #[inline(always)]
    pub const fn candidates(self) -> u32 {
        self.size().wrapping_add(1)
    }

    #[inline(always)]
    const fn holds(self, port: u16) -> bool {
        port >= self.first && port <= self.last
    }
}

/// The `probe`th candidate.
#[inline(always)]
pub fn candidate(probe: u32, wanted: Be16, range: Range, start: u32) -> Be16 {
    let wanted = wanted.get();
    let step = match probe.checked_sub(1) {
        Some(step) => step,
        None if range.holds(wanted) => return Be16::new(wanted),
        // Out of the range: one like it at once.
        None => 0,
    };
    let size = range.size();
    // The first port of the guest's parity, how many there are of it, and of the other one.
    let skip = u32::from((range.first ^ wanted) & 1);
    let same = size.wrapping_sub(skip).wrapping_add(1) / 2;
    let other = size.wrapping_sub(same);
    let (skip, count, step) = if step < same { (skip, same, step) } else { (skip ^ 1, other, step.wrapping_sub(same)) };
    // Reduced first: the sum must not wrap round anything but the range.
    let start = start.checked_rem(count).unwrap_or(0);
    let turn = start.wrapping_add(step).checked_rem(count).unwrap_or(0);
    Be16::new(range.first.wrapping_add(skip.wrapping_add(turn.wrapping_mul(2)) as u16))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = Range> {
        (1u16.., 0u16..2000).prop_map(|(first, size)| Range { first, last: first.saturating_add(size) })
    }

    proptest! {
        #[test]
        fn every_port_of_the_range_is_tried_and_no_other(range in range(), wanted: u16, start: u32) {
            let tried: HashSet<u16> = (0..range.candidates())
                .map(|probe| candidate(probe, Be16::new(wanted), range, start).get())
                .collect();
            prop_assert!(tried.iter().all(|port| range.holds(*port)));
            prop_assert_eq!(tried.len() as u32, range.size());
        }

        #[test]
        fn ports_of_the_same_parity_come_first(range in range(), wanted: u16, start: u32) {
            let others = u32::from(range.holds(wanted));
            let parity: Vec<bool> = (others..range.candidates())
                .map(|probe| candidate(probe, Be16::new(wanted), range, start).get() % 2 == wanted % 2)
                .collect();
            prop_assert!(parity.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn the_guests_own_port_comes_first() {
        let range = Range { first: 49_152, last: 65_535 };
        assert_eq!(candidate(0, Be16::new(50_000), range, 7).get(), 50_000);
    }
}
