//! A network namespace without a name, and whatever runs in it.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

use crate::process::{Output, Process};

/// How long a command that only sets something up may take.
const COMMAND: Duration = Duration::from_secs(20);

/// A network namespace, with a mount namespace beside it: what is mounted there (bpffs) goes with it.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    label: String,
    network: OwnedFd,
    mounts: OwnedFd,
}

impl Namespace {
    /// A fresh one, its loopback up, IPv4 forwarding off.
    pub fn new(label: &str) -> Result<Self> {
        let made = thread::spawn(|| -> Result<(OwnedFd, OwnedFd)> {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .context("no new namespaces: these tests need root")?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            let network = File::open("/proc/thread-self/ns/net")?;
            let mounts = File::open("/proc/thread-self/ns/mnt")?;
            Ok((network.into(), mounts.into()))
        });
        let (network, mounts) = made.join().map_err(|_| anyhow!("the thread that makes namespaces panicked"))??;
        let made = Self { inner: Arc::new(Inner { label: label.to_owned(), network, mounts }) };
        made.ip("link set lo up")?;
        made.sysctl("net/ipv4/ip_forward", "0")?;
        Ok(made)
    }

    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// A path by which `ip … netns PATH` finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.inner.network.as_raw_fd())
    }

    /// A command that will run inside and die with the calling thread.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let inner = Arc::clone(&self.inner);
        let enter = move || -> std::io::Result<()> {
            set_pdeathsig(Signal::SIGKILL)?;
            setns(inner.mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
            setns(inner.network.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes three system calls and nothing else: it
        // takes no lock and allocates nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, words: &[&str], within: Duration) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(command)?.output(within).with_context(|| format!("in {}", self.label()))
    }

    /// Runs a command that must succeed; gives what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words, COMMAND)?;
        ensure!(output.status == 0, "{words:?} in {}: {output}", self.label());
        Ok(output.stdout)
    }

    /// Runs lines of `ip` commands, all of which must succeed.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut script = tempfile::tempfile()?;
        script.write_all(lines.as_bytes())?;
        script.rewind()?;
        let mut command = self.command("ip");
        command.args(["-batch", "-"]).stdin(script);
        let output = Process::spawn(command)?.output(COMMAND)?;
        ensure!(output.status == 0, "ip -batch in {}:\n{lines}\n{output}", self.label());
        Ok(())
    }

    /// Runs `work` in a thread inside. What it opens stays inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.inner.network.as_fd(), CloneFlags::CLONE_NEWNET)?;
                work()
            });
            match inside.join() {
                Ok(result) => result.with_context(|| format!("in {}", self.label())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The same, where what is mounted inside is seen too.
    pub fn enter_mounts<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.enter(|| {
            // The kernel lets no thread in that shares its directories with others.
            unshare(CloneFlags::CLONE_FS)?;
            setns(self.inner.mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
            work()
        })
    }

    /// Sets a sysctl, named by its path under /proc/sys.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.enter(|| std::fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("sysctl {name}")))
    }
}
