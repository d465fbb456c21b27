//! What the user asked for: networks, ports, forwards. The shape of the state file (and of the files
//! that will be applied and exported), made of words that were checked when they were read.

mod address;
mod external;
mod forward;
mod name;
mod nat;
mod setting;
mod subnet;

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use vnet_common::config::NetworkMode;

pub use self::{
    address::{MacAddress, Vlan, parse_ipv4},
    external::{AddressPool, SnatAddress, SnatPorts},
    forward::{ForwardConfig, ForwardKeyText, Listen, PortRange, Protocol, Target},
    name::{DeviceName, NetworkName},
    nat::{Filtering, Mapping, NatChange, NatConfig},
    setting::{Limit, OnOff, Span},
    subnet::Subnet,
};

/// Everything the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default, rename = "network", skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<NetworkName, NetworkConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    pub mode: Mode,
    #[serde(default, rename = "subnet", skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Gateways that are not the first address of their subnet.
    #[serde(default, rename = "gateway", skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<Ipv4Addr>,
    /// Guests keep the gateway's MAC in their ARP tables, so it outlives the daemon and the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddress>,
    #[serde(default, skip_serializing_if = "NatConfig::is_default", serialize_with = "NatConfig::serialize_changes")]
    pub nat: NatConfig,
    #[serde(default, rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    #[serde(default, rename = "forward", skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<ForwardConfig>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<FdbConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    pub device: DeviceName,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uplink: bool,
    #[serde(default, skip_serializing_if = "Accel::is_auto")]
    pub accel: Accel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    #[serde(default, rename = "ip", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
}

/// A static entry of the MAC table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbConfig {
    pub mac: MacAddress,
    pub device: DeviceName,
    #[serde(default, skip_serializing_if = "Vlan::is_untagged")]
    pub vlan: Vlan,
}

/// How a network is tied to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Guests and uplinks on one Ethernet; the host keeps its address on the NIC
    Bridge,
    /// Guests leave through an uplink with its address
    Nat,
    /// Guests and host only
    HostOnly,
    /// Guests only
    Isolated,
    /// Guests leave through an uplink with their own addresses
    Routed,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Nat => "nat",
            Self::HostOnly => "host-only",
            Self::Isolated => "isolated",
            Self::Routed => "routed",
        }
    }

    /// The datapath's word for it.
    pub const fn datapath(self) -> NetworkMode {
        match self {
            Self::Bridge => NetworkMode::Bridge,
            Self::Nat => NetworkMode::Nat,
            Self::HostOnly => NetworkMode::HostOnly,
            Self::Isolated => NetworkMode::Isolated,
            Self::Routed => NetworkMode::Routed,
        }
    }

    pub const fn has_gateway(self) -> bool {
        self.datapath().has_gateway()
    }

    /// True where guests reach the outside at layer 3, and forwards make sense.
    pub const fn is_routed_outside(self) -> bool {
        self.datapath().is_routed_outside()
    }

    pub const fn takes_uplinks(self) -> bool {
        matches!(self, Self::Bridge | Self::Nat | Self::Routed)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which hook carries a port's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// What suits the device
    #[default]
    Auto,
    /// The complete datapath at TC
    Tc,
    /// The accelerator at XDP (not in this version yet)
    Xdp,
}

impl Accel {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl Config {
    pub fn network(&self, name: &NetworkName) -> Result<&NetworkConfig, crate::Refusal> {
        self.networks.get(name).ok_or_else(|| crate::Refusal::NoNetwork(name.clone()))
    }

    pub fn network_mut(&mut self, name: &NetworkName) -> Result<&mut NetworkConfig, crate::Refusal> {
        self.networks.get_mut(name).ok_or_else(|| crate::Refusal::NoNetwork(name.clone()))
    }

    /// Every port with the network that it is on, in the networks' order.
    pub fn ports(&self) -> impl Iterator<Item = (&NetworkName, &NetworkConfig, &PortConfig)> {
        self.networks.iter().flat_map(|(name, network)| network.ports.iter().map(move |port| (name, network, port)))
    }

    /// Every network that translates.
    pub fn translating(&self) -> impl Iterator<Item = (&NetworkName, &NetworkConfig)> {
        self.networks.iter().filter(|(_, network)| network.mode == Mode::Nat)
    }

    /// Every forward with its network.
    pub fn forwards(&self) -> impl Iterator<Item = (&NetworkName, &ForwardConfig)> {
        self.networks.iter().flat_map(|(name, network)| network.forwards.iter().map(move |forward| (name, forward)))
    }
}

impl NetworkConfig {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            subnets: Vec::new(),
            gateways: Vec::new(),
            gateway_mac: None,
            nat: NatConfig::default(),
            ports: Vec::new(),
            forwards: Vec::new(),
            fdb: Vec::new(),
        }
    }

    /// The gateway's address in `subnet`.
    pub fn gateway_in(&self, subnet: &Subnet) -> Ipv4Addr {
        self.gateways.iter().copied().find(|gateway| subnet.contains(*gateway)).unwrap_or_else(|| subnet.first())
    }

    /// The gateway's addresses, one a subnet.
    pub fn gateway_addresses(&self) -> impl Iterator<Item = (Ipv4Addr, &Subnet)> {
        self.subnets.iter().map(|subnet| (self.gateway_in(subnet), subnet))
    }

    pub fn port(&self, device: &DeviceName) -> Option<&PortConfig> {
        self.ports.iter().find(|port| port.device == *device)
    }

    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.contains(address))
    }
}
