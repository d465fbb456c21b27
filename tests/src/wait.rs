//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks at a condition that cannot be waited for otherwise.
const POLL: Duration = Duration::from_millis(20);

/// How long anything that should happen at once may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Looks until `look` gives something, or fails with the last reason that `look` named.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let reason = match look()? {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        if Instant::now() >= deadline {
            bail!("not within {within:?}: {what}; last seen: {reason}");
        }
        thread::sleep(POLL);
    }
}

/// Waits for a condition that is a plain yes or no.
pub fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, within, || Ok(if look()? { Ok(()) } else { Err("no".to_owned()) }))
}
