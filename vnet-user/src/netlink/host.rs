//! The host as netlink shows it, at one moment.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use vnet_common::Mac;

/// Links, addresses and IPv4 routes of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    links: BTreeMap<u32, Link>,
    by_name: BTreeMap<String, u32>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub mac: Mac,
    pub mtu: u32,
    /// Set up by the administrator.
    pub is_up: bool,
    /// Up, and something on the other end.
    pub has_carrier: bool,
    pub is_promiscuous: bool,
    pub is_loopback: bool,
    pub is_ethernet: bool,
    /// The driver's name for what it is (`veth`, `tun`, `bridge`, …); empty for a plain NIC.
    pub kind: String,
    /// The bridge, bond or VRF that owns it.
    pub master: Option<u32>,
    /// The device's other end (a veth's, say) is in another network namespace.
    pub is_linked_elsewhere: bool,
    /// The root queueing discipline.
    pub qdisc: String,
}

impl Link {
    /// True for a veth whose other end is in another network namespace, with nothing queued on this one:
    /// nobody misses a frame that goes straight to the other end.
    pub fn is_bare_veth_elsewhere(&self) -> bool {
        self.kind == "veth" && self.is_linked_elsewhere && self.qdisc == "noqueue"
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub address: IpAddr,
    pub prefix: u8,
    /// Of global scope, and not an alias within another address's prefix.
    pub is_primary: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    pub ifindex: Option<u32>,
}

impl Host {
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(self.by_name.get(name)?)
    }

    pub fn link_by_index(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The device's name, or its number where it has gone.
    pub fn name_of(&self, ifindex: u32) -> String {
        self.links.get(&ifindex).map_or_else(|| format!("device {ifindex}"), |link| link.name.clone())
    }

    /// The address that a device shows to the outside.
    pub fn primary_ipv4(&self, ifindex: u32) -> Option<std::net::Ipv4Addr> {
        self.addresses.iter().filter(|a| a.ifindex == ifindex && a.is_primary).find_map(|a| match a.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Makes the device unknown by its name.
    pub fn hide(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    pub fn insert_link(&mut self, link: Link) {
        self.by_name.insert(link.name.clone(), link.ifindex);
        self.links.insert(link.ifindex, link);
    }

    pub(super) fn add_link(&mut self, message: LinkMessage) {
        let flags = message.header.flags;
        let mut link = Link {
            ifindex: message.header.index,
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            is_promiscuous: flags.contains(LinkFlags::Promisc),
            is_loopback: flags.contains(LinkFlags::Loopback),
            is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().map(Mac).unwrap_or_default(),
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::LinkNetNsId(_) => link.is_linked_elsewhere = true,
                LinkAttribute::Qdisc(qdisc) => link.qdisc = qdisc,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                _ => {}
            }
        }
        self.insert_link(link);
    }

    pub(super) fn add_address(&mut self, message: &AddressMessage) {
        let header = &message.header;
        let (mut local, mut peer, mut secondary) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(flags) => secondary = flags.contains(AddressFlags::Secondary),
                _ => {}
            }
        }
        // IPv6 has no IFA_LOCAL unless there is a peer.
        let Some(address) = local.or(peer) else { return };
        let is_primary = header.scope == AddressScope::Universe && !secondary;
        self.addresses.push(Address { ifindex: header.index, address, prefix: header.prefix_len, is_primary });
    }

    pub(super) fn add_route(&mut self, message: &RouteMessage) {
        if message.header.kind != RouteType::Unicast {
            return;
        }
        let (mut destination, mut ifindex) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                _ => {}
            }
        }
        // No destination: a default route.
        let Some(destination) = destination else { return };
        if let Ok(destination) = IpNet::new(destination.into(), message.header.destination_prefix_length) {
            self.routes.push(Route { destination, ifindex });
        }
    }
}
