//! The one core that everything measured happens on: what is compared is the cost of a path, not how
//! well work is spread.

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// As `nice` counts.
const HIGHEST: libc::c_int = -20;
const ORDINARY: libc::c_int = 0;

/// System calls take it for "the calling thread".
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The last core by default: the first is the one that most interrupts go to.
pub fn choose(wanted: Option<usize>) -> Result<usize> {
    let allowed = allowed()?;
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
    let last = *allowed.last().context("no core is allowed")?;
    let core = wanted.unwrap_or(last);
    ensure!(allowed.contains(&core), "core {core} is not among those that this process may use: {allowed:?}");
    Ok(core)
}

fn allowed() -> Result<CpuSet> {
    sched_getaffinity(THIS_THREAD).context("the allowed cores cannot be read")
}

/// Keeps the calling thread, and children that it starts from here on, on one core and ahead of other
/// work there, so that a machine that is not quite idle disturbs little. Not a real-time priority: that
/// would starve the kernel's own threads.
pub fn claim(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    settle(&set, HIGHEST)
}

/// [`claim`], as long as `work` takes.
pub fn while_claimed<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = allowed()?;
    claim(core)?;
    let result = work();
    settle(&before, ORDINARY)?;
    result
}

fn settle(cores: &CpuSet, niceness: libc::c_int) -> Result<()> {
    sched_setaffinity(THIS_THREAD, cores).context("this thread cannot be moved to its core")?;
    // SAFETY: the call takes three integers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    Errno::result(result).context("this thread's priority cannot be changed").map(drop)
}
