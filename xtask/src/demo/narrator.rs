//! The demo's voice: explanations, commands as typed, and what they print.

use std::env;
use std::io::{IsTerminal, stdout};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

/// No command of the demo takes longer on a machine that works.
const LIMIT: Duration = Duration::from_secs(30);

pub struct Narrator {
    colour: bool,
}

impl Narrator {
    pub fn new() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: stdout().is_terminal() && !plain }
    }

    /// Says what comes next, and why.
    pub fn explain(&self, text: &str) {
        println!();
        for line in text.lines() {
            println!("{}", self.paint("1;36", &format!("# {line}")));
        }
    }

    /// Shows a command as a user would type it.
    pub fn show(&self, line: &str) {
        println!("{} {}", self.paint("32", "$"), self.paint("1", line));
    }

    /// Shows `line`, runs `command` (what the line means here), prints what it
    /// prints and hands that back.
    pub fn run(&self, line: &str, command: &mut Command) -> Result<String> {
        self.show(line);
        let outcome = process::capture(command, LIMIT)?;
        for text in [&outcome.stdout, &outcome.stderr] {
            if !text.trim().is_empty() {
                println!("{}", text.trim_matches('\n'));
            }
        }
        if !outcome.status.success() {
            bail!("the demo ends here: `{line}` failed ({})", outcome.status);
        }
        Ok(outcome.stdout)
    }

    /// A command without quotes, run as it stands.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.run(line, &mut words(line))
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The command that a line without quotes means.
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
