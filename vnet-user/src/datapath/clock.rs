//! The clock of every stamp in the tables.

use nix::time::{ClockId, clock_gettime};
use vnet_common::Seconds;

/// Seconds of `CLOCK_MONOTONIC_COARSE`, wrapped to 32 bits: what the datapath's
/// `bpf_ktime_get_coarse_ns()` counts, from the same source.
pub(super) fn now() -> Seconds {
    // Cannot fail: the clock is there on every Linux since 2.6.32.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_sec() as Seconds)
}

/// Seconds from `stamp` to `now`; a stamp ahead of `now` (another CPU's clock tick) counts as no time.
pub(super) fn since(stamp: Seconds, now: Seconds) -> Seconds {
    let age = now.wrapping_sub(stamp);
    if age > Seconds::MAX / 2 { 0 } else { age }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_wrap_and_clock_ticks() {
        assert_eq!(since(10, 25), 15);
        assert_eq!(since(Seconds::MAX - 1, 3), 5);
        assert_eq!(since(26, 25), 0);
    }

    #[test]
    fn the_clock_runs() {
        assert!(now() > 0);
    }
}
