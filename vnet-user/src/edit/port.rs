//! Ports.

use std::net::Ipv4Addr;

use vnet_common::{config::MAX_UPLINKS, vport::MAX_FLOOD};

use crate::{
    Refusal,
    config::{Accel, Config, DeviceName, MacAddress, NetworkConfig, NetworkName, PortConfig},
    netlink::Host,
};

/// The gateway takes one place in the flood list.
const MAX_PORTS: usize = MAX_FLOOD as usize - 1;

pub fn add_port(config: &mut Config, host: &Host, name: &NetworkName, port: PortConfig) -> Result<(), Refusal> {
    let network = config.network(name)?;
    if port.accel == Accel::Xdp {
        return Err(Refusal::XdpNotYet);
    }
    if port.uplink && !network.mode.takes_uplinks() {
        return Err(Refusal::UplinkNotTaken { mode: network.mode });
    }
    check_not_taken(config, name, &port)?;
    check_device(config, host, &port)?;
    check_room(network, &port)?;
    check_addresses(name, network, &port)?;
    config.network_mut(name)?.ports.push(port);
    Ok(())
}

/// Removes a port, and the static MAC addresses behind it.
pub fn delete_port(config: &mut Config, name: &NetworkName, device: &DeviceName) -> Result<(), Refusal> {
    let network = config.network_mut(name)?;
    let Some(index) = network.ports.iter().position(|port| port.device == *device) else {
        return Err(Refusal::NotAPort { network: name.clone(), device: device.clone() });
    };
    network.ports.remove(index);
    network.fdb.retain(|entry| entry.device != *device);
    Ok(())
}

/// A device is on one network, except that routed networks may leave by one and the same uplink.
fn check_not_taken(config: &Config, name: &NetworkName, port: &PortConfig) -> Result<(), Refusal> {
    let shares = |network: &NetworkConfig, uplink: bool| uplink && network.mode.is_routed_outside();
    let may_share = shares(config.network(name)?, port.uplink);
    for (other_name, other, taken) in config.ports().filter(|(_, _, taken)| taken.device == port.device) {
        if !may_share || !shares(other, taken.uplink) || other_name == name {
            return Err(Refusal::DeviceTaken { device: port.device.clone(), network: other_name.clone() });
        }
    }
    Ok(())
}

fn check_device(config: &Config, host: &Host, port: &PortConfig) -> Result<(), Refusal> {
    let device = &port.device;
    let unfit = |why| Err(Refusal::UnfitDevice { device: device.clone(), why });
    let is_ours = |name: &NetworkName| *device == name.gateway_device() || *device == name.gateway_peer();
    let Some(link) = host.link(device.as_str()) else {
        return Err(Refusal::NoDevice(device.clone()));
    };
    if config.networks.keys().any(is_ours) {
        return unfit("it is the gateway of a network");
    }
    if link.is_loopback {
        return unfit("it is the loopback device");
    }
    if !link.is_ethernet {
        return unfit("it carries no Ethernet frames");
    }
    if link.kind == "bridge" && !port.uplink {
        return unfit("it is a bridge; its own ports can be guests' ports");
    }
    if let Some(master) = link.master {
        return Err(Refusal::DeviceHasMaster { device: device.clone(), master: host.name_of(master) });
    }
    Ok(())
}

fn check_room(network: &NetworkConfig, port: &PortConfig) -> Result<(), Refusal> {
    if network.ports.len() >= MAX_PORTS {
        return Err(Refusal::TooManyPorts { most: MAX_PORTS });
    }
    if port.uplink && network.ports.iter().filter(|port| port.uplink).count() >= MAX_UPLINKS {
        return Err(Refusal::TooManyUplinks { most: MAX_UPLINKS });
    }
    Ok(())
}

fn check_addresses(name: &NetworkName, network: &NetworkConfig, port: &PortConfig) -> Result<(), Refusal> {
    if port.uplink && (port.mac.is_some() || !port.addresses.is_empty()) {
        return Err(Refusal::UplinkWithGuestAddress);
    }
    for address in &port.addresses {
        check_guest_address(name, network, *address)?;
    }
    match port.mac.and_then(|mac| Some((mac, mac_owner(network, mac)?))) {
        Some((mac, by)) => Err(Refusal::MacTaken { mac, by }),
        None => Ok(()),
    }
}

fn check_guest_address(name: &NetworkName, network: &NetworkConfig, address: Ipv4Addr) -> Result<(), Refusal> {
    let taken = |by: String| Err(Refusal::PortAddressTaken { address, by });
    if let Some(other) = network.ports.iter().find(|port| port.addresses.contains(&address)) {
        return taken(format!("port {}", other.device));
    }
    if !network.mode.has_gateway() {
        return Ok(());
    }
    let Some(subnet) = network.subnet_of(address) else {
        return Err(Refusal::PortAddressOutside { address, network: name.clone() });
    };
    if network.gateway_in(subnet) == address {
        return taken("the gateway".into());
    }
    if subnet.is_reserved(address) {
        return taken(format!("{subnet} itself"));
    }
    Ok(())
}

/// Who has the MAC address already.
pub(super) fn mac_owner(network: &NetworkConfig, mac: MacAddress) -> Option<String> {
    if network.gateway_mac == Some(mac) {
        return Some("the gateway".into());
    }
    let port = network.ports.iter().find(|port| port.mac == Some(mac)).map(|port| &port.device);
    let fixed = network.fdb.iter().find(|entry| entry.mac == mac && entry.vlan.is_untagged());
    port.or(fixed.map(|entry| &entry.device)).map(|device| format!("port {device}"))
}
