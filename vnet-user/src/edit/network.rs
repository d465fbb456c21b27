//! Networks.

use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::config::MAX_GATEWAY_ADDRESSES;

use super::{
    add_port,
    nat::{check_external, check_pools_among_guests},
};
use crate::{
    Refusal,
    api::types::NetworkRequest,
    config::{Config, MacAddress, Mode, NatConfig, NetworkConfig, NetworkName, PortConfig, Subnet},
    host::HostPorts,
    netlink::Host,
};

/// Prefixes up to this length say "everything" (default routes, and the halves that VPNs split them
/// into), not "this range is in use".
const DEFAULT_ROUTE_PREFIX: u8 = 7;

/// Adds a network; `ports` are the host's own, `gateway_mac` is used where the mode has a gateway.
pub fn add_network(
    config: &mut Config,
    host: &Host,
    ports: &HostPorts,
    request: NetworkRequest,
    gateway_mac: MacAddress,
) -> Result<(), Refusal> {
    let NetworkRequest { name, mode, uplinks, subnets, gateways, nat } = request;
    if config.networks.contains_key(&name) {
        return Err(Refusal::NetworkExists(name));
    }
    let network = NetworkConfig {
        nat: nat.apply(&NatConfig::default(), &name, mode)?,
        subnets,
        gateways,
        gateway_mac: mode.has_gateway().then_some(gateway_mac),
        ..NetworkConfig::new(mode)
    };
    check_subnets(&network)?;
    check_gateways(&network)?;
    for subnet in &network.subnets {
        check_free(config, host, &name, subnet)?;
    }
    let mut next = config.clone();
    next.networks.insert(name.clone(), network);
    check_pools_among_guests(&next)?;
    if mode == Mode::Nat {
        check_external(&next, host, ports, &name)?;
    }
    for device in uplinks {
        let port = PortConfig { device, uplink: true, accel: Default::default(), mac: None, addresses: Vec::new() };
        add_port(&mut next, host, &name, port)?;
    }
    *config = next;
    Ok(())
}

pub fn delete_network(config: &mut Config, name: &NetworkName) -> Result<(), Refusal> {
    config.network(name)?;
    config.networks.remove(name);
    Ok(())
}

fn check_subnets(network: &NetworkConfig) -> Result<(), Refusal> {
    let mode = network.mode;
    if !mode.has_gateway() {
        let none = network.subnets.is_empty() && network.gateways.is_empty();
        return if none { Ok(()) } else { Err(Refusal::SubnetNotTaken { mode }) };
    }
    if network.subnets.is_empty() {
        return Err(Refusal::SubnetNeeded { mode });
    }
    if network.subnets.len() > MAX_GATEWAY_ADDRESSES {
        return Err(Refusal::TooManySubnets { count: network.subnets.len(), most: MAX_GATEWAY_ADDRESSES });
    }
    for (index, subnet) in network.subnets.iter().enumerate() {
        if let Some(other) = network.subnets[..index].iter().find(|other| subnet.overlaps(&other.net())) {
            return Err(Refusal::SubnetsOverlap { subnet: subnet.net(), other: other.net() });
        }
    }
    Ok(())
}

fn check_gateways(network: &NetworkConfig) -> Result<(), Refusal> {
    for (index, gateway) in network.gateways.iter().enumerate() {
        let subnet = network.subnet_of(*gateway).ok_or(Refusal::GatewayOutside(*gateway))?;
        if subnet.is_reserved(*gateway) {
            return Err(Refusal::GatewayReserved { gateway: *gateway, subnet: subnet.net() });
        }
        if network.gateways[..index].iter().any(|other| subnet.contains(*other)) {
            return Err(Refusal::TwoGateways(subnet.net()));
        }
    }
    Ok(())
}

/// Nobody else uses the subnet: no other network, no address and no route of the host.
fn check_free(config: &Config, host: &Host, new: &NetworkName, subnet: &Subnet) -> Result<(), Refusal> {
    let wanted = subnet.net();
    for (name, network) in &config.networks {
        if let Some(other) = network.subnets.iter().find(|other| subnet.overlaps(&other.net())) {
            return Err(Refusal::OverlapsNetwork { subnet: wanted, other: other.net(), network: name.clone() });
        }
    }
    // What our own gateways carry was compared above, and is named better there; a device that has the
    // new gateway's name is dealt with when that is made.
    let is_ours = |ifindex: u32| {
        let device = host.name_of(ifindex);
        config.networks.keys().chain([new]).any(|name| name.gateway_device().as_str() == device)
    };
    for address in host.addresses.iter().filter(|address| !is_ours(address.ifindex)) {
        let IpAddr::V4(v4) = address.address else { continue };
        let Ok(net) = ipnet::Ipv4Net::new(v4, address.prefix) else { continue };
        if subnet.overlaps(&net) {
            let device = host.name_of(address.ifindex);
            return Err(Refusal::OverlapsAddress { subnet: wanted, address: IpNet::V4(net), device });
        }
    }
    for route in &host.routes {
        let IpNet::V4(net) = route.destination else { continue };
        let is_default = net.prefix_len() <= DEFAULT_ROUTE_PREFIX;
        if is_default || route.ifindex.is_some_and(is_ours) || !subnet.overlaps(&net) {
            continue;
        }
        let device = route.ifindex.map_or_else(|| "several devices".into(), |ifindex| host.name_of(ifindex));
        return Err(Refusal::OverlapsRoute { subnet: wanted, route: route.destination, device });
    }
    Ok(())
}
