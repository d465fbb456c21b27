//! How quiet the machine was: figures from a busy one compare nothing.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// A core that others use takes caches, and often half of the same physical core, from its neighbours.
const QUIET: f64 = 0.05;

/// What went on beside the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// The share of the other cores' time that was not idle; nothing where there are none.
    pub other_cores: Option<f64>,
    /// The share of the used core's time that the hypervisor gave to others.
    pub stolen: f64,
}

impl Noise {
    pub fn is_quiet(&self) -> bool {
        self.other_cores.unwrap_or(0.0).max(self.stolen) < QUIET
    }
}

/// A look at the kernel's clocks, to be compared with a later one.
pub struct Watch {
    used: usize,
    before: Vec<Times>,
}

impl Watch {
    /// `used`: the core that the measurement keeps busy.
    pub fn start(used: usize) -> Result<Self> {
        Ok(Self { used, before: read()? })
    }

    pub fn stop(&self) -> Result<Noise> {
        Ok(noise(self.used, &self.before, &read()?))
    }
}

/// One core's ticks so far.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    core: usize,
    total: u64,
    idle: u64,
    stolen: u64,
}

fn noise(used: usize, before: &[Times], after: &[Times]) -> Noise {
    let (mut own, mut others) = (Times::default(), Times::default());
    for (before, after) in before.iter().zip(after) {
        let sum = if after.core == used { &mut own } else { &mut others };
        sum.total += after.total.saturating_sub(before.total);
        sum.idle += after.idle.saturating_sub(before.idle);
        sum.stolen += after.stolen.saturating_sub(before.stolen);
    }
    let share = |part: u64, total: u64| part as f64 / total.max(1) as f64;
    Noise {
        other_cores: (others.total > 0).then(|| share(others.total - others.idle.min(others.total), others.total)),
        stolen: share(own.stolen, own.total),
    }
}

fn read() -> Result<Vec<Times>> {
    Ok(parse(&fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?))
}

/// Lines `cpuN user nice system idle iowait irq softirq steal …`; guests' time is part of user's.
fn parse(stat: &str) -> Vec<Times> {
    let times = |line: &str| {
        let (core, ticks) = line.strip_prefix("cpu")?.split_once(' ')?;
        let ticks: Vec<u64> = ticks.split_whitespace().take(8).filter_map(|tick| tick.parse().ok()).collect();
        let &[_, _, _, idle, iowait, _, _, stolen] = ticks.as_slice() else { return None };
        Some(Times { core: core.parse().ok()?, total: ticks.iter().sum(), idle: idle + iowait, stolen })
    };
    stat.lines().filter_map(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 0 100 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 1 2\n";
    const AFTER: &str = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 110 10 5 160 5 5 5 0 0 0\ncpu1 0 0 10 0 0 0 80 10 0 0\n";

    #[test]
    fn noise_is_what_others_did_meanwhile() {
        let (before, after) = (parse(BEFORE), parse(AFTER));
        assert_eq!(noise(1, &before, &after), Noise { other_cores: Some(0.35), stolen: 0.1 });
        assert_eq!(noise(1, &before[1..], &after[1..]), Noise { other_cores: None, stolen: 0.1 });
        assert!(!noise(1, &before, &after).is_quiet());
        assert!(noise(1, &before, &before).is_quiet());
    }
}
