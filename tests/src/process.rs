//! Child processes that never outlive their handle, and whose end has a deadline.

use std::{
    fmt,
    fs::File,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + number after a signal, as a shell tells it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\nstdout: {}\nstderr: {}", self.status, self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts it; what it prints goes to anonymous files.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let child = command.spawn().with_context(|| {
            format!("cannot start {name} (is it installed? `cargo xtask setup` installs what the tests use)")
        })?;
        let pidfd = pidfd_open(child.id())?;
        Ok(Self { name, child, pidfd, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let timeout = PollTimeout::try_from(within)?;
        let ended = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout)?;
        if ended == 0 {
            bail!("still running after {within:?}: {}\n{}", self.name, self.printed());
        }
        Ok(self.child.wait()?)
    }

    /// Waits for its end and gives what it printed.
    pub fn output(mut self, within: Duration) -> Result<Output> {
        let status = self.wait(within)?;
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Output { status, stdout: read_all(&self.stdout)?, stderr: read_all(&self.stderr)? })
    }

    /// Whether it printed anything.
    pub fn has_printed(&self) -> bool {
        [&self.stdout, &self.stderr].iter().any(|file| file.metadata().is_ok_and(|data| data.len() > 0))
    }

    /// What it printed to its standard output so far.
    pub fn stdout(&self) -> Result<String> {
        read_all(&self.stdout)
    }

    /// All that it printed so far.
    pub fn printed(&self) -> String {
        let read = |file| read_all(file).unwrap_or_else(|error| format!("({error})"));
        format!("stdout: {}\nstderr: {}", read(&self.stdout), read(&self.stderr))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has already ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("pidfd_open");
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

fn read_all(file: &File) -> Result<String> {
    // By position: the offset is the child's, too.
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
