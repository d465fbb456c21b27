//! The command line: one noun a file.

mod conntrack;
mod daemon;
mod fdb;
mod forward;
mod nat;
mod network;
mod output;
mod port;
mod show;
mod stats;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use self::output::Output;
use crate::api::client::Client;

/// One switch for the guests of this host: bridges, routes and translates in the kernel.
#[derive(Debug, Parser)]
#[command(name = "vnet", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        env = "VNET_SOCKET",
        value_name = "PATH",
        default_value = "/run/vnet/vnet.sock",
        hide_env_values = true
    )]
    socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
}

/// Where options of every command stand in the help.
const GLOBAL: &str = "Global options";

const EXAMPLES: &str = "\
Examples:
  vnet daemon
  vnet network add default --mode nat --uplink eth0 --subnet 192.168.122.0/24
  vnet port add default tap0 --mac 52:54:00:12:34:56 --ip 192.168.122.10
  vnet forward add default tcp 8080 192.168.122.10:80
  vnet show";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, in the foreground, on the network namespace that it is started in
    Daemon(daemon::DaemonArgs),
    /// Networks: add, set, del, list, show
    #[command(subcommand, visible_alias = "net")]
    Network(network::NetworkCommand),
    /// Ports, the devices on a network: add, del, list, show
    #[command(subcommand)]
    Port(port::PortCommand),
    /// Port forwards from outside to a guest: add, del, list
    #[command(subcommand)]
    Forward(forward::ForwardCommand),
    /// A network's MAC table: list, add, del, flush
    #[command(subcommand)]
    Fdb(fdb::FdbCommand),
    /// Live connections: list, count, flush, events, bindings
    #[command(subcommand)]
    Conntrack(Box<conntrack::ConntrackCommand>),
    /// Every network with its ports, on one screen
    Show,
    /// Totals, events, tables, and why frames were dropped
    Stats,
}

impl Cli {
    pub async fn run(self) -> Result<()> {
        let Global { socket, json } = self.global;
        let client = Client::new(socket.clone());
        let output = Output { json };
        match self.command {
            Command::Daemon(args) => args.run(socket).await,
            Command::Network(command) => command.run(&client, output).await,
            Command::Port(command) => command.run(&client, output).await,
            Command::Forward(command) => command.run(&client, output).await,
            Command::Fdb(command) => command.run(&client, output).await,
            Command::Conntrack(command) => command.run(&client, output).await,
            Command::Show => show::run(&client, output).await,
            Command::Stats => stats::run(&client, output).await,
        }
    }
}

/// What a change answers with.
#[derive(serde::Deserialize)]
struct Done {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_of_the_documentation_are_understood() {
        for line in [
            "vnet daemon --state-dir /tmp/state --cgroup none",
            "vnet network add default --mode nat --uplink eth0 --uplink eth1 --subnet 192.168.122.0/24",
            "vnet network add lab --mode host-only --subnet 10.0.0.0/24 --gateway 10.0.0.254",
            "vnet network add office --mode nat --subnet 10.1.0.0/24 --snat-address 192.0.2.16-192.0.2.31 \
             --snat-ports 1024-65535 --mapping endpoint-dependent --filtering address-port",
            "vnet network set default udp-timeout 30s guest-rate off",
            "vnet network list --json",
            "vnet --json --socket /tmp/x network show default",
            "vnet port add default tap0 --accel tc --mac 52:54:00:12:34:56 --ip 192.168.122.10 --ip 192.168.122.11",
            "vnet port add default eth0 --uplink",
            "vnet port list",
            "vnet port list default",
            "vnet port show tap0",
            "vnet forward add default tcp 192.0.2.1:8000-8010 192.168.122.10:9000-9010",
            "vnet forward add default tcp 5432 192.168.122.10 --loopback",
            "vnet forward del default udp 53",
            "vnet fdb add default 52:54:00:12:34:56 tap0 --vlan 10",
            "vnet fdb flush default",
            "vnet conntrack list --network default --proto tcp --src 192.168.122.10 --dst 203.0.113.0/24",
            "vnet conntrack list --sort idle --limit 20 --port tap0 --state established --sport 1024-65535 --dport 443",
            "vnet conntrack list --outside 192.0.2.1 --origin forward --idle-over 60",
            "vnet conntrack count --by guest",
            "vnet conntrack flush --all",
            "vnet conntrack events --proto tcp --json",
            "vnet conntrack bindings --network default",
            "vnet conntrack count",
            "vnet show",
            "vnet stats --json",
        ] {
            Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
