//! `cargo xtask`: all automation of this repository, one command per file.

mod bench;
mod build;
mod build_ebpf;
mod coturn;
mod demo;
mod interrupt;
mod lint;
mod packages;
mod process;
mod setup;
mod stages;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Build, check, test and show vnet.
///
/// Each command first makes sure that what it needs is installed, so any of
/// them may be the first one run on a fresh Debian or Ubuntu machine.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Build(build::Args),
    Lint(lint::Args),
    Test(test::Args),
    Demo(demo::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Workspace::locate().and_then(|workspace| match cli.command {
        Command::Setup(args) => setup::run(&workspace, &args),
        Command::BuildEbpf(args) => build_ebpf::run(&workspace, &args),
        Command::Build(args) => build::run(&workspace, &args),
        Command::Lint(args) => lint::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
