//! What vnet takes the place of, set up as an expert would: to compare with, and to test the harness.

use anyhow::Result;

use crate::{
    namespace::Namespace,
    topology::{GATEWAY, SUBNET, UPLINK, World},
};

/// A linux-bridge `br0` over all guests' ports.
pub fn linux_bridge(world: &World) -> Result<()> {
    world.host.ip("link add br0 type bridge forward_delay 0\nlink set br0 up\n")?;
    world.guests().iter().try_for_each(|guest| world.host.ip(&format!("link set {} master br0\n", guest.port)))
}

/// The bridge with the guests' gateway on it, forwarding on, and iptables MASQUERADE on the uplink.
pub fn masquerade(world: &World) -> Result<()> {
    linux_bridge(world)?;
    route(&world.host)?;
    world.host.run(&["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", SUBNET, "-o", UPLINK, "-j", "MASQUERADE"])?;
    Ok(())
}

fn route(host: &Namespace) -> Result<()> {
    host.ip(&format!("addr add {GATEWAY}/24 dev br0\n"))?;
    host.sysctl("net/ipv4/ip_forward", "1")
}
