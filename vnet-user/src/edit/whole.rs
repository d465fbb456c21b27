//! A whole configuration from a file: the same rules as for single changes.

use super::{add_fdb_entry, add_forward, add_network, add_port};
use crate::{
    Refusal,
    api::types::NetworkRequest,
    config::{Config, MacAddress, NetworkName},
    host::HostPorts,
    netlink::{Host, Link},
};

/// Builds the configuration anew, change by change, as on a host that has every device and nothing
/// else; `gateway_mac` gives networks their gateway's MAC address where the file does not.
pub fn check_whole(config: &Config, gateway_mac: impl Fn(&NetworkName) -> MacAddress) -> Result<Config, Refusal> {
    let host = host_with_devices(config);
    let mut built = Config::default();
    for (name, network) in &config.networks {
        let request = NetworkRequest {
            name: name.clone(),
            mode: network.mode,
            uplinks: Vec::new(),
            subnets: network.subnets.clone(),
            gateways: network.gateways.clone(),
            nat: network.nat.changes()?,
        };
        add_network(
            &mut built,
            &host,
            &HostPorts::default(),
            request,
            network.gateway_mac.unwrap_or_else(|| gateway_mac(name)),
        )?;
        for port in &network.ports {
            add_port(&mut built, &host, name, port.clone())?;
        }
        for forward in &network.forwards {
            add_forward(&mut built, &[], name, forward.clone())?;
        }
        for entry in &network.fdb {
            add_fdb_entry(&mut built, &host, name, entry.clone())?;
        }
    }
    Ok(built)
}

fn host_with_devices(config: &Config) -> Host {
    let mut host = Host::default();
    for (ifindex, (_, _, port)) in (1..).zip(config.ports()) {
        host.insert_link(Link { ifindex, name: port.device.to_string(), is_ethernet: true, ..Link::default() });
    }
    host
}
