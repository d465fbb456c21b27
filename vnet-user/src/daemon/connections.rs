//! Connections, filtered.

use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{config::NetworkId, conntrack::protocol};

use super::Switch;
use crate::{
    Refusal,
    api::types::{Connection, ConnectionFilter, Tuple},
    datapath,
    error::Result,
    state::Runtime,
};

/// A filter that was understood.
struct Filter {
    network: Option<NetworkId>,
    protocol: Option<&'static [u8]>,
    src: Option<IpNet>,
    dst: Option<IpNet>,
}

impl Switch {
    pub async fn connections(&self, filter: &ConnectionFilter) -> Result<Vec<Connection>> {
        let (filter, runtime) = self.filter(filter).await?;
        let rows = self.blocking(move |tables| tables.connections(|row| filter.matches(row))).await?;
        Ok(rows.into_iter().map(|row| connection(row, &runtime)).collect())
    }

    pub async fn connection_count(&self, filter: &ConnectionFilter) -> Result<u64> {
        let (filter, _) = self.filter(filter).await?;
        let count = move |tables: &datapath::Tables| {
            if filter.takes_all() {
                return tables.connection_count();
            }
            let mut count = 0;
            tables.connections(|row| {
                count += usize::from(filter.matches(row));
                false
            })?;
            Ok(count)
        };
        Ok(self.blocking(count).await? as u64)
    }

    /// Ends connections; returns how many.
    pub async fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64> {
        let (filter, _) = self.filter(filter).await?;
        let ended = self.blocking(move |tables| tables.flush_connections(|row| filter.matches(row))).await?;
        Ok(ended as u64)
    }

    async fn filter(&self, filter: &ConnectionFilter) -> Result<(Filter, Runtime)> {
        let asked = self.asked().await;
        let network = match &filter.network {
            None => None,
            Some(name) => {
                asked.config.network(name)?;
                asked.runtime.network(name)
            }
        };
        let protocol = filter.proto.as_deref().map(parse_protocol).transpose()?;
        let src = filter.src.as_deref().map(parse_addresses).transpose()?;
        let dst = filter.dst.as_deref().map(parse_addresses).transpose()?;
        Ok((Filter { network, protocol, src, dst }, asked.runtime))
    }

    /// Reads as much as there is, off the threads that answer.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&datapath::Tables) -> Result<T, datapath::TableError> + Send + 'static,
    ) -> Result<T> {
        let tables = self.tables().clone();
        match tokio::task::spawn_blocking(move || read(&tables)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(crate::Error::Setup(format!("reading the connections: {error}"))),
        }
    }
}

impl Filter {
    fn takes_all(&self) -> bool {
        self.network.is_none() && self.protocol.is_none() && self.src.is_none() && self.dst.is_none()
    }

    fn matches(&self, row: &datapath::Connection) -> bool {
        self.network.is_none_or(|network| network == row.network)
            && self.protocol.is_none_or(|protocols| protocols.contains(&row.protocol))
            && self.src.is_none_or(|net| net.contains(&row.original.src))
            && self.dst.is_none_or(|net| net.contains(&row.original.dst))
    }
}

fn parse_protocol(text: &str) -> Result<&'static [u8], Refusal> {
    match text {
        "tcp" => Ok(&[protocol::TCP]),
        "udp" => Ok(&[protocol::UDP]),
        "icmp" => Ok(&[protocol::ICMP, protocol::ICMPV6]),
        _ => Err(Refusal::BadRequest("--proto takes tcp, udp or icmp".into())),
    }
}

fn parse_addresses(text: &str) -> Result<IpNet, Refusal> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| Refusal::BadFilter(text.escape_debug().take(64).collect()))
}

fn connection(row: datapath::Connection, runtime: &Runtime) -> Connection {
    let is_query = matches!(row.protocol, protocol::ICMP | protocol::ICMPV6);
    Connection {
        protocol: protocol_name(row.protocol),
        state: row.state.into(),
        network: runtime.network_name(row.network).map_or_else(|| "?".into(), ToString::to_string),
        origin: if row.forwarded { "forward" } else { "snat" }.into(),
        // Queries have their identifier where they come from, replies where they go.
        original: tuple(&row.original, is_query.then_some(row.original.src_port)),
        reply: tuple(&row.reply, is_query.then_some(row.reply.dst_port)),
        age: row.age_seconds,
        expiry: row.expires_in_seconds,
    }
}

fn tuple(tuple: &datapath::Tuple, id: Option<u16>) -> Tuple {
    let port = |port: u16| id.is_none().then_some(port);
    Tuple { src: tuple.src, dst: tuple.dst, src_port: port(tuple.src_port), dst_port: port(tuple.dst_port), id }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> datapath::Connection {
        let tuple = |src: &str, dst: &str, src_port, dst_port| datapath::Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port,
            dst_port,
        };
        datapath::Connection {
            protocol: protocol::ICMP,
            network: 1,
            vlan: 0,
            guest_vport: 2,
            state: "replied",
            forwarded: false,
            original: tuple("10.0.0.2", "203.0.113.1", 77, 0),
            reply: tuple("203.0.113.1", "192.0.2.1", 0, 50_077),
            age_seconds: 5,
            idle_seconds: 1,
            expires_in_seconds: 59,
        }
    }

    #[test]
    fn queries_show_their_identifiers_instead_of_ports() {
        let original = tuple(&row().original, Some(77));
        assert_eq!((original.id, original.src_port, original.dst_port), (Some(77), None, None));
        let ports = tuple(&row().original, None);
        assert_eq!((ports.id, ports.src_port, ports.dst_port), (None, Some(77), Some(0)));
    }

    #[test]
    fn filters_take_addresses_and_subnets_of_the_original_direction() {
        let cases = [
            (None, None, None, true),
            (Some("icmp"), Some("10.0.0.2"), Some("203.0.113.0/24"), true),
            (Some("tcp"), None, None, false),
            (None, Some("10.0.0.3"), None, false),
            (None, None, Some("192.0.2.1"), false),
            (None, Some("10.0.0.0/8"), None, true),
        ];
        for (proto, src, dst, matches) in cases {
            let parse = |text: Option<&str>| text.map(|text| parse_addresses(text).unwrap());
            let protocol = proto.map(|text| parse_protocol(text).unwrap());
            let filter = Filter { network: None, protocol, src: parse(src), dst: parse(dst) };
            assert_eq!(filter.matches(&row()), matches, "{proto:?} {src:?} {dst:?}");
        }
        for bad in ["", "banana", "10.0.0.0/33", "10.0.0.1-2"] {
            assert!(parse_addresses(bad).is_err(), "{bad}");
        }
    }
}
