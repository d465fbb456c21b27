//! A host with a network of every mode.

use std::{cell::RefCell, net::Ipv4Addr, rc::Rc};

use vnet_common::{
    Be16, Ip, Mac, Word,
    config::{MAX_GATEWAY_ADDRESSES, MAX_UPLINKS, NatPolicy, NetworkEntry, NetworkId, NetworkMode, Subnet, Timeouts},
    fdb::{FdbEntry, FdbKey, FdbKind},
    forward::{ForwardEntry, ForwardKey},
    stats::{EventCount, VportStats},
    vport::{PEER_ELSEWHERE, UNTAGGED, VportEntry, VportId, VportRole},
};
use vnet_ebpf::{
    context::{Route, mock::MockKernel},
    tables::{Tables, mock::MockTables},
};

pub use crate::fate::{Arrival, Fate, Hook};

pub const NAT: NetworkId = 1;
pub const OTHER_NAT: NetworkId = 2;
pub const ROUTED: NetworkId = 3;
pub const HOST_ONLY: NetworkId = 4;
pub const BRIDGE: NetworkId = 5;
pub const ISOLATED: NetworkId = 6;

/// Vports. Guests' numbers are in their MAC and IP addresses, too.
pub const GATEWAY: VportId = 1;
pub const GUEST1: VportId = 2;
pub const GUEST2: VportId = 3;
pub const GUEST3: VportId = 4;
pub const OTHER_GATEWAY: VportId = 5;
pub const OTHER_GUEST: VportId = 6;
pub const ROUTED_GATEWAY: VportId = 7;
pub const ROUTED_GUEST1: VportId = 8;
pub const ROUTED_GUEST2: VportId = 9;
pub const HOST_ONLY_GATEWAY: VportId = 10;
pub const HOST_ONLY_GUEST: VportId = 11;
pub const BRIDGE_UPLINK: VportId = 12;
pub const BRIDGE_GUEST1: VportId = 13;
pub const BRIDGE_GUEST2: VportId = 14;
pub const ISOLATED_GUEST1: VportId = 15;
pub const ISOLATED_GUEST2: VportId = 16;
/// Serves all routed and NAT networks.
pub const UPLINK: VportId = 17;
/// Serves none but the other NAT network.
pub const OTHER_UPLINK: VportId = 18;
pub const VPORTS: std::ops::RangeInclusive<VportId> = GATEWAY..=OTHER_UPLINK;
/// In a list of copies: the host on the bridge's NIC, as against the wire.
pub const BRIDGE_HOST: VportId = 50;
/// A device that is no vport.
pub const STRANGER: VportId = 99;

pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const OTHER_EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 114, 1);
/// An address of the host that no uplink shows.
pub const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0xee, 17]);
pub const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0xff, 1]);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub const SERVER2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// Destinations for whose route there is something wrong.
pub const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);
pub const BY_STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 4, 1);
pub const BY_OTHER_UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 5, 1);
/// A destination whose router's MAC address the kernel does not know.
pub const BY_SILENT_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 6, 1);
pub const SILENT_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 253);

/// The generation that networks begin with.
pub const GENERATION: u32 = 1 << 16;
pub const START: u32 = 1000;

/// Ports of the NAT networks, host order.
pub const SNAT_FIRST: u16 = 50_000;
pub const SNAT_LAST: u16 = 50_999;

pub const fn ifindex(vport: VportId) -> u32 {
    100 + vport
}

pub const fn vport_of(ifindex: u32) -> VportId {
    ifindex - 100
}

/// A guest's own MAC address (or the gateway's).
pub const fn mac(vport: VportId) -> Mac {
    match vport {
        UPLINK => UPLINK_MAC,
        _ => Mac([2, 0, 0, 0, 0, vport as u8]),
    }
}

/// A guest's address, or the gateway's.
pub fn ip(vport: VportId) -> Ipv4Addr {
    let host = if is_gateway(vport) { 1 } else { vport as u8 };
    let [a, b, c, _] = subnet(network_of(vport)).octets();
    Ipv4Addr::new(a, b, c, host)
}

fn subnet(network: NetworkId) -> Ipv4Addr {
    match network {
        ROUTED => Ipv4Addr::new(198, 51, 100, 0),
        network => Ipv4Addr::new(10, network as u8, 0, 0),
    }
}

pub const fn network_of(vport: VportId) -> NetworkId {
    match vport {
        GATEWAY..=GUEST3 => NAT,
        OTHER_GATEWAY..=OTHER_GUEST => OTHER_NAT,
        ROUTED_GATEWAY..=ROUTED_GUEST2 => ROUTED,
        HOST_ONLY_GATEWAY..=HOST_ONLY_GUEST => HOST_ONLY,
        BRIDGE_UPLINK..=BRIDGE_GUEST2 => BRIDGE,
        ISOLATED_GUEST1..=ISOLATED_GUEST2 => ISOLATED,
        _ => 0,
    }
}

pub const fn is_gateway(vport: VportId) -> bool {
    matches!(vport, GATEWAY | OTHER_GATEWAY | ROUTED_GATEWAY | HOST_ONLY_GATEWAY)
}

/// Guests whose frames go straight to the other end of their cable; the others have taps.
pub const fn is_veth(vport: VportId) -> bool {
    matches!(vport, GUEST1 | OTHER_GUEST | ROUTED_GUEST1 | BRIDGE_GUEST1 | ISOLATED_GUEST1)
}

fn role(vport: VportId) -> VportRole {
    match vport {
        UPLINK | OTHER_UPLINK => VportRole::RoutedUplink,
        BRIDGE_UPLINK => VportRole::BridgeUplink,
        vport if is_gateway(vport) => VportRole::Gateway,
        _ => VportRole::Guest,
    }
}

fn network(id: NetworkId) -> NetworkEntry {
    let (mode, gateway) = match id {
        NAT => (NetworkMode::Nat, GATEWAY),
        OTHER_NAT => (NetworkMode::Nat, OTHER_GATEWAY),
        ROUTED => (NetworkMode::Routed, ROUTED_GATEWAY),
        HOST_ONLY => (NetworkMode::HostOnly, HOST_ONLY_GATEWAY),
        BRIDGE => (NetworkMode::Bridge, 0),
        _ => (NetworkMode::Isolated, 0),
    };
    let mut subnets = [Subnet::default(); MAX_GATEWAY_ADDRESSES];
    let mut uplinks = [0; MAX_UPLINKS];
    if gateway != 0 {
        // Not in the first slot: none of them is special.
        subnets[1] = Subnet { gateway: ip(gateway).into(), length: 96 + 24, pad: [0; 3] };
    }
    if mode.is_routed_outside() {
        uplinks[1] = UPLINK;
    }
    if id == OTHER_NAT {
        uplinks[0] = OTHER_UPLINK;
    }
    NetworkEntry {
        mode: mode as u8,
        pad: 0,
        gateway_mac: if gateway == 0 { Mac::ZERO } else { mac(gateway) },
        gateway_vport: gateway,
        subnets,
        uplinks,
        nat: NatPolicy::new(SNAT_FIRST, SNAT_LAST),
        timeouts: Timeouts::RFC,
        ageing: 300,
        generation: Word::new(GENERATION),
    }
}

pub struct World {
    pub kernel: Rc<MockKernel>,
    pub tables: MockTables,
    /// The ICMP errors that dropped frames became.
    pub replies: RefCell<Vec<Vec<u8>>>,
}

impl World {
    /// Everything up, all guests learned.
    pub fn new() -> Self {
        let world =
            Self { kernel: Rc::new(MockKernel::new(1)), tables: MockTables::default(), replies: RefCell::default() };
        world.kernel.now.set(START);
        for id in NAT..=ISOLATED {
            world.tables.set_network(id, network(id));
            let members = VPORTS.filter(|vport| network_of(*vport) == id).collect();
            world.tables.set_members(id, members);
        }
        for vport in VPORTS {
            world.add_vport(vport);
        }
        for address in [EXTERNAL, SECOND_ADDRESS, OTHER_EXTERNAL] {
            world.tables.add_local(address.into());
        }
        world.tables.add_routed_subnet(subnet(ROUTED).into(), 96 + 24, ROUTED);
        world.add_routes();
        world
    }

    fn add_vport(&self, vport: VportId) {
        let external = match vport {
            UPLINK => EXTERNAL.into(),
            OTHER_UPLINK => OTHER_EXTERNAL.into(),
            _ => Ip::UNSPECIFIED,
        };
        // A guest's device has another address than the guest itself.
        let device_mac = match role(vport) {
            VportRole::Guest => Mac([0xfe, 0, 0, 0, 0, vport as u8]),
            _ => mac(vport),
        };
        let network = network_of(vport);
        self.tables.set_vport(
            vport,
            VportEntry {
                ifindex: ifindex(vport),
                network,
                role: role(vport) as u8,
                flags: if is_veth(vport) { PEER_ELSEWHERE } else { 0 },
                mac: device_mac,
                mtu: 1500,
                external,
            },
        );
        match role(vport) {
            VportRole::Guest => self.learn(vport, mac(vport), FdbKind::Learned),
            VportRole::Gateway | VportRole::BridgeUplink => self.learn(vport, mac(vport), FdbKind::Local),
            VportRole::RoutedUplink => {}
        }
        if is_gateway(vport) {
            self.tables.add_local(ip(vport).into());
        }
    }

    fn add_routes(&self) {
        let by = |vport, dst_mac| Route::Via { ifindex: ifindex(vport), src_mac: mac(vport), dst_mac };
        let route = |address: Ipv4Addr, length: u8, route| self.kernel.set_route(address.into(), 96 + length, route);
        route(Ipv4Addr::UNSPECIFIED, 0, by(UPLINK, ROUTER_MAC));
        route(UNREACHABLE, 32, Route::None);
        route(BY_STRANGER, 32, by(STRANGER, ROUTER_MAC));
        route(BY_OTHER_UPLINK, 32, by(OTHER_UPLINK, ROUTER_MAC));
        let silent = Route::Unresolved { ifindex: ifindex(UPLINK), next_hop: SILENT_ROUTER.into() };
        route(BY_SILENT_ROUTER, 32, silent);
        for gateway in VPORTS.filter(|vport| is_gateway(*vport)) {
            let silent = Route::Unresolved { ifindex: ifindex(gateway), next_hop: Ip::UNSPECIFIED };
            route(subnet(network_of(gateway)), 24, silent);
            for guest in VPORTS.filter(|vport| network_of(*vport) == network_of(gateway) && *vport != gateway) {
                route(ip(guest), 32, by(gateway, mac(guest)));
            }
        }
    }

    /// The same world once more, sharing nothing.
    pub fn copy(&self) -> Self {
        Self { kernel: Rc::new((*self.kernel).clone()), tables: self.tables.copy(), replies: RefCell::default() }
    }

    /// The same world as another CPU sees it.
    pub fn other_cpu(&self) -> Self {
        Self { kernel: Rc::clone(&self.kernel), tables: self.tables.other_cpu(), replies: RefCell::default() }
    }

    pub fn change_network(&self, id: NetworkId, change: impl FnOnce(&mut NetworkEntry)) {
        let mut network = NetworkEntry::clone(&self.tables.network(id).unwrap());
        change(&mut network);
        self.tables.set_network(id, network);
    }

    pub fn change_vport(&self, id: VportId, change: impl FnOnce(&mut VportEntry)) {
        let mut vport = *self.tables.vport(id).unwrap();
        change(&mut vport);
        self.tables.set_vport(id, vport);
    }

    /// Writes an FDB entry, as the daemon does.
    pub fn learn(&self, vport: VportId, mac: Mac, kind: FdbKind) {
        let key = FdbKey::new(network_of(vport), UNTAGGED, mac);
        self.tables.fdb().put(key, FdbEntry::new(vport, kind, self.now()));
    }

    pub fn forget(&self, vport: VportId) {
        self.tables.fdb().delete(&FdbKey::new(network_of(vport), UNTAGGED, mac(vport)));
    }

    pub fn fdb(&self, network: NetworkId, vlan: u16, mac: Mac) -> Option<Rc<FdbEntry>> {
        self.tables.fdb().get(&FdbKey::new(network, vlan, mac))
    }

    /// A forward to a guest of its network; without an address, on all.
    pub fn forward(&self, protocol: u8, listen: (Option<Ipv4Addr>, u16), target: (VportId, u16)) {
        let (address, port) = listen;
        let (guest, guest_port) = target;
        let key = ForwardKey::new(address.map_or(Ip::UNSPECIFIED, Ip::from), Be16::new(port), protocol);
        let network = network_of(guest);
        self.tables.set_forward(
            key,
            ForwardEntry { target: ip(guest).into(), port: Be16::new(guest_port), network, flags: 0 },
        );
    }

    pub fn now(&self) -> u32 {
        self.kernel.now.get()
    }

    pub fn wait(&self, seconds: u32) {
        self.kernel.now.set(self.now() + seconds);
    }

    pub fn stats(&self, vport: VportId) -> VportStats {
        self.tables.stats(vport)
    }

    pub fn event(&self, event: EventCount) -> u64 {
        self.tables.event(event)
    }
}
