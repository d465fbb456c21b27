//! Programs that run beside the demo: the daemon and the servers. They end
//! with their guard.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// For a server to begin to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// For a program to end by itself once asked.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How much of its log a failing program is quoted with.
const QUOTED_LINES: usize = 8;

pub struct Background {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let errors = output.try_clone().context("a log cannot be shared")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, child, log })
    }

    pub fn wait_for_tcp_port(&mut self, port: u16) -> Result<()> {
        let pid = self.child.id();
        self.wait_until_it(&format!("listens on TCP port {port}"), || listens(pid, port))
    }

    pub fn wait_for_socket(&mut self, socket: &Path) -> Result<()> {
        self.wait_until_it("answers on its socket", || UnixStream::connect(socket).is_ok())
    }

    fn wait_until_it(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let (name, child) = (self.name, &mut self.child);
        let result = process::wait_until(&format!("{name} {what}"), START_LIMIT, || {
            if let Some(status) = child.try_wait().context("it cannot be waited for")? {
                bail!("{name} ended at once ({status})");
            }
            Ok(ready())
        });
        if result.is_err() {
            self.quote_log();
        }
        result
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn quote_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(QUOTED_LINES);
        for line in lines.iter().skip(start) {
            eprintln!("{}: {line}", self.name);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        process::stop(&mut self.child, STOP_LIMIT);
    }
}

/// Whether anything listens on `port` in the network namespace of `pid`.
fn listens(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"]
        .iter()
        .any(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).is_ok_and(|text| has_listener(&text, port)))
}

/// Reads the kernel's table: number, local address:port, remote, state, …
fn has_listener(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let ending = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next();
        let state = fields.nth(1);
        local.is_some_and(|local| local.ends_with(&ending)) && state == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_on_that_port_counts() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue
   0: 00000000:1451 00000000:0000 0A 00000000:00000000
   1: 0A7AA8C0:0050 0171007B:C350 01 00000000:00000000
";
        assert!(has_listener(table, 5201));
        assert!(!has_listener(table, 80), "established is not listening");
        assert!(!has_listener(table, 8080));
        assert!(!has_listener("", 5201));
    }

    #[test]
    fn our_own_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(listens(std::process::id(), port));
    }
}
