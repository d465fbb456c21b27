//! What a user may be told: every refusal, each one line that says what, why and what to do.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::config::{AddressPool, DeviceName, ForwardKeyText, MacAddress, Mode, NetworkName, PortRange};

/// A request that is not granted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // Words that are not what they should be.
    #[error("'{0}' is not a network name: 1 to 12 letters, digits, '_', '.' or '-', the first a letter or digit")]
    BadNetworkName(String),
    #[error("'{0}' is not a device name: 1 to 15 characters without '/', ':' or white space")]
    BadDeviceName(String),
    #[error("'{0}' is not a subnet: write it as 192.168.122.0/24")]
    BadSubnet(String),
    #[error("{given} is not a network address: write {right}")]
    NotANetworkAddress { given: String, right: Ipv4Net },
    #[error("subnet {0} is too small: /30 is the smallest that holds a gateway and a guest")]
    SubnetTooSmall(Ipv4Net),
    #[error("subnet {0} is no address range for guests: take a private one, such as 192.168.122.0/24")]
    SubnetReserved(Ipv4Net),
    #[error("{0}: IPv6 is not supported here yet; give an IPv4 one")]
    Ipv6NotYet(String),
    #[error("'{0}' is not an IPv4 address: write it as 192.168.122.10")]
    BadAddress(String),
    #[error("'{0}' is not an address or subnet: write it as 192.168.122.10 or 192.168.122.0/24")]
    BadFilter(String),
    #[error("'{0}' is not a MAC address: write it as 52:54:00:12:34:56")]
    BadMac(String),
    #[error("{0} is a multicast address or zero: a guest's own MAC address is neither")]
    NotAGuestMac(String),
    #[error("'{0}' is not a port or range: write 80 or 8000-8010, from 1 to 65535")]
    BadPorts(String),
    #[error("port range {first}-{last} is reversed: write {last}-{first}")]
    ReversedRange { first: u16, last: u16 },
    #[error("'{0}' is not a listen address: write [ADDRESS:]PORT[-PORT], as in 8080 or 192.0.2.1:8000-8010")]
    BadListen(String),
    #[error("'{0}' is not a target: write ADDRESS[:PORT[-PORT]], as in 192.168.122.10:80")]
    BadTarget(String),
    #[error("the ranges differ in length: {listen} listens on {listen_count} ports, {target} has {target_count}")]
    RangesDiffer { listen: String, listen_count: u32, target: String, target_count: u32 },
    #[error("'{0}' is not a protocol that can be forwarded: tcp, udp or sctp")]
    BadProtocol(String),
    #[error("VLAN {0} is not one: take 1 to 4094")]
    BadVlan(u16),
    #[error(
        "'{0}' is not a duration: write 300s, 5m or 2h4m, in whole seconds from 1s to 30d; a plain number is seconds"
    )]
    BadDuration(String),
    #[error("'{0}' is not a limit: write a number from 1 up, or off for none")]
    BadLimit(String),
    #[error("'{0}' is neither on nor off")]
    BadOnOff(String),
    #[error("'{0}' is not a mapping: endpoint-independent or endpoint-dependent")]
    BadMapping(String),
    #[error("'{0}' is not a filtering: endpoint-independent, address or address-port")]
    BadFiltering(String),
    #[error("address range {first}-{last} is reversed: write {last}-{first}")]
    ReversedPool { first: Ipv4Addr, last: Ipv4Addr },
    #[error("{count} addresses, at most {most} fit into one pool")]
    PoolTooLarge { count: u32, most: u32 },
    #[error("{0} cannot be translated to: those are no addresses of single hosts on a network")]
    UnfitPool(String),
    #[error("ports {ports} begin among those of the host's services: take them from {least} up")]
    SnatPortsTooLow { ports: PortRange, least: u16 },
    #[error("'{given}' is not a setting of a network: {keys}")]
    NoSetting { given: String, keys: String },
    #[error("'{0}' is given twice")]
    SettingTwice(String),
    #[error("{0}")]
    BadRequest(String),
    #[error("flush ends connections: say which (as --src 192.168.122.10 or --state unreplied), or --all for every one")]
    FlushOfAll,
    #[error("--all and filters contradict each other: leave one of them out")]
    FlushOfAllFiltered,
    #[error("the API has no such path")]
    NoPath,

    // Things that are not there, or there already.
    #[error("no network '{0}': see 'vnet network list'")]
    NoNetwork(NetworkName),
    #[error("network '{0}' exists already")]
    NetworkExists(NetworkName),
    #[error("no device '{0}' in this network namespace: see 'ip link'")]
    NoDevice(DeviceName),
    #[error("{device} is not a port of network '{network}': see 'vnet port list {network}'")]
    NotAPort { network: NetworkName, device: DeviceName },
    #[error("{0} is not a port of any network: see 'vnet port list'")]
    NotAPortAnywhere(DeviceName),
    #[error("no forward {key} on network '{network}': see 'vnet forward list {network}'")]
    NoForward { network: NetworkName, key: ForwardKeyText },
    #[error("no entry {mac} (VLAN {vlan}) on network '{network}': see 'vnet fdb list {network}'")]
    NoFdbEntry { network: NetworkName, mac: MacAddress, vlan: u16 },

    // Networks.
    #[error("{mode} networks take no subnet: leave out --subnet and --gateway")]
    SubnetNotTaken { mode: Mode },
    #[error("{mode} networks need a subnet: add --subnet 192.168.122.0/24")]
    SubnetNeeded { mode: Mode },
    #[error("{count} subnets, at most {most} fit on one network")]
    TooManySubnets { count: usize, most: usize },
    #[error("subnet {subnet} overlaps {other}")]
    SubnetsOverlap { subnet: Ipv4Net, other: Ipv4Net },
    #[error("subnet {subnet} overlaps {other} of network '{network}': choose another one")]
    OverlapsNetwork { subnet: Ipv4Net, other: Ipv4Net, network: NetworkName },
    #[error("subnet {subnet} overlaps address {address} on {device}: choose another one")]
    OverlapsAddress { subnet: Ipv4Net, address: IpNet, device: String },
    #[error("subnet {subnet} overlaps the host's route to {route} via {device}: choose another one")]
    OverlapsRoute { subnet: Ipv4Net, route: IpNet, device: String },
    #[error("gateway {0} is in none of the network's subnets")]
    GatewayOutside(Ipv4Addr),
    #[error("gateway {gateway} is the network or broadcast address of {subnet}")]
    GatewayReserved { gateway: Ipv4Addr, subnet: Ipv4Net },
    #[error("two gateways in {0}: one a subnet")]
    TwoGateways(Ipv4Net),
    #[error("{mode} networks take no uplink: they have no outside")]
    UplinkNotTaken { mode: Mode },
    #[error("too many networks: {most} is the most")]
    TooManyNetworks { most: usize },
    #[error("device {0} exists already and is not vnet's: choose another network name or remove it")]
    GatewayDeviceTaken(DeviceName),

    // Ports.
    #[error("{device} is already on network '{network}': 'vnet port del {network} {device}' first")]
    DeviceTaken { device: DeviceName, network: NetworkName },
    #[error("{device} is in use by {master}: 'ip link set {device} nomaster' first")]
    DeviceHasMaster { device: DeviceName, master: String },
    #[error("{device} cannot be a port: {why}")]
    UnfitDevice { device: DeviceName, why: &'static str },
    #[error("too many ports: {most} is the most a network takes")]
    TooManyPorts { most: usize },
    #[error("too many ports on this host: {most} is the most")]
    TooManyVports { most: usize },
    #[error("too many uplinks: {most} is the most a network takes")]
    TooManyUplinks { most: usize },
    #[error("an uplink has no MAC or IP address of a guest: leave out --mac and --ip")]
    UplinkWithGuestAddress,
    #[error("address {address} is outside the subnets of network '{network}'")]
    PortAddressOutside { address: Ipv4Addr, network: NetworkName },
    #[error("address {address} is taken by {by}")]
    PortAddressTaken { address: Ipv4Addr, by: String },
    #[error("MAC address {mac} is taken by {by}")]
    MacTaken { mac: MacAddress, by: String },
    #[error("the XDP accelerator is not in this version yet: leave out --accel or take --accel tc")]
    XdpNotYet,

    // Forwards.
    #[error("network '{network}' is {mode} and has no outside to forward from: nat and routed networks have")]
    ForwardMode { network: NetworkName, mode: Mode },
    #[error("{address} is outside the subnets of network '{network}': a forward leads to one of its guests")]
    TargetOutside { address: Ipv4Addr, network: NetworkName },
    #[error("{address} is the gateway of network '{network}' itself: a forward leads to a guest")]
    TargetIsGateway { address: Ipv4Addr, network: NetworkName },
    #[error("{address} is the network or broadcast address of {subnet}: a forward leads to a guest")]
    TargetReserved { address: Ipv4Addr, subnet: Ipv4Net },
    #[error("{address} cannot be listened on: {why}")]
    UnfitListen { address: Ipv4Addr, why: &'static str },
    #[error("{wanted} is taken by forward {taken} of network '{network}'")]
    ListenTakenByForward { wanted: ForwardKeyText, taken: ForwardKeyText, network: NetworkName },
    #[error(
        "{protocol} port {port} is taken by a socket of this host on {address}: stop that service or listen elsewhere"
    )]
    ListenTakenBySocket { protocol: &'static str, port: u16, address: IpAddr },
    #[error(
        "{protocol} port {port} is taken by a socket of this host on {address}: stop that service, listen elsewhere or leave out --loopback"
    )]
    LoopbackTakenBySocket { protocol: &'static str, port: u16, address: IpAddr },
    #[error("--loopback goes with all addresses of the host: leave it out, or leave out {0}")]
    LoopbackBesideAddress(Ipv4Addr),
    #[error("{wanted} overlaps ports {first}-{last}, which network '{network}' translates with: listen below {first}")]
    ListenTakenBySnat { wanted: ForwardKeyText, network: NetworkName, first: u16, last: u16 },
    #[error(
        "forward {taken} of network '{network}' listens within ports {first}-{last}, which a nat network translates with: delete it first"
    )]
    SnatTakenByForward { taken: ForwardKeyText, network: NetworkName, first: u16, last: u16 },
    #[error("too many forwarded ports: {count} wanted, room for {most}")]
    TooManyForwards { count: usize, most: usize },

    // Translation.
    #[error("{key} is a setting of {takers} networks: network '{network}' is {mode}")]
    SettingNotTaken { key: &'static str, network: NetworkName, mode: Mode, takers: &'static str },
    #[error("{pool} lies among the guests of network '{network}' ({subnet}): translate to addresses of the outside")]
    PoolAmongGuests { pool: AddressPool, subnet: Ipv4Net, network: NetworkName },
    #[error("{pool} overlaps {other} of network '{network}', and so do their ports: choose other addresses or ports")]
    PoolsOverlap { pool: AddressPool, other: AddressPool, network: NetworkName },
    #[error(
        "{protocol} port {port} of ports {ports} is taken by a socket of this host on {address}: stop that service or \
         choose other SNAT ports"
    )]
    SnatTakenBySocket { ports: PortRange, protocol: &'static str, port: u16, address: IpAddr },
    #[error(
        "ports {ports} leave the host {left} of its own ports {first}-{last}, {least} is the least: choose fewer SNAT \
         ports"
    )]
    HostPortsExhausted { ports: PortRange, left: usize, first: u16, last: u16, least: usize },

    // FDB.
    #[error("{mac} (VLAN {vlan}) stands in the table already, as {kind}, behind {port}")]
    FdbEntryExists { mac: MacAddress, vlan: u16, kind: &'static str, port: String },
    #[error("{mac} is {owner} own address and cannot be changed")]
    FdbEntryLocal { mac: MacAddress, owner: &'static str },
    #[error("{mac} belongs to port {port}: 'vnet port del {network} {port}' removes both")]
    FdbEntryOfPort { mac: MacAddress, port: DeviceName, network: NetworkName },
    #[error("{device} is a routed uplink of network '{network}': guests live behind guest ports")]
    FdbBehindRoutedUplink { network: NetworkName, device: DeviceName },
}

impl Refusal {
    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoNetwork(_)
            | Self::NoPath
            | Self::NotAPort { .. }
            | Self::NotAPortAnywhere(_)
            | Self::NoForward { .. }
            | Self::NoFdbEntry { .. } => 404,
            Self::NetworkExists(_)
            | Self::DeviceTaken { .. }
            | Self::DeviceHasMaster { .. }
            | Self::SubnetsOverlap { .. }
            | Self::OverlapsNetwork { .. }
            | Self::OverlapsAddress { .. }
            | Self::OverlapsRoute { .. }
            | Self::GatewayDeviceTaken(_)
            | Self::PortAddressTaken { .. }
            | Self::MacTaken { .. }
            | Self::ListenTakenByForward { .. }
            | Self::ListenTakenBySocket { .. }
            | Self::ListenTakenBySnat { .. }
            | Self::SnatTakenByForward { .. }
            | Self::SnatTakenBySocket { .. }
            | Self::PoolAmongGuests { .. }
            | Self::PoolsOverlap { .. }
            | Self::HostPortsExhausted { .. }
            | Self::FdbEntryExists { .. }
            | Self::FdbEntryLocal { .. }
            | Self::FdbEntryOfPort { .. } => 409,
            _ => 400,
        }
    }
}
