//! `vnet conntrack`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use clap::{Args, Subcommand};

use super::output::{Output, duration, table};
use crate::api::{
    client::{Client, escape},
    types::{Connection, Count, Tuple},
};

#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// List live connections
    #[command(visible_alias = "ls")]
    List(Filter),
    /// Count live connections
    Count(Filter),
    /// End connections: all, or those that every filter names
    Flush(Filter),
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Of guests of this network
    #[arg(long)]
    network: Option<String>,
    #[arg(long, value_parser = ["tcp", "udp", "icmp"])]
    proto: Option<String>,
    /// Opened from this address or subnet
    #[arg(long, value_name = "ADDR")]
    src: Option<String>,
    /// Opened towards this address or subnet
    #[arg(long, value_name = "ADDR")]
    dst: Option<String>,
}

impl Filter {
    /// As the query of a path.
    fn query(&self) -> Result<String> {
        if let Some(name) = &self.network {
            name.parse::<crate::config::NetworkName>()?;
        }
        let words = [("network", &self.network), ("proto", &self.proto), ("src", &self.src), ("dst", &self.dst)];
        let given = words.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_deref()?))));
        let query = given.collect::<Vec<_>>().join("&");
        Ok(if query.is_empty() { query } else { format!("?{query}") })
    }
}

impl ConntrackCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List(filter) => {
                let connections: Vec<Connection> = client.get(&format!("/v1/connections{}", filter.query()?)).await?;
                output.print(&connections, |connections| connection_table(connections))
            }
            Self::Count(filter) => {
                let count: Count = client.get(&format!("/v1/connections/count{}", filter.query()?)).await?;
                output.print(&count, |count| count.count.to_string())
            }
            Self::Flush(filter) => {
                let count: Count = client.delete(&format!("/v1/connections{}", filter.query()?)).await?;
                output.print(&count, |count| format!("{} ended", count.count))
            }
        }
    }
}

fn connection_table(connections: &[Connection]) -> String {
    let row = |connection: &Connection| {
        vec![
            connection.protocol.clone(),
            connection.state.clone(),
            connection.network.clone(),
            direction(&connection.original),
            direction(&connection.reply),
            duration(connection.age),
            duration(connection.expiry),
        ]
    };
    let header = ["PROTOCOL", "STATE", "NETWORK", "ORIGINAL", "REPLY", "AGE", "EXPIRY"];
    table(&header, &["AGE", "EXPIRY"], connections.iter().map(row))
}

fn direction(tuple: &Tuple) -> String {
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let id = tuple.id.map(|id| format!(" id {id}")).unwrap_or_default();
    format!("{} > {}{id}", end(tuple.src, tuple.src_port), end(tuple.dst, tuple.dst_port))
}
