//! Connections and bindings as the API shows them.

use std::net::IpAddr;

use vnet_common::{conntrack::protocol, vport::VportId};

use super::filter::is_query;
use crate::{
    api::types::{Binding, Connection, End, Tuple},
    datapath::{self, Origin},
    state::Runtime,
};

/// Shown for a number whose name is gone.
const NAMELESS: &str = "?";

pub(super) fn connection(row: &datapath::Connection, runtime: &Runtime) -> Connection {
    let is_query = is_query(row.protocol);
    Connection {
        protocol: protocol_name(row.protocol),
        state: row.state.into(),
        network: network_name(row.network, runtime),
        port: device_name(row.guest_vport, runtime),
        origin: match row.origin {
            Origin::Guest => "snat",
            Origin::Forward => "forward",
            Origin::Binding => "mapping",
        }
        .into(),
        // Queries have their identifier where they come from, replies where they go.
        original: tuple(&row.original, is_query.then_some(row.original.src_port)),
        reply: tuple(&row.reply, is_query.then_some(row.reply.dst_port)),
        age: row.age_seconds,
        idle: row.idle_seconds,
        expiry: row.expires_in_seconds,
    }
}

pub(super) fn binding(row: &datapath::Binding, runtime: &Runtime) -> Binding {
    let end = |(address, port): (IpAddr, u16)| match is_query(row.protocol) {
        true => End { address, port: None, id: Some(port) },
        false => End { address, port: Some(port), id: None },
    };
    Binding {
        protocol: protocol_name(row.protocol),
        network: network_name(row.network, runtime),
        port: device_name(row.guest_vport, runtime),
        inside: end(row.inside),
        outside: end(row.outside),
        remote: row.remote.map(end),
        connections: row.connections,
        age: row.age_seconds,
        idle: row.idle_seconds,
        cooling: row.cools_for_seconds.is_some(),
        free_in: row.cools_for_seconds,
    }
}

fn tuple(tuple: &datapath::Tuple, id: Option<u16>) -> Tuple {
    let port = |port: u16| id.is_none().then_some(port);
    Tuple { src: tuple.src, dst: tuple.dst, src_port: port(tuple.src_port), dst_port: port(tuple.dst_port), id }
}

pub(super) fn network_name(id: u16, runtime: &Runtime) -> String {
    runtime.network_name(id).map_or_else(|| NAMELESS.into(), ToString::to_string)
}

pub(super) fn device_name(vport: VportId, runtime: &Runtime) -> String {
    runtime.vport_device(vport).map_or_else(|| NAMELESS.into(), ToString::to_string)
}

pub(super) fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        protocol::SCTP => "sctp".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_show_their_identifiers_instead_of_ports() {
        let ends =
            datapath::Tuple { src: [10, 0, 0, 2].into(), dst: [203, 0, 113, 1].into(), src_port: 77, dst_port: 0 };
        let original = tuple(&ends, Some(77));
        assert_eq!((original.id, original.src_port, original.dst_port), (Some(77), None, None));
        let ports = tuple(&ends, None);
        assert_eq!((ports.id, ports.src_port, ports.dst_port), (None, Some(77), Some(0)));
    }
}
