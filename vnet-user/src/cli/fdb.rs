//! `vnet fdb`.

use anyhow::Result;
use clap::Subcommand;

use super::{
    Done,
    output::{Output, duration, table},
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Count, FdbEntry},
    },
    config::{FdbConfig, MacAddress, NetworkName, Vlan},
};

#[derive(Debug, Subcommand)]
pub(super) enum FdbCommand {
    /// List MAC addresses and the ports behind which they live
    #[command(visible_alias = "ls")]
    List { network: String },
    /// Add a static entry
    #[command(after_help = "Example:\n  vnet fdb add default 52:54:00:12:34:56 tap0")]
    Add {
        network: String,
        mac: String,
        /// A port of the network
        device: String,
        #[arg(long, value_name = "VID")]
        vlan: Option<u16>,
    },
    /// Delete an entry
    Del {
        network: String,
        mac: String,
        #[arg(long, value_name = "VID")]
        vlan: Option<u16>,
    },
    /// Forget everything that was learned
    Flush { network: String },
}

impl FdbCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { network } => {
                let entries: Vec<FdbEntry> = client.get(&fdb_of(&network.parse()?)).await?;
                output.print(&entries, |entries| fdb_table(entries))
            }
            Self::Add { network, mac, device, vlan } => {
                let network: NetworkName = network.parse()?;
                let entry = FdbConfig { mac: mac.parse()?, device: device.parse()?, vlan: Vlan::from_id(vlan)? };
                client.post::<Done>(&fdb_of(&network), &entry).await.map(drop)
            }
            Self::Del { network, mac, vlan } => {
                let (network, mac): (NetworkName, MacAddress) = (network.parse()?, mac.parse()?);
                let vlan = Vlan::from_id(vlan)?;
                let query = if vlan.is_untagged() { String::new() } else { format!("?vlan={}", vlan.id()) };
                client.delete::<Done>(&format!("{}/{mac}{query}", fdb_of(&network))).await.map(drop)
            }
            Self::Flush { network } => {
                let count: Count = client.delete(&fdb_of(&network.parse()?)).await?;
                output.print(&count, |count| format!("{} forgotten", count.count))
            }
        }
    }
}

fn fdb_of(network: &NetworkName) -> String {
    format!("/v1/networks/{}/fdb", escape(network.as_str()))
}

fn fdb_table(entries: &[FdbEntry]) -> String {
    let row = |entry: &FdbEntry| {
        vec![
            entry.mac.clone(),
            if entry.vlan == 0 { "-".into() } else { entry.vlan.to_string() },
            entry.port.clone(),
            entry.kind.clone(),
            entry.age.map_or_else(|| "-".into(), duration),
            entry.moves.to_string(),
        ]
    };
    table(&["MAC", "VLAN", "PORT", "KIND", "AGE", "MOVES"], &["AGE", "MOVES"], entries.iter().map(row))
}
