//! A cgroup of a test's own: what runs in it is "the host's processes" to the daemon under test, and nothing
//! else on this machine is.
//!
//! It is a threaded cgroup (cgroups(7)), so that single threads of the test process go in. Threads and
//! processes that they start are in it too.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use anyhow::{Context, Result};

use crate::wait;

/// How their names begin; the process's number follows.
const NAME: &str = "vnet-test-";

#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A fresh one, below the test process's own.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = own()?;
        sweep(&parent);
        let path = parent.join(format!("{NAME}{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let made = Self { path };
        fs::write(made.path.join("cgroup.type"), "threaded").context("making the cgroup a threaded one")?;
        Ok(made)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a thread inside. Sockets that it makes stay inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // "0" is whoever writes.
                fs::write(self.path.join("cgroup.threads"), "0").context("entering the cgroup")?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Threads that have been waited for may still be on their way out.
        let removed = wait::until(&format!("{} is removed", self.path.display()), wait::SOON, || {
            Ok(fs::remove_dir(&self.path).map_err(|error| error.to_string()))
        });
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

/// The cgroup v2 directory that this process is in.
fn own() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
    let mount = mount.context("these tests need a cgroup v2 mount")?[1].to_owned();
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let below = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("in no cgroup v2")?;
    Ok(Path::new(&mount).join(below))
}

/// Removes what tests that were killed have left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test process may be faster.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
