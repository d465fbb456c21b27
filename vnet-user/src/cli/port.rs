//! `vnet port`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    Done,
    output::{Output, facts, list, table},
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Port, PortDetail, PortState, Role},
    },
    config::{Accel, DeviceName, NetworkName, PortConfig, parse_ipv4},
};

#[derive(Debug, Subcommand)]
pub(super) enum PortCommand {
    /// Put a device on a network
    Add(AddArgs),
    /// Take a device off its network
    Del { network: String, device: String },
    /// List ports, of one network or of all
    #[command(visible_alias = "ls")]
    List { network: Option<String> },
    /// Show one port in full
    Show { device: String },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet port add default tap0
  vnet port add default tap1 --mac 52:54:00:12:34:56 --ip 192.168.122.10
  vnet port add default eth0 --uplink")]
pub(super) struct AddArgs {
    network: String,
    /// The guest's tap or veth, or a NIC
    device: String,
    /// A NIC towards the outside, not a guest
    #[arg(long)]
    uplink: bool,
    /// Which hook carries the frames
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// The guest's MAC address: it is known from the start and never learned elsewhere
    #[arg(long)]
    mac: Option<String>,
    /// The guest's address; may be repeated
    #[arg(long = "ip", value_name = "ADDR")]
    addresses: Vec<String>,
}

impl PortCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Add(args) => args.run(client).await,
            Self::Del { network, device } => {
                let (network, device): (NetworkName, DeviceName) = (network.parse()?, device.parse()?);
                let path = format!("{}/{}", ports_of(&network), escape(device.as_str()));
                client.delete::<Done>(&path).await.map(drop)
            }
            Self::List { network } => {
                let path = match network {
                    Some(name) => format!("/v1/ports?network={}", escape(name.parse::<NetworkName>()?.as_str())),
                    None => "/v1/ports".into(),
                };
                let ports: Vec<Port> = client.get(&path).await?;
                output.print(&ports, |ports| port_table(ports))
            }
            Self::Show { device } => {
                let device: DeviceName = device.parse()?;
                let port: PortDetail = client.get(&format!("/v1/ports/{}", escape(device.as_str()))).await?;
                output.print(&port, port_text)
            }
        }
    }
}

impl AddArgs {
    async fn run(self, client: &Client) -> Result<()> {
        let network: NetworkName = self.network.parse()?;
        let port = PortConfig {
            device: self.device.parse()?,
            uplink: self.uplink,
            accel: self.accel,
            mac: self.mac.map(|text| text.parse()).transpose()?,
            addresses: self.addresses.iter().map(|text| parse_ipv4(text)).collect::<Result<_, _>>()?,
        };
        client.post::<Done>(&ports_of(&network), &port).await.map(drop)
    }
}

fn ports_of(network: &NetworkName) -> String {
    format!("/v1/networks/{}/ports", escape(network.as_str()))
}

pub(super) fn port_table(ports: &[Port]) -> String {
    let row = |port: &Port| {
        vec![
            port.device.to_string(),
            port.network.to_string(),
            role_name(port.role).into(),
            state_name(port.state).into(),
            port.accel.clone(),
            port.rx.frames.to_string(),
            port.rx.bytes.to_string(),
            port.tx.frames.to_string(),
            port.tx.bytes.to_string(),
            port.drops.values().sum::<u64>().to_string(),
        ]
    };
    let header =
        ["DEVICE", "NETWORK", "ROLE", "STATE", "ACCEL", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "DROPS"];
    table(&header, &header[5..], ports.iter().map(row))
}

fn port_text(detail: &PortDetail) -> String {
    let port = &detail.port;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let mut pairs = vec![
        ("Device", port.device.to_string()),
        ("Network", list(&detail.networks)),
        ("Role", role_name(port.role).into()),
        ("State", state_name(port.state).into()),
        ("Accel", port.accel.clone()),
        ("Index", or_dash(port.ifindex.map(|index| index.to_string()))),
        ("Device MAC", or_dash(port.device_mac.clone())),
        ("MTU", or_dash(port.mtu.map(|mtu| mtu.to_string()))),
        ("Guest MAC", or_dash(port.mac.map(|mac| mac.to_string()))),
        ("Guest IP", list(&port.ip)),
        ("Received", format!("{} frames, {} bytes", port.rx.frames, port.rx.bytes)),
        ("Sent", format!("{} frames, {} bytes", port.tx.frames, port.tx.bytes)),
    ];
    pairs.extend(port.drops.iter().map(|(reason, count)| ("Dropped", format!("{count} {reason}"))));
    facts(pairs)
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Guest => "guest",
        Role::Uplink => "uplink",
    }
}

pub(super) fn state_name(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::Down => "down",
        PortState::Absent => "absent",
    }
}
