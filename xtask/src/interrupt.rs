//! Ctrl-C, SIGTERM and SIGHUP as a flag that every wait looks at, so that an
//! interrupted run unwinds through its guards and cleans up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on a signal no longer ends the process.
pub fn catch() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `note` only stores to an atomic, which is async-signal-safe,
        // and lives as long as the program.
        let previous = unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
        if previous == libc::SIG_ERR {
            return Err(std::io::Error::last_os_error()).context("the signal handler cannot be set");
        }
    }
    Ok(())
}

pub fn happened() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Takes a signal as answered; the next one counts anew.
pub fn clear() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Cleaning up must not be cut short: from here on nothing is interrupted.
pub fn ignore() {
    IGNORED.store(true, Ordering::Relaxed);
}

pub fn check() -> Result<()> {
    if happened() && !IGNORED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
