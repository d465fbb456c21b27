//! What every contestant's world gets alike, so that none is favoured.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use vnet_tests::{frame::Mac, namespace::Namespace};

/// Lets a device receive what its veth peer redirects into the cable.
///
/// veth takes redirected frames only while the receiving end polls (NAPI), which an XDP program there or
/// GRO turns on. GRO it is: no contestant has to run one more program for each frame, and guests that
/// send bulk traffic to linux-bridge are best served so, too.
pub fn accept_redirected(inside: &Namespace, device: &str) -> Result<()> {
    inside.run(&["ethtool", "-K", device, "gro", "on"]).map(drop)
}

/// Writes a neighbour down for good. The sinks leave ARP alone, but a full core may lose an answer.
pub fn know(inside: &Namespace, device: &str, address: Ipv4Addr, mac: Mac) -> Result<()> {
    inside.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n"))
}

/// A device's own address.
pub fn mac(inside: &Namespace, device: &str) -> Result<Mac> {
    inside.enter(|| {
        let found = getifaddrs()?
            .filter(|entry| entry.interface_name == device)
            .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr());
        found.map(Mac).with_context(|| format!("{device} has no MAC address"))
    })
}
