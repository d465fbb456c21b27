//! Static entries of the MAC table.

use super::port::mac_owner;
use crate::{
    Refusal,
    config::{Config, FdbConfig, MacAddress, NetworkName, Vlan},
    netlink::Host,
};

pub fn add_fdb_entry(config: &mut Config, host: &Host, name: &NetworkName, entry: FdbConfig) -> Result<(), Refusal> {
    let network = config.network(name)?;
    let Some(port) = network.port(&entry.device) else {
        return Err(Refusal::NotAPort { network: name.clone(), device: entry.device });
    };
    if port.uplink && network.mode.is_routed_outside() {
        return Err(Refusal::FdbBehindRoutedUplink { network: name.clone(), device: entry.device });
    }
    let vlan = entry.vlan;
    if let Some(owner) = local_owner(config, host, name, entry.mac, vlan) {
        return Err(Refusal::FdbEntryLocal { mac: entry.mac, owner });
    }
    let exists = |port: String| Refusal::FdbEntryExists { mac: entry.mac, vlan: vlan.id(), kind: "static", port };
    if vlan.is_untagged()
        && let Some(port) = mac_owner(network, entry.mac)
    {
        return Err(exists(port));
    }
    if let Some(taken) = network.fdb.iter().find(|taken| taken.mac == entry.mac && taken.vlan == vlan) {
        return Err(exists(format!("port {}", taken.device)));
    }
    config.network_mut(name)?.fdb.push(entry);
    Ok(())
}

/// Removes a static entry. `false`: there is none, the address may still be a learned one.
pub fn delete_fdb_entry(
    config: &mut Config,
    host: &Host,
    name: &NetworkName,
    mac: MacAddress,
    vlan: Vlan,
) -> Result<bool, Refusal> {
    if let Some(owner) = local_owner(config, host, name, mac, vlan) {
        return Err(Refusal::FdbEntryLocal { mac, owner });
    }
    let network = config.network_mut(name)?;
    if let Some(port) = network.ports.iter().find(|port| port.mac == Some(mac) && vlan.is_untagged()) {
        return Err(Refusal::FdbEntryOfPort { mac, port: port.device.clone(), network: name.clone() });
    }
    let before = network.fdb.len();
    network.fdb.retain(|entry| entry.mac != mac || entry.vlan != vlan);
    Ok(network.fdb.len() < before)
}

/// Whose own address it is, of those that the network itself holds.
fn local_owner(config: &Config, host: &Host, name: &NetworkName, mac: MacAddress, vlan: Vlan) -> Option<&'static str> {
    let network = config.network(name).ok()?;
    if !vlan.is_untagged() {
        return None;
    }
    if network.gateway_mac == Some(mac) {
        return Some("the gateway's");
    }
    let is_bridge = network.mode == crate::config::Mode::Bridge;
    let mut uplinks = network.ports.iter().filter(|port| port.uplink && is_bridge);
    let owns = uplinks.any(|port| host.link(port.device.as_str()).is_some_and(|link| link.mac == mac.mac()));
    owns.then_some("an uplink's")
}
