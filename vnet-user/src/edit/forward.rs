//! Forwards.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    Refusal,
    config::{Config, ForwardConfig, ForwardKeyText, NetworkConfig, NetworkName},
    host::sockets::Socket,
};

/// Forwarded ports of all networks together, at most: what the datapath's table holds with room to
/// spare, so that a rollback always fits.
const MAX_FORWARDED_PORTS: usize = 120_000;

/// Adds a forward; `sockets` are the host's of that protocol.
pub fn add_forward(
    config: &mut Config,
    sockets: &[Socket],
    name: &NetworkName,
    forward: ForwardConfig,
) -> Result<(), Refusal> {
    let network = config.network(name)?;
    if !network.mode.is_routed_outside() {
        return Err(Refusal::ForwardMode { network: name.clone(), mode: network.mode });
    }
    check_target(name, network, forward.address)?;
    check_listen(config, forward.listen.address)?;
    check_listen_free(config, sockets, &forward.key())?;
    check_loopback_free(sockets, &forward)?;
    let taken: u32 = config.forwards().map(|(_, forward)| forward.listen.ports.count()).sum();
    let count = (taken + forward.listen.ports.count()) as usize;
    if count > MAX_FORWARDED_PORTS {
        return Err(Refusal::TooManyForwards { count, most: MAX_FORWARDED_PORTS });
    }
    config.network_mut(name)?.forwards.push(forward);
    Ok(())
}

pub fn delete_forward(config: &mut Config, name: &NetworkName, key: &ForwardKeyText) -> Result<(), Refusal> {
    let forwards = &mut config.network_mut(name)?.forwards;
    let Some(index) = forwards.iter().position(|forward| forward.key() == *key) else {
        return Err(Refusal::NoForward { network: name.clone(), key: *key });
    };
    forwards.remove(index);
    Ok(())
}

fn check_target(name: &NetworkName, network: &NetworkConfig, address: Ipv4Addr) -> Result<(), Refusal> {
    let Some(subnet) = network.subnet_of(address) else {
        return Err(Refusal::TargetOutside { address, network: name.clone() });
    };
    if network.gateway_in(subnet) == address {
        return Err(Refusal::TargetIsGateway { address, network: name.clone() });
    }
    if subnet.is_reserved(address) {
        return Err(Refusal::TargetReserved { address, subnet: subnet.net() });
    }
    Ok(())
}

/// The address may come later (a failover address, a DHCP lease), but must be one that could.
fn check_listen(config: &Config, address: Option<Ipv4Addr>) -> Result<(), Refusal> {
    let Some(address) = address else { return Ok(()) };
    let unfit = |why| Err(Refusal::UnfitListen { address, why });
    if address.is_loopback() {
        return unfit("it is the host's loopback address, which no outside reaches");
    }
    if address.is_multicast() || address.is_broadcast() || address.octets()[0] == 0 {
        return unfit("it is no address of a single host");
    }
    if config.networks.values().any(|network| network.subnet_of(address).is_some()) {
        return unfit("it lies in a network of guests; give an outside address of the host, or none for all");
    }
    Ok(())
}

fn check_listen_free(config: &Config, sockets: &[Socket], wanted: &ForwardKeyText) -> Result<(), Refusal> {
    for (network, forward) in config.forwards().filter(|(_, forward)| forward.protocol == wanted.protocol) {
        if forward.listen.overlaps(&wanted.listen) {
            let (wanted, taken, network) = (*wanted, forward.key(), network.clone());
            return Err(Refusal::ListenTakenByForward { wanted, taken, network });
        }
    }
    for (network, translating) in config.translating() {
        let (ports, address) = (translating.nat.snat_ports.range(), translating.nat.snat_address);
        let (first, last) = (ports.first(), ports.last());
        if wanted.listen.ports.overlaps(first, last) && address.may_be(wanted.listen.address) {
            return Err(Refusal::ListenTakenBySnat { wanted: *wanted, network: network.clone(), first, last });
        }
    }
    let hit = |socket: &&Socket| {
        let same = socket.protocol == wanted.protocol && wanted.listen.ports.contains(socket.port);
        same && socket.is_hit_by(wanted.listen.address)
    };
    match sockets.iter().find(hit) {
        Some(&Socket { protocol, port, address, .. }) => {
            Err(Refusal::ListenTakenBySocket { protocol: protocol.name(), port, address })
        }
        None => Ok(()),
    }
}

fn check_loopback_free(sockets: &[Socket], forward: &ForwardConfig) -> Result<(), Refusal> {
    let hit = |socket: &&Socket| {
        let same = socket.protocol == forward.protocol && forward.listen.ports.contains(socket.port);
        same && matches!(socket.address, IpAddr::V4(address) if address.is_loopback())
    };
    match sockets.iter().find(hit).filter(|_| forward.loopback) {
        Some(&Socket { protocol, port, address, .. }) => {
            Err(Refusal::LoopbackTakenBySocket { protocol: protocol.name(), port, address })
        }
        None => Ok(()),
    }
}
