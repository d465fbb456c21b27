//! A switch for program tests: three guests, an uplink and a gateway, on real devices of a namespace,
//! with the tables filled by hand.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use aya::Ebpf;
use vnet_common::{
    Be16, Ip, Word,
    config::{NatPolicy, NetworkEntry, NetworkMode, Subnet, Timeouts},
    fdb::{FdbEntry, FdbKey, FdbKind},
    forward::{ForwardEntry, ForwardKey},
    names::program,
    nat::GuestUse,
    stats::VportStats,
    vport::{FloodList, LocalEntry, VportEntry, VportRole},
};
use zerocopy::FromZeros;

use crate::{
    frame::Mac,
    maps,
    namespace::Namespace,
    programs::{self, Run},
    topology::{GATEWAY, HOST, OUTSIDE, Topology, UPLINK, World, plug},
};

/// The network of the tests.
pub const NETWORK: u16 = 1;

/// Ports of the switch; the numbers are their vports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Port {
    Guest1 = 1,
    Guest2 = 2,
    Guest3 = 3,
    Uplink = 4,
    Gateway = 5,
}

impl Port {
    pub const ALL: [Self; 5] = [Self::Guest1, Self::Guest2, Self::Guest3, Self::Uplink, Self::Gateway];

    pub fn device(self) -> &'static str {
        match self {
            Self::Guest1 => "g1",
            Self::Guest2 => "g2",
            Self::Guest3 => "g3",
            Self::Uplink => UPLINK,
            Self::Gateway => "vn-net1",
        }
    }
}

pub const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0x47, 1]);
pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0x55, 1]);
pub const OUTSIDE_MAC: Mac = Mac([2, 0, 0, 0, 0x99, 1]);
pub const GUEST1: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0x77, 1]), Ipv4Addr::new(10, 77, 0, 11));
pub const GUEST2: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0x77, 2]), Ipv4Addr::new(10, 77, 0, 12));
pub const GUEST3: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0x77, 3]), Ipv4Addr::new(10, 77, 0, 13));
/// A second address of the host on its uplink.
pub const HOST2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Destinations whose routes are made for refusals.
pub const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);

/// What the tables say, changed by single cases.
#[derive(Clone, Debug)]
pub struct Setup {
    pub mode: u8,
    pub uplink_role: VportRole,
    pub snat: (u16, u16),
    pub external: Option<Ipv4Addr>,
    /// Members of the flood list.
    pub members: Vec<Port>,
    /// A port whose device has gone.
    pub absent: Option<Port>,
    /// Static FDB entries besides the guests' learned ones.
    pub fdb: Vec<(Mac, Port, FdbKind)>,
    /// Guests whose addresses have been learned.
    pub learned: Vec<Port>,
    /// Protocol and listening port on an address (none: on all), to a guest's address and port.
    pub forwards: Vec<(u8, Option<Ipv4Addr>, u16, Ipv4Addr, u16)>,
    /// Ports whose MTU is not 1500.
    pub mtus: Vec<(Port, u16)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: NetworkMode::Nat as u8,
            uplink_role: VportRole::RoutedUplink,
            snat: (49_152, 65_535),
            external: Some(HOST),
            members: vec![Port::Guest1, Port::Guest2, Port::Guest3, Port::Gateway],
            absent: None,
            fdb: vec![(GATEWAY_MAC, Port::Gateway, FdbKind::Local)],
            learned: vec![Port::Guest1, Port::Guest2],
            forwards: Vec::new(),
            mtus: Vec::new(),
        }
    }
}

/// Programs and devices. Everything on it must be called inside [`Switch::host`].
pub struct Switch {
    pub world: World,
    pub ebpf: Ebpf,
    ifindexes: [u32; 5],
    /// Holds the other end of the gateway's cable.
    _gateway_peer: Namespace,
}

impl Switch {
    /// Makes the devices and loads the programs, with some maps' sizes changed.
    pub fn new(sizes: &[(&str, u32)]) -> Result<Self> {
        let world = Topology::new().guests(3).uplink().quiet().build()?;
        let host = world.host.clone();
        let peer = Namespace::new("gateway's peer")?;
        plug(&host, Port::Gateway.device(), &peer, Mac([2, 0, 0, 0, 0x47, 2]))?;
        let device = Port::Gateway.device();
        host.ip(&format!(
            "link set {device} address {GATEWAY_MAC}\n\
             link set {UPLINK} address {UPLINK_MAC}\n\
             addr add {GATEWAY}/24 dev {device}\n\
             addr add {HOST2}/24 dev {UPLINK}\n\
             neigh add {OUTSIDE} lladdr {OUTSIDE_MAC} dev {UPLINK} nud permanent\n\
             neigh add {} lladdr {} dev {device} nud permanent\n\
             neigh add {} lladdr {} dev {device} nud permanent\n\
             route add unreachable {UNREACHABLE}/32\n\
             route add {ELSEWHERE}/32 dev g3\n",
            GUEST1.1, GUEST1.0, GUEST2.1, GUEST2.0
        ))?;
        host.sysctl(&format!("net/ipv4/conf/{device}/forwarding"), "1")?;
        let mut ifindexes = [0; 5];
        for (port, ifindex) in Port::ALL.iter().zip(&mut ifindexes) {
            *ifindex = host.enter(|| Ok(nix::net::if_::if_nametoindex(port.device())?))?;
        }
        let ebpf = programs::load(sizes)?;
        let mut switch = Self { world, ebpf, ifindexes, _gateway_peer: peer };
        switch.reset(&Setup::default())?;
        Ok(switch)
    }

    pub fn host(&self) -> Namespace {
        self.world.host.clone()
    }

    pub fn ifindex(&self, port: Port) -> u32 {
        self.ifindexes[port as usize - 1]
    }

    /// Empties all tables and fills them as the setup says.
    pub fn reset(&mut self, setup: &Setup) -> Result<()> {
        let ebpf = &mut self.ebpf;
        maps::Ifindexes::clear(ebpf)?;
        maps::Fdb::clear(ebpf)?;
        maps::Floods::clear(ebpf)?;
        maps::Locals::clear(ebpf)?;
        maps::Forwards::clear(ebpf)?;
        maps::Fragments::clear(ebpf)?;
        maps::HeldFragments::clear(ebpf)?;
        maps::Connections::clear(ebpf)?;
        maps::Bindings::clear(ebpf)?;
        maps::put_settings(ebpf)?;
        for port in Port::ALL {
            maps::refill_error_budget(ebpf, port as u32)?;
        }
        for port in Port::ALL {
            let ifindex = self.ifindexes[port as usize - 1];
            maps::Ifindexes::put(ebpf, ifindex, port as u32)?;
            let mut entry = vport(port, setup);
            entry.ifindex = if setup.absent == Some(port) { 0 } else { ifindex };
            maps::Vports::put(ebpf, port as u32, entry)?;
            maps::Guests::put(ebpf, port as u32, GuestUse::default())?;
        }
        maps::Networks::put(ebpf, NETWORK.into(), network(setup))?;
        let mut list = FloodList { count: u32::try_from(setup.members.len())?, vports: [0; 1024] };
        for (slot, member) in list.vports.iter_mut().zip(&setup.members) {
            *slot = *member as u32;
        }
        maps::Floods::put(ebpf, u32::from(NETWORK), list)?;
        for address in [GATEWAY, HOST, HOST2] {
            maps::Locals::put(ebpf, address.into(), LocalEntry::new_zeroed())?;
        }
        if setup.mode == NetworkMode::Routed as u8 {
            maps::put_routed_subnet(ebpf, Ip::from(Ipv4Addr::new(10, 77, 0, 0)), 96 + 24, NETWORK)?;
        }
        let now = coarse_seconds()?;
        let learned = setup.learned.iter().map(|port| match port {
            Port::Guest1 => (GUEST1.0, *port, FdbKind::Learned),
            Port::Guest2 => (GUEST2.0, *port, FdbKind::Learned),
            _ => (GUEST3.0, *port, FdbKind::Learned),
        });
        for (protocol, address, port, target, target_port) in &setup.forwards {
            let address = address.map_or(Ip::UNSPECIFIED, Ip::from);
            let entry =
                ForwardEntry { target: (*target).into(), port: Be16::new(*target_port), network: NETWORK, flags: 0 };
            maps::Forwards::put(ebpf, ForwardKey::new(address, Be16::new(*port), *protocol), entry)?;
        }
        for (mac, port, kind) in setup.fdb.iter().copied().chain(learned) {
            let key = FdbKey::new(NETWORK, 0, vnet_common::Mac(mac.0));
            maps::Fdb::put(ebpf, key, FdbEntry::new(port as u32, kind, now))?;
        }
        Ok(())
    }

    /// A frame comes in from a port's device (or, from the gateway, is sent by the host).
    pub fn tc(&self, from: Port, frame: &[u8]) -> Result<Run> {
        self.tc_gso(from, 0, frame)
    }

    pub fn tc_gso(&self, from: Port, gso_size: u32, frame: &[u8]) -> Result<Run> {
        let name = if from == Port::Gateway { program::GATEWAY_EGRESS } else { program::PORT_INGRESS };
        programs::run_tc(&self.ebpf, name, self.ifindex(from), gso_size, frame)
    }

    pub fn xdp(&self, from: Port, frame: &[u8]) -> Result<Run> {
        programs::run_xdp(&self.ebpf, self.ifindex(from), frame)
    }

    /// Counters of all ports.
    pub fn counters(&self) -> Result<Vec<(Port, VportStats)>> {
        Port::ALL.iter().map(|port| Ok((*port, maps::stats(&self.ebpf, *port as u32)?))).collect()
    }
}

fn vport(port: Port, setup: &Setup) -> VportEntry {
    let mtu = setup.mtus.iter().find(|(changed, _)| *changed == port).map_or(1500, |(_, mtu)| *mtu);
    let mut entry = VportEntry { network: NETWORK, mtu, ..VportEntry::default() };
    entry.role = match port {
        Port::Uplink => setup.uplink_role,
        Port::Gateway => VportRole::Gateway,
        _ => VportRole::Guest,
    } as u8;
    entry.mac = vnet_common::Mac(match port {
        Port::Uplink => UPLINK_MAC.0,
        Port::Gateway => GATEWAY_MAC.0,
        _ => [0xfe, 0, 0, 0, 0, port as u8],
    });
    if port == Port::Uplink && setup.uplink_role == VportRole::RoutedUplink {
        entry.network = 0;
        entry.external = setup.external.map(Ip::from).unwrap_or_default();
    }
    entry
}

fn network(setup: &Setup) -> NetworkEntry {
    let mut entry = NetworkEntry::new_zeroed();
    entry.mode = setup.mode;
    entry.nat = NatPolicy::new(setup.snat.0, setup.snat.1);
    entry.timeouts = Timeouts::RFC;
    entry.ageing = 300;
    entry.generation = Word::new(1);
    if NetworkMode::from_u8(setup.mode).is_some_and(NetworkMode::has_gateway) {
        entry.gateway_mac = vnet_common::Mac(GATEWAY_MAC.0);
        entry.gateway_vport = Port::Gateway as u32;
        entry.subnets[0] = Subnet { gateway: GATEWAY.into(), length: 96 + 24, pad: [0; 3] };
    }
    if NetworkMode::from_u8(setup.mode).is_some_and(NetworkMode::is_routed_outside) {
        entry.uplinks[0] = Port::Uplink as u32;
    }
    entry
}

/// The clock of all `last_seen` stamps.
pub fn coarse_seconds() -> Result<u32> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    u32::try_from(now.tv_sec()).context("a machine that is up for a century")
}
