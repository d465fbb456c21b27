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

/// Idle times after which a connection ends, in seconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timeouts {
    /// RFC 4787 REQ-5.
    pub udp: Seconds,
    /// RFC 5382 REQ-5, established connections.
    pub tcp_established: Seconds,
    /// RFC 5382 REQ-5, opening and closing connections.
    pub tcp_transitory: Seconds,
    /// RFC 5508 REQ-2.
    pub icmp: Seconds,
}

impl Timeouts {
    pub const RFC: Self = Self { udp: 300, tcp_established: 7440, tcp_transitory: 240, icmp: 60 };
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
    /// External ports for SNAT, host order, both included.
    pub snat_first: u16,
    pub snat_last: u16,
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

/// Key of `ROUTED_SUBNETS`, a longest-prefix-match trie (layout of `struct bpf_lpm_trie_key`), which
/// says whose network an address of the inside is. Value: [`NetworkId`] as `u32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubnetKey {
    /// Over the 128 bits of [`Ip`], host order.
    pub length: u32,
    pub address: Ip,
}
