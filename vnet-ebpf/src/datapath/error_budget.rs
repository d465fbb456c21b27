//! How many ICMP errors vnet sends (RFC 1812 4.3.2.8): so many a second to each port, in a row or spread.

use vnet_common::{Seconds, Word};

/// ICMP errors to one port in a second.
pub const PER_SECOND: u32 = 100;

/// What is left of a port's second. All zero: nothing was sent yet.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default))]
pub struct ErrorBudget {
    second: Word,
    left: Word,
}

impl ErrorBudget {
    /// True where one more may be sent now; it counts as sent.
    ///
    /// Of several CPUs at once one may be refused what was left: an error less, never one too many but in
    /// the instant of a new second.
    #[inline(always)]
    pub fn take(&self, now: Seconds) -> bool {
        let second = self.second.load();
        if second != now && self.second.replace(second, now) {
            self.left.store(PER_SECOND);
        }
        let left = self.left.load();
        left != 0 && self.left.replace(left, left.wrapping_sub(1))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_worth_so_many_errors_and_no_more() {
        let budget = ErrorBudget::default();
        for now in [7, 8, 1000] {
            let sent = (0..PER_SECOND * 3).filter(|_| budget.take(now)).count();
            assert_eq!(sent, PER_SECOND as usize, "in second {now}");
        }
    }
}
