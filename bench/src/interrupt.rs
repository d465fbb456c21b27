//! Ctrl-C, SIGTERM and SIGHUP as a flag: an interrupted run unwinds through its guards.
//!
//! System calls that the signal cuts short, and children that it ends, are errors of their own and
//! unwind just as well.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: std::ffi::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on a signal no longer ends the process.
pub fn catch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: `note` only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
