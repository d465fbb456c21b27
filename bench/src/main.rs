//! Measures vnet against what it takes the place of, and against what its hook allows.
//!
//! `cargo xtask bench` builds everything and runs this. The method: [`method`]; who is measured against
//! whom: [`scenario`]. All of it happens in network namespaces that have no names and end with this
//! process, however it ends; nothing of the machine's own network is changed.

mod arguments;
mod cpu;
mod interrupt;
mod lane;
mod machine;
mod method;
mod peers;
mod programs;
mod quiet;
mod report;
mod scenario;
mod sink;
mod source;
mod statistics;
mod wiring;

use std::{fs::File, io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::{
    arguments::{Arguments, Scenario},
    machine::Machine,
    method::Effort,
    report::Report,
};

#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    match run(&Cli::parse().arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    interrupt::catch()?;
    // Before minutes of measuring, not after.
    let json = arguments.json.as_deref().map(create).transpose()?;
    let core = cpu::choose(arguments.cpu)?;
    let effort = if arguments.quick { Effort::quick() } else { Effort::full() };
    let mut report = Report::new(Machine::read(arguments)?, core, effort);
    println!("{}", report.heading());
    let wanted = if arguments.scenarios.is_empty() { Scenario::value_variants() } else { &arguments.scenarios };
    for scenario in wanted {
        let results = scenario::measure(*scenario, core, &effort);
        for result in results.with_context(|| format!("scenario {}", scenario.name()))? {
            println!("\n{}\n", report::table(&result));
            report.results.push(result);
        }
    }
    println!("{}", report::LEGEND);
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&file, &report).context("the figures cannot be written")?;
        writeln!(file).context("the figures cannot be written")?;
    }
    Ok(())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("{} cannot be written", path.display()))
}
