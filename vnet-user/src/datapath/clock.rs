//! The clock of every stamp in the tables.

use nix::time::{ClockId, clock_gettime};
use vnet_common::Seconds;

/// Seconds of `CLOCK_MONOTONIC_COARSE`, wrapped to 32 bits: what the datapath's
/// `bpf_ktime_get_coarse_ns()` counts, from the same source.
pub(super) fn now() -> Seconds {
    // Cannot fail: the clock is there on every Linux since 2.6.32.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_sec() as Seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs() {
        assert!(now() > 0);
    }
}
