//! Stages of a long command: a heading each, the time each took, and the name
//! of the one that failed.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub struct Stages {
    command: &'static str,
    started: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Stages {
    pub fn new(command: &'static str) -> Self {
        Self { command, started: Instant::now(), done: Vec::new() }
    }

    pub fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let start = Instant::now();
        let result = stage().with_context(|| format!("stage \"{name}\" failed"))?;
        let took = start.elapsed();
        println!("==> {name}: done in {}\n", seconds(took));
        self.done.push((name, took));
        Ok(result)
    }

    pub fn finish(&self) {
        println!("{}", self.summary(self.started.elapsed()));
    }

    fn summary(&self, total: Duration) -> String {
        let mut line = format!("{}: all {} stages passed in {}", self.command, self.done.len(), seconds(total));
        for (index, (name, took)) in self.done.iter().enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(line, "{before}{name} {}", seconds(*took));
        }
        line.push(')');
        line
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failing_stage_is_named_and_ends_the_command() {
        let mut stages = Stages::new("test");
        assert_eq!(stages.run("setup", || Ok(1)).expect("it passes"), 1);
        let error = stages.run("unit", || -> Result<()> { bail!("two tests") }).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "stage \"unit\" failed: two tests");
        assert_eq!(stages.done.len(), 1);
    }

    #[test]
    fn the_summary_tells_where_the_time_went() {
        let mut stages = Stages::new("test");
        stages.done.push(("setup", Duration::from_millis(40)));
        stages.done.push(("unit", Duration::from_secs(12)));
        assert_eq!(
            stages.summary(Duration::from_millis(12_140)),
            "test: all 2 stages passed in 12.1 s (setup 0.0 s, unit 12.0 s)"
        );
    }
}
