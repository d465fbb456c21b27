//! Connections, bindings and events, for people.

use std::net::{IpAddr, SocketAddr};

use crate::{
    api::types::{Binding, Connection, End, Event, Group, Tuple, Usage},
    cli::output::{duration, table},
};

pub(super) fn connection_table(connections: &[Connection]) -> String {
    let row = |connection: &Connection| {
        vec![
            connection.protocol.clone(),
            connection.state.clone(),
            connection.network.clone(),
            connection.port.clone(),
            direction(&connection.original),
            direction(&connection.reply),
            duration(connection.age),
            duration(connection.idle),
            duration(connection.expiry),
        ]
    };
    let header = ["PROTOCOL", "STATE", "NETWORK", "PORT", "ORIGINAL", "REPLY", "AGE", "IDLE", "EXPIRY"];
    table(&header, &["AGE", "IDLE", "EXPIRY"], connections.iter().map(row))
}

pub(super) fn group_table(by: &str, groups: &[Group]) -> String {
    let heading = match by {
        "guest" => "GUEST",
        "state" => "STATE",
        "proto" => "PROTOCOL",
        _ => "NETWORK",
    };
    if by != "guest" {
        let rows = groups.iter().map(|group| vec![group.name.clone(), group.count.to_string()]);
        return table(&[heading, "COUNT"], &["COUNT"], rows);
    }
    let row = |group: &Group| {
        let [network, connections, ports] = group.usage.as_ref().map(usage).unwrap_or_default();
        vec![group.name.clone(), network, group.count.to_string(), connections, ports]
    };
    let header = [heading, "NETWORK", "COUNT", "CONNECTIONS HELD", "OUTSIDE PORTS HELD"];
    table(&header, &["COUNT", "CONNECTIONS HELD", "OUTSIDE PORTS HELD"], groups.iter().map(row))
}

fn usage(usage: &Usage) -> [String; 3] {
    let of = |used: u32, quota: Option<u32>| match quota {
        Some(quota) => format!("{used} of {quota}"),
        None => used.to_string(),
    };
    [usage.network.clone(), of(usage.connections, usage.connections_quota), of(usage.ports, usage.ports_quota)]
}

pub(super) fn binding_table(bindings: &[Binding]) -> String {
    let row = |binding: &Binding| {
        vec![
            binding.protocol.clone(),
            binding.network.clone(),
            binding.port.clone(),
            end(&binding.inside),
            end(&binding.outside),
            binding.remote.as_ref().map_or_else(|| "any".into(), end),
            binding.connections.to_string(),
            duration(binding.idle),
            binding.free_in.map_or_else(|| "in use".into(), |seconds| format!("cooling down, {}", duration(seconds))),
        ]
    };
    let header = ["PROTOCOL", "NETWORK", "PORT", "INSIDE", "OUTSIDE", "REMOTE", "CONNECTIONS", "IDLE", "STATE"];
    table(&header, &["CONNECTIONS", "IDLE"], bindings.iter().map(row))
}

pub(super) fn event_line(event: &Event) -> String {
    match event {
        Event::New(connection) => told("new", connection),
        Event::Update(connection) => told("update", connection),
        Event::End { reason, connection } => {
            format!("{}, {reason} after {}", told("end", connection), duration(connection.age))
        }
        Event::Lost { count } => format!("lost    {count} events came faster than they could be told"),
    }
}

fn told(event: &str, connection: &Connection) -> String {
    let Connection { protocol, state, network, port, original, reply, .. } = connection;
    format!("{event:<6}  {protocol:<4}  {state:<12}  {network} {port}  {}  {}", direction(original), direction(reply))
}

fn direction(tuple: &Tuple) -> String {
    let id = tuple.id.map(|id| format!(" id {id}")).unwrap_or_default();
    format!("{} > {}{id}", address(tuple.src, tuple.src_port), address(tuple.dst, tuple.dst_port))
}

fn end(end: &End) -> String {
    let id = end.id.map(|id| format!(" id {id}")).unwrap_or_default();
    format!("{}{id}", address(end.address, end.port))
}

fn address(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_stand_beside_their_quotas() {
        let usage = Usage {
            network: "net1".into(),
            connections: 12,
            connections_quota: Some(1000),
            ports: 3,
            ports_quota: None,
        };
        let groups = [Group { name: "tap0".into(), count: 12, usage: Some(usage) }];
        let text = group_table("guest", &groups);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["tap0", "net1", "12", "12", "of", "1000", "3"]);
    }

    #[test]
    fn a_binding_says_whether_it_is_used() {
        let end = End { address: [10, 0, 0, 2].into(), port: Some(4000), id: None };
        let mut binding = Binding {
            protocol: "udp".into(),
            network: "net1".into(),
            port: "tap0".into(),
            inside: end,
            outside: end,
            remote: None,
            connections: 1,
            age: 5,
            idle: 5,
            cooling: false,
            free_in: None,
        };
        assert!(binding_table(&[binding.clone()]).ends_with("in use"));
        (binding.cooling, binding.free_in) = (true, Some(65));
        assert!(binding_table(&[binding]).ends_with("cooling down, 1m05s"));
    }
}
