//! NAT settings, and what they must not get in the way of.

use crate::{
    Refusal,
    config::{Config, NatChange, NetworkName},
    host::{HostPorts, reserved_ports, sockets::Socket},
    netlink::Host,
};

/// Ports for its own connections that the host keeps at least.
const HOST_PORTS: usize = 4096;

/// Changes settings of a network; `ports` are the host's own.
pub fn set_network(
    config: &mut Config,
    host: &Host,
    ports: &HostPorts,
    name: &NetworkName,
    change: &NatChange,
) -> Result<(), Refusal> {
    let mut next = config.clone();
    let network = next.network_mut(name)?;
    let nat = change.apply(&network.nat, name, network.mode)?;
    let external = |nat: &crate::config::NatConfig| (nat.snat_address, nat.snat_ports);
    let is_elsewhere = external(&nat) != external(&network.nat);
    network.nat = nat;
    if is_elsewhere {
        check_external(&next, host, ports, name)?;
    }
    *config = next;
    Ok(())
}

/// The outside addresses and ports of one network stand in nobody's way.
pub(super) fn check_external(
    config: &Config,
    host: &Host,
    ports: &HostPorts,
    name: &NetworkName,
) -> Result<(), Refusal> {
    check_pools(config, name)?;
    check_forwards(config, name)?;
    let nat = &config.network(name)?.nat;
    let range = nat.snat_ports.range();
    if let Some(&Socket { protocol, address, port, .. }) = ports.socket_within(nat, host) {
        return Err(Refusal::SnatTakenBySocket { ports: range, protocol: protocol.name(), port, address });
    }
    let (first, last) = ports.ephemeral;
    let left = ports.left(&reserved_ports(config, host, ports.ephemeral));
    if left < HOST_PORTS.min(usize::from(last - first) + 1) {
        return Err(Refusal::HostPortsExhausted { ports: range, left, first, last, least: HOST_PORTS });
    }
    Ok(())
}

/// No pool lies in a guests' subnet. Called for a network with a new pool, and for one with new subnets.
pub(super) fn check_pools_among_guests(config: &Config) -> Result<(), Refusal> {
    for pool in config.translating().filter_map(|(_, network)| network.nat.snat_address.pool()) {
        for (name, network) in &config.networks {
            if let Some(subnet) = network.subnets.iter().find(|subnet| pool.overlaps_subnet(subnet)) {
                return Err(Refusal::PoolAmongGuests { pool, subnet: subnet.net(), network: name.clone() });
            }
        }
    }
    Ok(())
}

/// Two networks share the uplink's address port by port, but a pool's addresses belong to one of them.
fn check_pools(config: &Config, name: &NetworkName) -> Result<(), Refusal> {
    check_pools_among_guests(config)?;
    let nat = &config.network(name)?.nat;
    let Some(pool) = nat.snat_address.pool() else { return Ok(()) };
    let ports = nat.snat_ports.range();
    for (other_name, other) in config.translating().filter(|(other, _)| *other != name) {
        let other_ports = other.nat.snat_ports.range();
        if let Some(other_pool) = other.nat.snat_address.pool()
            && pool.overlaps(other_pool)
            && ports.overlaps(other_ports.first(), other_ports.last())
        {
            return Err(Refusal::PoolsOverlap { pool, other: other_pool, network: other_name.clone() });
        }
    }
    Ok(())
}

/// No forward of any network listens where this one translates.
fn check_forwards(config: &Config, name: &NetworkName) -> Result<(), Refusal> {
    let nat = &config.network(name)?.nat;
    let (first, last) = (nat.snat_ports.range().first(), nat.snat_ports.range().last());
    let in_the_way = config.forwards().find(|(_, forward)| {
        forward.listen.ports.overlaps(first, last) && nat.snat_address.may_be(forward.listen.address)
    });
    match in_the_way {
        Some((network, forward)) => {
            Err(Refusal::SnatTakenByForward { taken: forward.key(), network: network.clone(), first, last })
        }
        None => Ok(()),
    }
}
