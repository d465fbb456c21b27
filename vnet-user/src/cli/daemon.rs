//! `vnet daemon`.

use std::{io::IsTerminal, path::PathBuf};

use anyhow::Result;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::{
    daemon::{self, Paths},
    datapath::{CgroupChoice, DEFAULT_CONNECTIONS, Wishes},
};

/// [`DaemonArgs::pick_up`] unless the user says otherwise.
const PICK_UP: u32 = 60;

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
    /// Connections that there is room for; takes effect when the tables are made (after a boot)
    #[arg(long, env = "VNET_MAX_CONNECTIONS", value_name = "N", default_value_t = DEFAULT_CONNECTIONS, hide_env_values = true)]
    max_connections: u32,
    /// Seconds after the tables are made in which TCP connections that stood before are taken up
    #[arg(long, env = "VNET_PICK_UP", value_name = "SECONDS", default_value_t = PICK_UP, hide_env_values = true)]
    pick_up: u32,
    /// The cgroup (v2) whose processes reach forwards as the outside does: a directory, 'auto' for the root of
    /// the tree, or 'none'
    #[arg(long, env = "VNET_CGROUP", value_name = "DIR", default_value = "auto", hide_env_values = true)]
    cgroup: CgroupChoice,
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
        let Self { state_dir, run_dir, pin_dir, max_connections, pick_up, cgroup, .. } = self;
        let wishes = Wishes { connections: max_connections, pick_up, cgroup };
        Ok(daemon::run(Paths { socket, state_dir, run_dir, pin_dir, wishes }).await?)
    }
}
