//! What the daemon tells the datapath about networks.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip, Mac, Seconds, Word, vport::VportId};

/// Number of a network: its slot in `NETWORKS`. 0 stands for the outside.
pub type NetworkId = u16;

/// The outside, as the network in the keys of flows and bindings.
pub const OUTSIDE: NetworkId = 0;

/// Slots in `NETWORKS`, slot 0 included.
pub const MAX_NETWORKS: u32 = 256;

/// How a network is tied to the world. Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    Bridge = 1,
    Nat = 2,
    Routed = 3,
    HostOnly = 4,
    Isolated = 5,
}

impl NetworkMode {
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Bridge,
            2 => Self::Nat,
            3 => Self::Routed,
            4 => Self::HostOnly,
            5 => Self::Isolated,
            _ => return None,
        })
    }

    /// True where the network has a router address of its own, on `vn-NAME`.
    #[inline(always)]
    pub const fn has_gateway(self) -> bool {
        matches!(self, Self::Nat | Self::Routed | Self::HostOnly)
    }

    /// True where guests reach the outside at layer 3.
    #[inline(always)]
    pub const fn is_routed_outside(self) -> bool {
        matches!(self, Self::Nat | Self::Routed)
    }
}

/// Idle times after which a connection ends, and other spans, in seconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timeouts {
    /// RFC 4787 REQ-5.
    pub udp: Seconds,
    /// RFC 5382 REQ-5, established connections; SCTP associations that were answered.
    pub tcp_established: Seconds,
    /// RFC 5382 REQ-5, opening and closing connections; SCTP associations that were not.
    pub tcp_transitory: Seconds,
    /// RFC 5508 REQ-2.
    pub icmp: Seconds,
    /// How long fragments wait for the rest of their datagram (RFC 791: 15 s and more).
    pub fragment: Seconds,
    /// How long a freed external port is not given to another (RFC 6888 REQ-8).
    pub cool_down: Seconds,
}

impl Timeouts {
    pub const RFC: Self =
        Self { udp: 300, tcp_established: 7440, tcp_transitory: 240, icmp: 60, fragment: 30, cool_down: 120 };
}

/// What an external port is kept for (RFC 4787 section 4.1). Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One internal address and port keeps one external address and port, whatever it talks to.
    EndpointIndependent = 0,
    /// Each remote address and port gets an external port of its own.
    EndpointDependent = 1,
}

/// Who may send to an external port in use (RFC 4787 section 5). Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    EndpointIndependent = 0,
    /// Addresses that the guest has sent to from this port.
    Address = 1,
    /// Addresses and ports that the guest has sent to from this port.
    AddressAndPort = 2,
}

/// How a network's guests are translated.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NatPolicy {
    /// External addresses to choose from, both included; unspecified: the uplink's own address.
    pub first_address: Ip,
    pub last_address: Ip,
    /// External ports to choose from, host order, both included.
    pub first_port: u16,
    pub last_port: u16,
    /// [`Mapping`] as its number.
    pub mapping: u8,
    /// [`Filtering`] as its number.
    pub filtering: u8,
    /// 1: packets from the outside keep UDP and ICMP connections alive too (RFC 4787 REQ-6).
    pub inbound_refresh: u8,
    pub pad: u8,
    /// Connections that one guest port may have; 0: no limit (RFC 6888 REQ-4).
    pub guest_connections: u32,
    /// External ports that one guest port may hold; 0: no limit.
    pub guest_bindings: u32,
    /// Connections that one guest port may open in a second; 0: no limit.
    pub guest_new_per_second: u32,
}

impl NatPolicy {
    /// The uplink's own address, these ports, and what RFC 4787 recommends: endpoint-independent mapping,
    /// address-dependent filtering (REQ-1, REQ-8). No quotas.
    pub const fn new(first_port: u16, last_port: u16) -> Self {
        Self {
            first_address: Ip::UNSPECIFIED,
            last_address: Ip::UNSPECIFIED,
            first_port,
            last_port,
            mapping: Mapping::EndpointIndependent as u8,
            filtering: Filtering::Address as u8,
            inbound_refresh: 0,
            pad: 0,
            guest_connections: 0,
            guest_bindings: 0,
            guest_new_per_second: 0,
        }
    }
}

/// The daemon's step of [`NetworkEntry::generation`].
pub const GENERATION_STEP: u32 = 1 << 16;

/// Addresses that a gateway answers ARP for, at most.
pub const MAX_GATEWAY_ADDRESSES: usize = 4;

/// Uplinks of one network, at most.
pub const MAX_UPLINKS: usize = 4;

/// A subnet: address and prefix length, counted over the 128 bits of [`Ip`] (an IPv4 /24 is 120).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Subnet {
    /// The gateway's address in this subnet; unspecified: the slot is free.
    pub gateway: Ip,
    pub length: u8,
    pub pad: [u8; 3],
}

/// Value of `NETWORKS`. Mode 0: the slot is free.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout))]
pub struct NetworkEntry {
    /// [`NetworkMode`] as its number.
    pub mode: u8,
    pub pad: u8,
    /// MAC address of `vn-NAME`; zero where the mode has no gateway.
    pub gateway_mac: Mac,
    /// The gateway's vport; 0 where the mode has none.
    pub gateway_vport: VportId,
    pub subnets: [Subnet; MAX_GATEWAY_ADDRESSES],
    /// Vports of the uplinks that guests may leave through; 0: free.
    pub uplinks: [VportId; MAX_UPLINKS],
    pub nat: NatPolicy,
    pub timeouts: Timeouts,
    /// Idle time after which a learned FDB entry ends, in seconds.
    pub ageing: Seconds,
    /// Paths that flows of this network keep are right while this number stands. The daemon adds
    /// [`GENERATION_STEP`] when routes, neighbours or ports change, the datapath adds 1 when a guest
    /// moves to another port; the two never undo each other's step. 0 is never valid.
    pub generation: Word,
}

impl NetworkEntry {
    #[inline(always)]
    pub const fn mode(&self) -> Option<NetworkMode> {
        NetworkMode::from_u8(self.mode)
    }

    #[inline(always)]
    pub fn is_gateway_address(&self, address: &Ip) -> bool {
        self.subnets.iter().any(|subnet| subnet.length != 0 && subnet.gateway == *address)
    }

    #[inline(always)]
    pub fn holds(&self, address: &Ip) -> bool {
        self.subnets.iter().any(|subnet| subnet.length != 0 && address.in_prefix(&subnet.gateway, subnet.length))
    }

    #[inline(always)]
    pub fn has_uplink(&self, vport: VportId) -> bool {
        vport != 0 && self.uplinks.contains(&vport)
    }
}

/// The only value of `SETTINGS`: what concerns the whole switch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Settings {
    /// Drawn by the daemon when the tables are made, so that nobody outside can choose hash collisions.
    pub hash_seed: [u64; 4],
    /// Until then TCP segments of unknown connections are taken up: the tables were made anew under
    /// connections that stand.
    pub pick_up_until: Seconds,
    /// 1: somebody follows connections, tell of each that begins or ends.
    pub report_connections: u32,
    /// Records of `CONNECTIONS` and `BINDINGS`, a power of two each; 0: none yet.
    pub connections: u32,
    pub bindings: u32,
}

/// Key of `ROUTED_SUBNETS`, a longest-prefix-match trie (layout of `struct bpf_lpm_trie_key`), which
/// says whose network an address of the inside is. Value: [`NetworkId`] as `u32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubnetKey {
    /// Over the 128 bits of [`Ip`], host order.
    pub length: u32,
    pub address: Ip,
}
