//! What connections are chosen by.

use clap::Args;

use crate::api::{client::escape, types::ConnectionQuery};

#[derive(Debug, Args)]
pub(in crate::cli) struct Filter {
    /// Of guests of this network
    #[arg(long)]
    network: Option<String>,
    #[arg(long, value_parser = ["tcp", "udp", "icmp", "sctp"])]
    proto: Option<String>,
    /// Opened from this address or subnet
    #[arg(long, value_name = "ADDR[/LEN]")]
    src: Option<String>,
    /// Opened towards this address or subnet
    #[arg(long, value_name = "ADDR[/LEN]")]
    dst: Option<String>,
    /// Opened from this port or range; of ICMP, the identifier
    #[arg(long, value_name = "PORT[-PORT]")]
    sport: Option<String>,
    /// Opened towards this port or range; of ICMP, the identifier
    #[arg(long, value_name = "PORT[-PORT]")]
    dport: Option<String>,
    /// Showing this outside address of the host
    #[arg(long, value_name = "ADDR")]
    outside: Option<String>,
    /// In this state, as the list says it
    #[arg(long)]
    state: Option<String>,
    /// Of the guest behind this port
    #[arg(long, value_name = "DEV")]
    port: Option<String>,
    /// Opened by a guest, through a forward, or to a port that a guest holds
    #[arg(long, value_parser = ["snat", "forward", "mapping"])]
    origin: Option<String>,
    /// Not seen for longer than that
    #[arg(long, value_name = "SECONDS")]
    idle_over: Option<String>,
}

impl From<Filter> for ConnectionQuery {
    fn from(filter: Filter) -> Self {
        let Filter { network, proto, src, dst, sport, dport, outside, state, port, origin, idle_over } = filter;
        Self { network, proto, src, dst, sport, dport, outside, state, port, origin, idle_over, ..Self::default() }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BindingFilter {
    /// Of guests of this network
    #[arg(long)]
    network: Option<String>,
    #[arg(long, value_parser = ["tcp", "udp", "icmp", "sctp"])]
    proto: Option<String>,
    /// With this inside address, or one of this subnet
    #[arg(long, value_name = "ADDR[/LEN]")]
    src: Option<String>,
    /// With this outside address
    #[arg(long, value_name = "ADDR")]
    outside: Option<String>,
}

impl From<BindingFilter> for ConnectionQuery {
    fn from(filter: BindingFilter) -> Self {
        let BindingFilter { network, proto, src, outside } = filter;
        Self { network, proto, src, outside, ..Self::default() }
    }
}

/// `path` with the query behind it.
pub(super) fn path(path: &str, query: &ConnectionQuery) -> String {
    let words = query.words();
    let given = words.iter().filter_map(|(word, given)| Some(format!("{word}={}", escape((*given)?))));
    let given = given.collect::<Vec<_>>().join("&");
    if given.is_empty() { path.into() } else { format!("{path}?{given}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_was_given() {
        let query = ConnectionQuery { src: Some("10.0.0.0/8".into()), all: Some("true".into()), ..Default::default() };
        assert_eq!(path("/v1/x", &query), "/v1/x?src=10.0.0.0%2F8&all=true");
        assert_eq!(path("/v1/x", &ConnectionQuery::default()), "/v1/x");
    }
}
