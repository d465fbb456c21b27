//! The picture that the configuration asks for, on the host as it is.

use std::collections::BTreeMap;

use vnet_common::{
    Be16, Ip, Mac,
    config::{MAX_GATEWAY_ADDRESSES, MAX_UPLINKS, NetworkId, OUTSIDE, Subnet},
    fdb::{FdbKey, FdbKind},
    forward::{ForwardEntry, ForwardKey, LOOPBACK},
    vport::{PEER_ELSEWHERE, UNTAGGED, VportEntry, VportId, VportRole},
};

use super::{Picture, UNTRANSLATED};
use crate::{
    config::{Config, DeviceName, Mode, NetworkConfig, NetworkName, PortConfig},
    datapath::{Hook, NetworkSettings},
    host::reserved_ports,
    netlink::{Host, Link},
    state::{HostSetting, Runtime},
};

/// Seconds after which a learned MAC address is forgotten (IEEE 802.1Q's default).
const AGEING: u32 = 300;

impl Picture {
    /// Devices that are not there have their vports and places in lists all the same, without a device.
    /// `ephemeral`: the ports that the host picks from for its own connections.
    pub fn wanted(config: &Config, runtime: &Runtime, host: &Host, ephemeral: (u16, u16)) -> Self {
        let mut picture = Self::default();
        for (name, network) in &config.networks {
            // Every network and device has had its number before this is computed.
            let Some(id) = runtime.network(name) else { continue };
            let builder = Builder { picture: &mut picture, runtime, host, name, network, id };
            builder.build();
        }
        for address in &host.addresses {
            picture.locals.entry(Ip::from(address.address)).or_insert(address.ifindex);
        }
        picture.sockets = config.networks.values().any(|network| network.mode.is_routed_outside());
        picture.reserved_ports = reserved_ports(config, host, ephemeral);
        picture
    }
}

struct Builder<'a> {
    picture: &'a mut Picture,
    runtime: &'a Runtime,
    host: &'a Host,
    name: &'a NetworkName,
    network: &'a NetworkConfig,
    id: NetworkId,
}

impl Builder<'_> {
    fn build(mut self) {
        let gateway = self.gateway();
        let mut members = BTreeMap::new();
        for port in &self.network.ports {
            if let Some(vport) = self.port(port) {
                members.insert(vport, port);
            }
        }
        let routes = self.network.mode.is_routed_outside();
        let flooded = members.iter().filter(|(_, port)| !(port.uplink && routes)).map(|(id, _)| *id);
        let flood: Vec<VportId> = flooded.chain(gateway).collect();
        if !flood.is_empty() {
            self.picture.floods.insert(self.id, flood);
        }
        let uplinks: Vec<VportId> =
            members.iter().filter(|(_, port)| port.uplink).map(|(id, _)| *id).take(MAX_UPLINKS).collect();
        self.static_entries();
        self.forwards();
        self.settings(gateway.unwrap_or(0), &uplinks);
    }

    /// A vport with its device, where that is present.
    fn vport(&mut self, device: &DeviceName, role: VportRole) -> Option<(VportId, Option<Link>)> {
        let id = self.runtime.vport(device)?;
        let link = self.host.link(device.as_str()).cloned();
        let mut entry = VportEntry { network: self.id, role: role as u8, ..VportEntry::default() };
        if role == VportRole::RoutedUplink {
            entry.network = OUTSIDE;
        }
        if let Some(link) = &link {
            entry.ifindex = link.ifindex;
            entry.mac = link.mac;
            entry.mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
            if role == VportRole::Guest && link.is_bare_veth_elsewhere() {
                entry.flags = PEER_ELSEWHERE;
            }
            if role == VportRole::RoutedUplink
                && let Some(address) = self.host.primary_ipv4(link.ifindex)
            {
                entry.external = address.into();
            }
            self.picture.bindings.insert(link.ifindex, id);
        }
        self.picture.vports.insert(id, entry);
        Some((id, link))
    }

    fn gateway(&mut self) -> Option<VportId> {
        if !self.network.mode.has_gateway() {
            return None;
        }
        let (id, link) = self.vport(&self.name.gateway_device(), VportRole::Gateway)?;
        if let Some(link) = link {
            self.picture.hooks.insert((link.ifindex, Hook::GatewayEgress));
        }
        if let Some(mac) = self.network.gateway_mac {
            self.fdb_entry(UNTAGGED, mac.mac(), id, FdbKind::Local);
        }
        Some(id)
    }

    fn port(&mut self, port: &PortConfig) -> Option<VportId> {
        let role = match (port.uplink, self.network.mode) {
            (false, _) => VportRole::Guest,
            (true, Mode::Bridge) => VportRole::BridgeUplink,
            (true, _) => VportRole::RoutedUplink,
        };
        let (id, link) = self.vport(&port.device, role)?;
        let Some(link) = link else { return Some(id) };
        self.picture.hooks.insert((link.ifindex, Hook::PortIngress));
        let settings: &[HostSetting] = match role {
            VportRole::Guest => &[HostSetting::DisableIpv6, HostSetting::Up],
            VportRole::BridgeUplink => &[HostSetting::Promiscuous, HostSetting::Up],
            _ => &[],
        };
        self.picture.settings.extend(settings.iter().map(|setting| (link.ifindex, *setting)));
        if role == VportRole::BridgeUplink {
            self.picture.hooks.insert((link.ifindex, Hook::UplinkEgress));
            self.fdb_entry(UNTAGGED, link.mac, id, FdbKind::Local);
        }
        Some(id)
    }

    fn static_entries(&mut self) {
        for port in &self.network.ports {
            if let (Some(mac), Some(id)) = (port.mac, self.runtime.vport(&port.device)) {
                self.fdb_entry(UNTAGGED, mac.mac(), id, FdbKind::Static);
            }
        }
        for entry in &self.network.fdb {
            if let Some(id) = self.runtime.vport(&entry.device) {
                self.fdb_entry(entry.vlan.id(), entry.mac.mac(), id, FdbKind::Static);
            }
        }
    }

    fn fdb_entry(&mut self, vlan: u16, mac: Mac, vport: VportId, kind: FdbKind) {
        // Local entries come first and win: a NIC's own address is the NIC's.
        self.picture.fdb.entry(FdbKey::new(self.id, vlan, mac)).or_insert((vport, kind));
    }

    fn forwards(&mut self) {
        for forward in &self.network.forwards {
            let address = forward.listen.address.map_or(Ip::UNSPECIFIED, Ip::from);
            let ports = forward.listen.ports.first()..=forward.listen.ports.last();
            for (listen, target) in ports.zip(forward.ports.first()..) {
                let key = ForwardKey::new(address, Be16::new(listen), forward.protocol.number());
                let port = Be16::new(target);
                let flags = if forward.loopback { LOOPBACK } else { 0 };
                let entry = ForwardEntry { target: forward.address.into(), port, network: self.id, flags };
                self.picture.forwards.insert(key, entry);
            }
        }
    }

    fn settings(&mut self, gateway_vport: VportId, members: &[VportId]) {
        let mut subnets = [Subnet::default(); MAX_GATEWAY_ADDRESSES];
        for (slot, (gateway, subnet)) in subnets.iter_mut().zip(self.network.gateway_addresses()) {
            let length = prefix_over_128(subnet.net().prefix_len());
            *slot = Subnet { gateway: gateway.into(), length, pad: [0; 3] };
            if self.network.mode == Mode::Routed {
                let address = subnet.net().network().into();
                self.picture.routed_subnets.insert((length.into(), address), self.id);
            }
        }
        let mut uplinks = [0; MAX_UPLINKS];
        uplinks.iter_mut().zip(members).for_each(|(slot, id)| *slot = *id);
        let mut nat = self.network.nat.policy();
        if self.network.mode != Mode::Nat {
            (nat.first_port, nat.last_port) = UNTRANSLATED;
        } else if let Some(pool) = self.network.nat.snat_address.pool() {
            let id = self.id;
            self.picture.externals.extend(pool.addresses().map(|address| (address.into(), id)));
        }
        let settings = NetworkSettings {
            mode: self.network.mode.datapath(),
            gateway_mac: self.network.gateway_mac.map_or(Mac::ZERO, |mac| mac.mac()),
            gateway_vport,
            subnets,
            uplinks,
            nat,
            timeouts: self.network.nat.timeouts(),
            ageing: AGEING,
        };
        self.picture.networks.insert(self.id, settings);
    }
}

/// Prefix lengths count over the 128 bits of [`Ip`].
fn prefix_over_128(ipv4: u8) -> u8 {
    96 + ipv4
}
