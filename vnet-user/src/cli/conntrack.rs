//! `vnet conntrack`.

mod query;
mod text;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::{
    query::{BindingFilter, Filter},
    text::{binding_table, connection_table, event_line, group_table},
};
use super::output::Output;
use crate::api::{
    client::Client,
    types::{Binding, Connection, ConnectionQuery, Count, Event, Group},
};

#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// List live connections
    #[command(visible_alias = "ls")]
    List(List),
    /// Count live connections
    Count(CountBy),
    /// End connections: those that every filter names
    Flush(Flush),
    /// Follow connections as they begin, change and end, until Ctrl-C
    #[command(visible_alias = "follow")]
    Events(Filter),
    /// List which inside address and port keeps which outside one
    Bindings(BindingFilter),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// First the oldest, the longest idle, or the next to expire
    #[arg(long, value_parser = ["age", "idle", "expiry"])]
    sort: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CountBy {
    #[command(flatten)]
    filter: Filter,
    /// A count for each, with what guests use of their quotas
    #[arg(long, value_parser = ["guest", "state", "proto", "network"])]
    by: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Flush {
    #[command(flatten)]
    filter: Filter,
    /// Every connection there is
    #[arg(long)]
    all: bool,
}

impl ConntrackCommand {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List(List { filter, sort, limit }) => {
                let query = ConnectionQuery { sort, limit, ..filter.into() };
                let connections: Vec<Connection> = client.get(&query::path("/v1/connections", &query)).await?;
                output.print(&connections, |connections| connection_table(connections))
            }
            Self::Count(CountBy { filter, by: None }) => {
                let count: Count = client.get(&query::path("/v1/connections/count", &filter.into())).await?;
                output.print(&count, |count| count.count.to_string())
            }
            Self::Count(CountBy { filter, by: Some(by) }) => {
                let path = format!("/v1/connections/count/{by}");
                let groups: Vec<Group> = client.get(&query::path(&path, &filter.into())).await?;
                output.print(&groups, |groups| group_table(&by, groups))
            }
            Self::Flush(Flush { filter, all }) => {
                let query = ConnectionQuery { all: all.then(|| "true".into()), ..filter.into() };
                let count: Count = client.delete(&query::path("/v1/connections", &query)).await?;
                output.print(&count, |count| format!("{} ended", count.count))
            }
            Self::Events(filter) => follow(client, output, &filter.into()).await,
            Self::Bindings(filter) => {
                let bindings: Vec<Binding> = client.get(&query::path("/v1/bindings", &filter.into())).await?;
                output.print(&bindings, |bindings| binding_table(bindings))
            }
        }
    }
}

async fn follow(client: &Client, output: Output, query: &ConnectionQuery) -> Result<()> {
    let path = query::path("/v1/connections/events", query);
    let begun = || eprintln!("following connections; Ctrl-C ends");
    let lines = client.lines(&path, begun, |event: Event| output.print_line(&event, event_line));
    tokio::select! {
        ended = lines => match ended? {
            true => Ok(()),
            false => bail!("the daemon has ended, and the events with it"),
        },
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
