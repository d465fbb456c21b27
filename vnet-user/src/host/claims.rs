//! Who has which of the host's ports: its own sockets, and the networks that translate or forward.

use std::net::IpAddr;

use super::{
    PortSet,
    sockets::{self, Socket},
    sysctl,
};
use crate::{
    config::{Config, NatConfig, Protocol},
    error::Result,
    netlink::Host,
};

/// The host's own use of its ports, at one moment.
#[derive(Clone, Debug)]
pub struct HostPorts {
    /// TCP and UDP.
    pub sockets: Vec<Socket>,
    /// What the host picks from for its own connections, both included.
    pub ephemeral: (u16, u16),
}

impl Default for HostPorts {
    /// A host of which nothing is known: nobody listens, and it needs no port but 0, which nobody takes.
    fn default() -> Self {
        Self { sockets: Vec::new(), ephemeral: (0, 0) }
    }
}

impl HostPorts {
    pub fn read() -> Result<Self> {
        let mut sockets = sockets::bound(Protocol::Tcp)?;
        sockets.extend(sockets::bound(Protocol::Udp)?);
        Ok(Self { sockets, ephemeral: sysctl::ephemeral_ports()? })
    }

    /// The host's ports that it can still pick when those of `reserved` are taken from it.
    pub fn left(&self, reserved: &PortSet) -> usize {
        (self.ephemeral.0..=self.ephemeral.1).filter(|port| !reserved.contains(*port)).count()
    }

    /// A listening socket that would share an outside port with the guests of a network that is so translated.
    pub fn socket_within(&self, nat: &NatConfig, host: &Host) -> Option<&Socket> {
        let shares_address = |socket: &Socket| match nat.snat_address.pool() {
            None => socket.is_hit_by(None),
            // Only where the host carries an address of the pool do packets to it meet its sockets.
            Some(_) => carried(nat, host).any(|address| socket.is_hit_by(Some(address))),
        };
        let ports = nat.snat_ports.range();
        let mut sockets = self.sockets.iter();
        sockets.find(|socket| socket.is_listening && ports.contains(socket.port) && shares_address(socket))
    }
}

/// The ports that the host must not pick for its own connections: what networks translate with on its
/// addresses, and of its `ephemeral` ones those that are forwarded.
pub fn reserved_ports(config: &Config, host: &Host, (first, last): (u16, u16)) -> PortSet {
    let mut reserved = PortSet::default();
    for (_, network) in config.translating() {
        // On addresses that are not the host's it has no ports to pick.
        if network.nat.snat_address.pool().is_none() || carried(&network.nat, host).next().is_some() {
            let ports = network.nat.snat_ports.range();
            reserved.insert_range(ports.first(), ports.last());
        }
    }
    for (_, forward) in config.forwards() {
        let ports = forward.listen.ports;
        if ports.overlaps(first, last) {
            reserved.insert_range(ports.first().max(first), ports.last().min(last));
        }
    }
    reserved
}

/// Addresses of the pool that are the host's own.
fn carried(nat: &NatConfig, host: &Host) -> impl Iterator<Item = std::net::Ipv4Addr> {
    let pool = nat.snat_address.pool();
    host.addresses.iter().filter_map(move |address| match address.address {
        IpAddr::V4(address) => pool.is_some_and(|pool| pool.contains(address)).then_some(address),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Address;

    fn host() -> Host {
        let mut host = Host::default();
        let address = "192.0.2.1".parse().unwrap();
        host.addresses.push(Address { ifindex: 2, address, prefix: 24, is_primary: true });
        host
    }

    fn nat(address: &str, ports: &str) -> NatConfig {
        NatConfig { snat_address: address.parse().unwrap(), snat_ports: ports.parse().unwrap(), ..NatConfig::default() }
    }

    #[test]
    fn a_listening_socket_is_in_the_way_where_outside_packets_could_be_for_either() {
        let cases = [
            ("0.0.0.0", true, "uplink", "50000-50009", true),
            ("0.0.0.0", true, "uplink", "50001-50009", false),
            ("0.0.0.0", false, "uplink", "50000-50009", false),
            ("127.0.0.1", true, "uplink", "50000-50009", false),
            ("192.0.2.1", true, "uplink", "50000-50009", true),
            ("0.0.0.0", true, "192.0.2.0-192.0.2.9", "50000-50009", true),
            ("192.0.2.1", true, "192.0.2.0-192.0.2.9", "50000-50009", true),
            // The host does not carry it.
            ("0.0.0.0", true, "192.0.2.8", "50000-50009", false),
            ("198.51.100.1", true, "192.0.2.0-192.0.2.9", "50000-50009", false),
        ];
        for (on, is_listening, address, ports, hit) in cases {
            let socket = Socket { protocol: Protocol::Udp, address: on.parse().unwrap(), port: 50_000, is_listening };
            let all = HostPorts { sockets: vec![socket], ..HostPorts::default() };
            let found = all.socket_within(&nat(address, ports), &host());
            assert_eq!(found.is_some(), hit, "{on} {is_listening} {address} {ports}");
        }
    }

    #[test]
    fn what_networks_translate_with_on_the_hosts_addresses_is_reserved() {
        let reserved = |one: NatConfig, other: NatConfig| {
            let mut config = Config::default();
            for (name, nat) in [("one", one), ("other", other)] {
                let network =
                    crate::config::NetworkConfig { nat, ..crate::config::NetworkConfig::new(crate::config::Mode::Nat) };
                config.networks.insert(name.parse().unwrap(), network);
            }
            reserved_ports(&config, &host(), (32768, 60999)).to_string()
        };
        assert_eq!(reserved(NatConfig::default(), nat("uplink", "20000-20009")), "20000-20009,49152-65535");
        assert_eq!(reserved(nat("uplink", "2000-2009"), nat("192.0.2.1", "3000")), "2000-2009,3000");
        assert_eq!(reserved(nat("uplink", "2000-2009"), nat("192.0.2.2", "3000")), "2000-2009");
    }

    #[test]
    fn the_host_keeps_what_is_not_reserved() {
        let host = HostPorts { ephemeral: (32768, 60999), ..HostPorts::default() };
        assert_eq!(host.left(&"49152-65535".parse().unwrap()), 16384);
        assert_eq!(host.left(&"1024-65535".parse().unwrap()), 0);
    }
}
