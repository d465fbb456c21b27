//! Where and with what it was measured: a figure without this is worth nothing.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use serde::Serialize;

use crate::arguments::Arguments;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    /// In UTC.
    pub date: String,
    /// How the programs that take part call themselves.
    pub versions: Vec<String>,
    pub command: String,
}

impl Machine {
    pub fn read(arguments: &Arguments) -> Result<Self> {
        let names = uname().context("uname")?;
        let text = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo cannot be read")?;
        Ok(Self {
            kernel: format!("{} {}", names.release().display(), names.machine().display()),
            processor: processor(&text).unwrap_or("unknown processor").to_owned(),
            cores: text.lines().filter(|line| line.starts_with("processor")).count(),
            date: first_line(&["date", "--utc", "+%Y-%m-%d %H:%M UTC"])?,
            versions: [&["iptables", "--version"][..], &["nft", "--version"], &["iperf3", "--version"], &["ip", "-V"]]
                .into_iter()
                .map(first_line)
                .collect::<Result<_>>()?,
            command: command(arguments.words()),
        })
    }
}

/// x86 says `model name`; others may say nothing.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

fn command(arguments: Vec<String>) -> String {
    [vec!["cargo xtask bench".to_owned()], arguments].concat().join(" ")
}

fn first_line(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} cannot be run"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_the_kernel_names_it() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Any CPU @ 2 GHz\n"), Some("Any CPU @ 2 GHz"));
        assert_eq!(processor("processor\t: 0\n"), None);
    }

    #[test]
    fn the_command_is_the_one_to_type_again() {
        let arguments = ["--quick", "--scenario", "l2"].map(str::to_owned);
        assert_eq!(command(arguments.into()), "cargo xtask bench --quick --scenario l2");
    }
}
