//! `vnet network`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    Done,
    nat::{self, SetArgs},
    output::{Output, facts, list, table},
    port,
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Gateway, Network, NetworkDetail, NetworkRequest},
    },
    config::{Mode, NetworkName, parse_ipv4},
};

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Add a network
    Add(AddArgs),
    /// Change settings of a network's translation, at once and without touching its connections
    Set(SetArgs),
    /// Delete a network with its ports, forwards and connections
    Del { name: String },
    /// List networks
    #[command(visible_alias = "ls")]
    List,
    /// Show one network in full
    Show { name: String },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet network add default --mode nat --uplink eth0 --subnet 192.168.122.0/24
  vnet network add office --mode nat --uplink eth0 --subnet 10.1.0.0/24 \\
      --snat-address 192.0.2.16-192.0.2.31 --snat-ports 1024-65535 --filtering address-port
  vnet network add lan --mode bridge --uplink eth1
  vnet network add lab --mode host-only --subnet 10.0.0.0/24 --gateway 10.0.0.254")]
pub(super) struct AddArgs {
    /// 1 to 12 letters, digits, '_', '.' or '-'
    name: String,
    /// How the network is tied to the world
    #[arg(long, value_enum)]
    mode: Mode,
    /// A NIC towards the outside; may be repeated
    #[arg(long = "uplink", value_name = "DEV")]
    uplinks: Vec<String>,
    /// The guests' subnet (nat, routed, host-only); may be repeated
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<String>,
    /// The gateway's address, where it is not the first of its subnet; one a subnet
    #[arg(long = "gateway", value_name = "ADDR")]
    gateways: Vec<String>,
    #[command(flatten)]
    nat: nat::NatArgs,
}

impl NetworkCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Add(args) => args.run(client).await,
            Self::Set(args) => args.run(client).await,
            Self::Del { name } => {
                let name: NetworkName = name.parse()?;
                client.delete::<Done>(&path(&name)).await.map(drop)
            }
            Self::List => {
                let networks: Vec<Network> = client.get("/v1/networks").await?;
                output.print(&networks, |networks| network_table(networks))
            }
            Self::Show { name } => {
                let name: NetworkName = name.parse()?;
                let network: NetworkDetail = client.get(&path(&name)).await?;
                output.print(&network, network_text)
            }
        }
    }
}

impl AddArgs {
    async fn run(self, client: &Client) -> Result<()> {
        let request = NetworkRequest {
            name: self.name.parse()?,
            mode: self.mode,
            uplinks: self.uplinks.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            subnets: self.subnets.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            gateways: self.gateways.iter().map(|text| parse_ipv4(text)).collect::<Result<_, _>>()?,
            nat: self.nat.change()?,
        };
        client.post::<Done>("/v1/networks", &request).await.map(drop)
    }
}

pub(super) fn path(name: &NetworkName) -> String {
    format!("/v1/networks/{}", escape(name.as_str()))
}

fn network_table(networks: &[Network]) -> String {
    let row = |network: &Network| {
        vec![
            network.name.to_string(),
            network.mode.to_string(),
            network.state.clone(),
            list(&network.subnets),
            list(&network.uplinks),
            network.ports.to_string(),
            network.forwards.to_string(),
        ]
    };
    let header = ["NAME", "MODE", "STATE", "SUBNETS", "UPLINKS", "PORTS", "FORWARDS"];
    table(&header, &["PORTS", "FORWARDS"], networks.iter().map(row))
}

fn network_text(network: &NetworkDetail) -> String {
    let mut pairs = vec![
        ("Name", network.name.to_string()),
        ("Mode", network.mode.to_string()),
        ("State", network.state.clone()),
        ("Subnets", list(&network.subnets)),
        ("Gateway", network.gateway.as_ref().map_or_else(|| "-".into(), gateway_text)),
        ("Uplinks", list(&network.uplinks)),
    ];
    pairs.extend([
        ("Forwards", network.forwards.to_string()),
        ("MAC addresses", network.fdb_entries.to_string()),
        ("Connections", network.connections.to_string()),
    ]);
    pairs.extend(network.warnings.iter().map(|warning| ("Warning", warning.clone())));
    let settings = network.nat.as_ref().map(|nat| nat::settings_table(network.mode, nat));
    let ports = port::port_table(&network.ports);
    [Some(facts(pairs)), settings, Some(ports)].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn gateway_text(gateway: &Gateway) -> String {
    format!("{} on {} ({})", list(&gateway.addresses), gateway.device, gateway.mac)
}
