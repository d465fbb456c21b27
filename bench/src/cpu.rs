//! Which core does what.

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;

/// As `nice` counts.
const HIGHEST: libc::c_int = -20;

/// The cores that this run uses.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cpus {
    /// Source, forwarder and sink of the packet-rate scenarios; the sender of the TCP ones.
    pub busy: usize,
    /// The receiver of the TCP scenarios: another core where there is one.
    pub other: usize,
}

impl Cpus {
    /// The last core by default: the first is the one that most interrupts go to.
    pub fn choose(wanted: Option<usize>) -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("the allowed cores cannot be read")?;
        let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
        let last = *allowed.last().context("no core is allowed")?;
        let busy = wanted.unwrap_or(last);
        ensure!(allowed.contains(&busy), "core {busy} is not among those that this process may use: {allowed:?}");
        let other = allowed.iter().rev().find(|cpu| **cpu != busy).copied().unwrap_or(busy);
        Ok(Self { busy, other })
    }
}

/// Keeps the calling thread on one core, and ahead of all other work there, so that a machine that is
/// not quite idle disturbs little. Not a real-time priority: that would starve the kernel's own threads.
pub fn claim(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    let this_thread = Pid::from_raw(0);
    sched_setaffinity(this_thread, &set).with_context(|| format!("this thread cannot be kept on core {cpu}"))?;
    // SAFETY: the call takes three integers. Zero is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) };
    Errno::result(result).context("this thread's priority cannot be raised").map(drop)
}
