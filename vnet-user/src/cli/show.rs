//! `vnet show`: the whole host on one screen, as `brctl show` was.

use anyhow::Result;

use super::{
    output::{Output, list, table},
    port::{role_name, state_name},
};
use crate::api::{
    client::Client,
    types::{NetworkDetail, Port},
};

const HEADER: [&str; 11] = [
    "NETWORK",
    "MODE",
    "GATEWAY",
    "FORWARDS",
    "CONNECTIONS",
    "PORT",
    "ROLE",
    "STATE",
    "RX FRAMES",
    "TX FRAMES",
    "DROPS",
];

pub(super) async fn run(client: &Client, output: Output) -> Result<()> {
    let networks: Vec<NetworkDetail> = client.get("/v1/show").await?;
    output.print(&networks, |networks| text(networks))
}

fn text(networks: &[NetworkDetail]) -> String {
    if networks.is_empty() {
        return "no networks: see 'vnet network add --help'".into();
    }
    let numbers = ["FORWARDS", "CONNECTIONS", "RX FRAMES", "TX FRAMES", "DROPS"];
    let mut text = table(&HEADER, &numbers, networks.iter().flat_map(rows));
    let warnings = networks
        .iter()
        .flat_map(|network| network.warnings.iter().map(|warning| format!("\n{}: {warning}", network.name)));
    let warnings: String = warnings.collect();
    if !warnings.is_empty() {
        text.push('\n');
        text.push_str(&warnings);
    }
    text
}

/// A network's rows: its own facts beside its first port, then the other ports.
fn rows(network: &NetworkDetail) -> Vec<Vec<String>> {
    let gateway = network.gateway.as_ref().map_or_else(|| "-".into(), |gateway| list(&gateway.addresses));
    let facts = [
        network.name.to_string(),
        network.mode.to_string(),
        gateway,
        network.forwards.to_string(),
        network.connections.to_string(),
    ];
    let blank = || facts.each_ref().map(|_| String::new());
    let mut rows: Vec<Vec<String>> =
        network.ports.iter().map(|port| [&blank()[..], &cells(port)[..]].concat()).collect();
    match rows.first_mut() {
        Some(first) => first.splice(..facts.len(), facts).for_each(drop),
        None => rows.push([&facts[..], &["-".to_owned()][..]].concat()),
    }
    rows
}

fn cells(port: &Port) -> [String; 6] {
    [
        port.device.to_string(),
        role_name(port.role).into(),
        state_name(port.state).into(),
        port.rx.frames.to_string(),
        port.tx.frames.to_string(),
        port.drops.values().sum::<u64>().to_string(),
    ]
}
