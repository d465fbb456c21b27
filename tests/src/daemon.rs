//! `vnet daemon` in the host's namespace, and the command line that talks to it.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    json,
    namespace::Namespace,
    process::{Output, Process},
    topology::World,
    wait,
};

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// A daemon and its directories. Its log is shown when the test fails.
#[derive(Debug)]
pub struct Daemon {
    host: Namespace,
    directory: PathBuf,
    /// Whose sockets it looks at; "none" unless the world has processes.
    cgroup: PathBuf,
    /// Variables of its environment beside its paths.
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("VNET_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("debug/vnet"),
    };
    ensure!(path.is_file(), "{} is missing: run `cargo xtask build`, or name the binary in VNET_BIN", path.display());
    Ok(path)
}

impl Daemon {
    /// Starts one in the world's host namespace and waits until it answers.
    pub fn start(world: &World) -> Result<Self> {
        Self::start_with(world, &[])
    }

    /// The same with more variables in its environment.
    pub fn start_with(world: &World, environment: &[(&str, &str)]) -> Result<Self> {
        let mut daemon = Self {
            host: world.host.clone(),
            directory: world.directory.path().to_owned(),
            cgroup: world.cgroup().unwrap_or(Path::new("none")).to_owned(),
            environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            process: None,
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it again on what the last one left.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon still runs");
        self.process = Some(Process::spawn(self.command(&["daemon"])?)?);
        wait::until_true("the daemon answers", wait::SOON, || self.answers())
    }

    fn answers(&mut self) -> Result<bool> {
        let process = self.process.as_mut().context("no daemon was started")?;
        if !process.is_running()? {
            bail!("the daemon ended at once:\n{}", process.printed());
        }
        if UnixStream::connect(self.socket()).is_err() {
            return Ok(false);
        }
        Ok(self.vnet(&["network", "list", "--json"])?.status == 0)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("vnet.sock")
    }

    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// `vnet …` in the host's namespace, with this instance's paths.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let binary = binary()?;
        let mut command = self.host.command(binary.to_str().context("VNET_BIN is not UTF-8")?);
        command
            .args(arguments)
            .env("VNET_SOCKET", self.socket())
            .env("VNET_STATE_DIR", self.state_directory())
            .env("VNET_RUN_DIR", self.directory.join("run"))
            .env("VNET_PIN_DIR", self.directory.join("bpf"))
            // Tests are about connections that vnet has seen begin, unless they say otherwise.
            .env("VNET_PICK_UP", "0")
            .env("VNET_CGROUP", &self.cgroup)
            .env("COLUMNS", "200")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs one command to its end, well or not.
    pub fn vnet(&self, arguments: &[&str]) -> Result<Output> {
        Process::spawn(self.command(arguments)?)?.output(COMMAND)
    }

    /// Runs a command that must be done.
    pub fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.vnet(arguments)?;
        ensure!(output.status == 0, "vnet {}: {output}", arguments.join(" "));
        Ok(output.stdout)
    }

    /// [`Self::done`] on a command line written as one string.
    pub fn line(&self, line: &str) -> Result<String> {
        self.done(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// What a command prints with `--json`.
    pub fn json(&self, line: &str) -> Result<Value> {
        let printed = self.line(&format!("{line} --json"))?;
        serde_json::from_str(&printed).with_context(|| format!("vnet {line} --json printed: {printed}"))
    }

    /// `port list`'s object for a device.
    pub fn port(&self, device: &str) -> Result<Value> {
        Ok(json::find(&self.json("port list")?, "device", device)?.clone())
    }

    /// Frames that came in on a device and were dropped for a reason.
    pub fn drops(&self, device: &str, reason: &str) -> Result<u64> {
        Ok(self.port(device)?["drops"][reason].as_u64().unwrap_or(0))
    }

    /// Whose sockets it looks at from its next start on.
    pub fn set_cgroup(&mut self, cgroup: &Path) {
        cgroup.clone_into(&mut self.cgroup);
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What it logged since it was last started.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::printed).unwrap_or_default()
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill9(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(|_| ())
    }

    /// Asks it to end, as the service manager would; gives its exit code.
    pub fn terminate(&mut self) -> Result<Option<i32>> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<Option<i32>> {
        let mut process = self.process.take().context("no daemon runs")?;
        process.signal(signal)?;
        let ended = process.wait(wait::SOON);
        eprintln!("--- daemon ended by {signal}:\n{}", process.printed());
        Ok(ended?.code())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The test runner shows this only for tests that fail.
        if self.process.as_ref().is_some_and(Process::has_printed) {
            eprintln!("--- daemon:\n{}", self.log());
        }
    }
}
