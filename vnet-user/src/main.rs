//! `vnet`: the daemon and the command line that talks to it.

use std::process::ExitCode;

use clap::Parser;
use vnet_user::cli::Cli;

/// Exit codes: 0 done, 1 refused or failed (one line on stderr), 2 usage (clap's own).
#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vnet: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
