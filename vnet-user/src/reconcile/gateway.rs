//! Gateway devices: `vn-NAME`, one end of a veth pair. The other end, `vp-NAME`, only gives it a
//! carrier (dummy devices are missing on some kernels).

use std::net::{IpAddr, Ipv4Addr};

use super::apply::Applier;
use crate::{
    config::{Config, DeviceName, NetworkConfig, NetworkName},
    error::Result,
    host::sysctl::DeviceSysctl,
    netlink::{Host, Link, LinkChange},
};

/// MTU of a gateway whose uplinks do not ask for less.
const MTU: u32 = 1500;

impl Applier<'_> {
    /// Names of gateway devices that somebody else's devices bear.
    pub(super) fn taken_gateways(&self, config: &Config) -> Vec<DeviceName> {
        let taken = |(name, network): (&NetworkName, &NetworkConfig)| {
            let (device, peer) = (name.gateway_device(), name.gateway_peer());
            match self.host.link(device.as_str()) {
                Some(link) => (!self.is_ours(&device, link, network)).then_some(device),
                None => self.host.link(peer.as_str()).map(|_| peer),
            }
        };
        gateways(config).filter_map(taken).collect()
    }

    /// Makes the network's gateway device if it is missing; true where it was.
    pub(super) async fn make_gateway(&mut self, name: &NetworkName, network: &NetworkConfig) -> Result<bool> {
        let (device, peer) = (name.gateway_device(), name.gateway_peer());
        let Some(mac) = network.gateway_mac else { return Ok(false) };
        self.journal.record_gateway_device(&device)?;
        if self.host.link(device.as_str()).is_some() {
            return Ok(false);
        }
        self.netlink.create_veth(device.as_str(), peer.as_str(), mac.mac()).await?;
        Ok(true)
    }

    /// By the record, or (the record being lost) by the MAC address that the network gave it.
    fn is_ours(&self, device: &DeviceName, link: &Link, network: &NetworkConfig) -> bool {
        let is_marked = network.gateway_mac.is_some_and(|mac| mac.mac() == link.mac);
        link.kind == "veth" && (self.journal.has_gateway_device(device) || is_marked)
    }

    /// Sets the gateway device as it should be: the peer silent, the device up with its addresses. True
    /// where the host is another now.
    pub(super) async fn set_up_gateway(&mut self, name: &NetworkName, network: &NetworkConfig) -> Result<bool> {
        let mut changed = false;
        if let Some(peer) = self.host.link(name.gateway_peer().as_str()) {
            changed |= self.set_up_peer(peer).await?;
        }
        if let Some(link) = self.host.link(name.gateway_device().as_str()) {
            changed |= self.set_up_device(link, network).await?;
        }
        Ok(changed)
    }

    async fn set_up_peer(&self, peer: &Link) -> Result<bool> {
        if peer.is_up {
            return Ok(false);
        }
        DeviceSysctl::DisableIpv6.set(&peer.name, true)?;
        for change in [LinkChange::Arp(false), LinkChange::Up(true)] {
            self.netlink.change_link(peer.ifindex, &peer.name, change).await?;
        }
        Ok(true)
    }

    async fn set_up_device(&self, link: &Link, network: &NetworkConfig) -> Result<bool> {
        // These are not recorded: the settings go with the device, which is ours.
        for (sysctl, on) in GATEWAY_SYSCTLS {
            sysctl.set(&link.name, on)?;
        }
        let mtu = gateway_mtu(self.host, network);
        let changes = [
            (link.mtu != mtu).then_some(LinkChange::Mtu(mtu)),
            network.gateway_mac.map(|mac| mac.mac()).filter(|mac| *mac != link.mac).map(LinkChange::Mac),
            (!link.is_up).then_some(LinkChange::Up(true)),
        ];
        let mut changed = false;
        for change in changes.into_iter().flatten() {
            self.netlink.change_link(link.ifindex, &link.name, change).await?;
            changed = true;
        }
        for (address, subnet) in network.gateway_addresses() {
            let prefix = subnet.net().prefix_len();
            if !has_address(self.host, link, address, prefix) {
                self.netlink.add_address(link.ifindex, &link.name, address, prefix).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Deletes gateway devices of networks that are gone.
    pub(super) async fn delete_gateways(&mut self, config: &Config) -> Result<()> {
        let wanted: Vec<DeviceName> = gateways(config).map(|(name, _)| name.gateway_device()).collect();
        let unwanted = self.journal.gateway_devices().iter().filter(|device| !wanted.contains(device));
        for device in unwanted.cloned().collect::<Vec<_>>() {
            // Whatever else bears the name by now is not ours.
            if let Some(link) = self.host.link(device.as_str()).filter(|link| link.kind == "veth") {
                self.netlink.delete_link(link.ifindex, device.as_str()).await?;
            }
            self.journal.forget_gateway_device(&device)?;
        }
        Ok(())
    }
}

/// The kernel's FIB look-up for guests asks for `forwarding`; guests' words about routes are not
/// believed; and a guest's packet for the host is judged by the tables, not by the reverse path.
const GATEWAY_SYSCTLS: [(DeviceSysctl, bool); 6] = [
    (DeviceSysctl::Ipv4Forwarding, true),
    (DeviceSysctl::ReversePathFilter, false),
    (DeviceSysctl::Ipv4AcceptRedirects, false),
    (DeviceSysctl::Ipv4SendRedirects, false),
    (DeviceSysctl::Ipv6AcceptRa, false),
    (DeviceSysctl::Ipv6AcceptRedirects, false),
];

/// Networks that have a gateway.
pub(super) fn gateways(config: &Config) -> impl Iterator<Item = (&NetworkName, &NetworkConfig)> {
    config.networks.iter().filter(|(_, network)| network.mode.has_gateway())
}

fn has_address(host: &Host, link: &Link, address: Ipv4Addr, prefix: u8) -> bool {
    let wanted = (link.ifindex, IpAddr::V4(address), prefix);
    host.addresses.iter().any(|there| (there.ifindex, there.address, there.prefix) == wanted)
}

fn gateway_mtu(host: &Host, network: &NetworkConfig) -> u32 {
    let uplinks = network.ports.iter().filter(|port| port.uplink);
    let mtus = uplinks.filter_map(|port| host.link(port.device.as_str())).map(|link| link.mtu);
    mtus.fold(MTU, u32::min)
}
