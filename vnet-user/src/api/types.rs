//! What goes over the API and out of `--json`: field names here are the contract.

mod connections;

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

pub use self::connections::{Binding, Connection, ConnectionQuery, End, Event, Group, Tuple, Usage};
use crate::config::{
    DeviceName, Listen, MacAddress, Mode, NatChange, NatConfig, NetworkName, Protocol, Subnet, Target,
};

/// A refusal or failure, one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}

/// The daemon's answer to "who are you?".
#[derive(Debug, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    /// Process identifier of the daemon.
    pub pid: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    pub name: NetworkName,
    pub mode: Mode,
    #[serde(default)]
    pub uplinks: Vec<DeviceName>,
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    #[serde(default)]
    pub gateways: Vec<Ipv4Addr>,
    /// Settings that are not the defaults.
    #[serde(default)]
    pub nat: NatChange,
}

/// One row of `network list`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Network {
    pub name: NetworkName,
    pub mode: Mode,
    pub state: String,
    pub uplinks: Vec<DeviceName>,
    pub subnets: Vec<Subnet>,
    /// Guest ports and uplinks.
    pub ports: usize,
    pub forwards: usize,
}

/// `network show`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkDetail {
    pub name: NetworkName,
    pub mode: Mode,
    pub state: String,
    pub uplinks: Vec<DeviceName>,
    pub subnets: Vec<Subnet>,
    /// The host's own leg; none in bridge and isolated mode.
    pub gateway: Option<Gateway>,
    /// Every setting; timeouts in seconds. None where nothing is translated or forwarded. A routed network
    /// has those that concern forwards, the others stay at their defaults.
    pub nat: Option<NatConfig>,
    pub ports: Vec<Port>,
    pub forwards: usize,
    pub fdb_entries: usize,
    pub connections: u64,
    /// What will bite, one line each.
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Gateway {
    pub device: DeviceName,
    pub mac: MacAddress,
    /// With prefix lengths, as `192.168.122.1/24`.
    pub addresses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Guest,
    Uplink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Up, with a carrier.
    Up,
    /// Set down, or nothing at the other end.
    Down,
    /// The device is not there now; the port takes it when it comes.
    Absent,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    pub frames: u64,
    pub bytes: u64,
}

/// One row of `port list`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Port {
    pub device: DeviceName,
    pub network: NetworkName,
    pub role: Role,
    pub accel: String,
    pub state: PortState,
    pub ifindex: Option<u32>,
    /// The device's own.
    pub device_mac: Option<String>,
    pub mtu: Option<u32>,
    /// The guest's, where the user gave one.
    pub mac: Option<MacAddress>,
    #[serde(default)]
    pub ip: Vec<Ipv4Addr>,
    /// Out of the device, into vnet.
    pub rx: Counters,
    /// Out of vnet, into the device.
    pub tx: Counters,
    /// Frames received here and dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// `port show`.
#[derive(Debug, Serialize, Deserialize)]
pub struct PortDetail {
    #[serde(flatten)]
    pub port: Port,
    /// Several only for an uplink that routed networks share.
    pub networks: Vec<NetworkName>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardRequest {
    pub protocol: Protocol,
    pub listen: Listen,
    pub target: Target,
    /// The host's own processes reach the guest by 127.0.0.1, too.
    #[serde(default)]
    pub loopback: bool,
}

/// One row of `forward list`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forward {
    pub network: NetworkName,
    pub protocol: Protocol,
    pub listen: Listen,
    pub target: Target,
    /// By 127.0.0.1 from the host itself, too.
    pub loopback: bool,
}

/// One row of `fdb list`.
#[derive(Debug, Serialize, Deserialize)]
pub struct FdbEntry {
    pub mac: String,
    /// 0: untagged.
    pub vlan: u16,
    /// The device's name.
    pub port: String,
    pub kind: String,
    /// Seconds since the address was last seen; none for entries that do not age.
    pub age: Option<u32>,
    /// How often the address moved to another port.
    pub moves: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Count {
    pub count: u64,
}

/// `stats`: of every port, and of the host's own legs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stats {
    pub networks: usize,
    pub ports: usize,
    pub rx: Counters,
    pub tx: Counters,
    pub drops: Vec<Drops>,
    pub events: BTreeMap<String, u64>,
    pub tables: Vec<Table>,
    /// How programs hang on devices: `tcx` or `clsact`.
    pub backend: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Drops {
    pub reason: String,
    pub count: u64,
    pub meaning: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub used: u64,
    pub capacity: u64,
}
