//! Counters: what the CPUs counted each for itself, summed.

use vnet_common::{
    DropReason,
    stats::{EventCount, VportStats},
    vport::VportId,
};

use super::Tables;
use crate::datapath::TableError;

const NONE: VportStats =
    VportStats { rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0, drops: [0; DropReason::SLOTS] };

impl Tables {
    /// The vport's counters since it was made or they were reset.
    pub fn vport_stats(&self, id: VportId) -> Result<VportStats, TableError> {
        Ok(self.0.vport_stats.lookup(id)?.iter().fold(NONE, add))
    }

    /// Sets the vport's counters to zero.
    pub fn reset_vport_stats(&self, id: VportId) -> Result<(), TableError> {
        self.0.vport_stats.reset(id)
    }

    /// What happened besides frames' verdicts, by name.
    pub fn event_counts(&self) -> Result<Vec<(&'static str, u64)>, TableError> {
        EventCount::ALL.into_iter().map(|(event, name)| Ok((name, self.event_count(event)?))).collect()
    }

    /// One of them.
    pub(super) fn event_count(&self, event: EventCount) -> Result<u64, TableError> {
        let per_cpu = self.0.event_counts.lookup(event as u32)?;
        Ok(per_cpu.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)))
    }
}

fn add(mut sum: VportStats, cpu: &VportStats) -> VportStats {
    sum.rx_frames = sum.rx_frames.wrapping_add(cpu.rx_frames);
    sum.rx_bytes = sum.rx_bytes.wrapping_add(cpu.rx_bytes);
    sum.tx_frames = sum.tx_frames.wrapping_add(cpu.tx_frames);
    sum.tx_bytes = sum.tx_bytes.wrapping_add(cpu.tx_bytes);
    for (sum, drops) in sum.drops.iter_mut().zip(cpu.drops) {
        *sum = sum.wrapping_add(drops);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_cpus_add_up() {
        let mut cpu = VportStats { rx_frames: 1, rx_bytes: 60, tx_frames: 2, tx_bytes: 120, ..NONE };
        cpu.drops[5] = 3;
        let sum = [cpu, cpu].iter().fold(NONE, add);
        assert_eq!((sum.rx_frames, sum.rx_bytes, sum.tx_frames, sum.tx_bytes, sum.drops[5]), (2, 120, 4, 240, 6));
        assert_eq!(sum.drops[6], 0);
    }
}
