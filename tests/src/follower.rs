//! `vnet conntrack events` running beside a test.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    process::Process,
    wait::{SOON, until, until_true},
};

/// A follower; ended when it is dropped.
#[derive(Debug)]
pub struct Follower {
    process: Process,
}

impl Follower {
    /// Starts one; from here on it is told every event that the filter wants.
    pub fn start(vnet: &Daemon, filter: &str) -> Result<Self> {
        let mut arguments = vec!["conntrack", "events", "--json"];
        arguments.extend(filter.split_whitespace());
        let mut process = Process::spawn(vnet.command(&arguments)?)?;
        until_true("the follower follows", SOON, || {
            ensure!(process.is_running()?, "the follower ended at once: {}", process.printed());
            Ok(process.printed().contains("following"))
        })?;
        Ok(Self { process })
    }

    /// All that it was told so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        let printed = self.process.stdout()?;
        // The last line may be on its way.
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("told: {line}"))).collect()
    }

    /// Waits for events of connections from a port: `event state` or `end reason`, in this order.
    pub fn told(&self, port: u16, wanted: &[&str]) -> Result<()> {
        until(&format!("events {wanted:?}"), SOON, || {
            let events = self.events()?;
            let of_port = events.iter().filter(|event| event["original"]["src_port"] == port);
            let words: Vec<String> = of_port.map(words).collect();
            Ok(if words == wanted { Ok(()) } else { Err(format!("{words:?}")) })
        })
    }

    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// Ctrl-C; gives its exit code.
    pub fn interrupt(mut self) -> Result<Option<i32>> {
        self.process.signal(Signal::SIGINT)?;
        Ok(self.process.wait(SOON)?.code())
    }

    /// Waits until it ends by itself; gives its exit code and what it printed.
    pub fn ended(mut self, within: Duration) -> Result<(Option<i32>, String)> {
        let code = self.process.wait(within)?.code();
        Ok((code, self.process.printed()))
    }
}

fn words(event: &Value) -> String {
    let detail = if event["event"] == "end" { &event["reason"] } else { &event["state"] };
    format!("{} {}", event["event"].as_str().unwrap_or("?"), detail.as_str().unwrap_or("?"))
}
