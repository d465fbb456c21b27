//! `vnet daemon`.

use std::{io::IsTerminal, path::PathBuf};

use anyhow::Result;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::daemon::{self, Paths};

#[derive(Debug, Args)]
#[command(after_help = "Ends on SIGTERM and SIGINT; the datapath stays in place and traffic goes on.")]
pub(super) struct DaemonArgs {
    /// Where networks are kept
    #[arg(long, env = "VNET_STATE_DIR", value_name = "DIR", default_value = "/var/lib/vnet", hide_env_values = true)]
    state_dir: PathBuf,
    /// Where what belongs to this boot is kept
    #[arg(long, env = "VNET_RUN_DIR", value_name = "DIR", default_value = "/run/vnet", hide_env_values = true)]
    run_dir: PathBuf,
    /// Where the datapath is pinned, in a BPF file system (mounted if it is missing)
    #[arg(long, env = "VNET_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/vnet", hide_env_values = true)]
    pin_dir: PathBuf,
    /// What to log, as in tracing's filters: warn, info, debug, vnet_user::reconcile=debug
    #[arg(long, env = "VNET_LOG", value_name = "FILTER", default_value = "info", hide_env_values = true)]
    log: String,
}

impl DaemonArgs {
    pub(super) async fn run(self, socket: PathBuf) -> Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| anyhow::anyhow!("--log {}: {error}", self.log))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
        let Self { state_dir, run_dir, pin_dir, .. } = self;
        Ok(daemon::run(Paths { socket, state_dir, run_dir, pin_dir }).await?)
    }
}
