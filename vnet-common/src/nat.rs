//! Bindings: internal address:port ↔ external address:port (RFC 6146's word), apart from connections.
//!
//! A binding is one record, found by its internal and by its external side. Its place in the index under
//! the external side is the ownership of the outside port.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Be16, Word,
    config::{NetworkId, OUTSIDE},
    conntrack,
};

/// One side of a binding. Addresses as in [`crate::flow::Endpoints`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BindingKey {
    /// The side's own address.
    pub address: u32,
    /// Internal side: the external address that is wanted; else 0.
    pub external: u32,
    /// Internal side under endpoint-dependent mapping: the remote address; else 0.
    pub remote: u32,
    /// L4 port, or the ICMP query identifier.
    pub port: Be16,
    /// As `remote`.
    pub remote_port: Be16,
    /// The guest's network on the internal side, [`OUTSIDE`] on the external one.
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}

impl BindingKey {
    /// The external side.
    #[inline(always)]
    pub const fn external(address: u32, port: Be16, protocol: u8) -> Self {
        Self { address, external: 0, remote: 0, port, remote_port: Be16::ZERO, network: OUTSIDE, protocol, pad: 0 }
    }

    /// As the words that are hashed.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        let ports = (self.port.raw() as u64) << 16 | self.remote_port.raw() as u64;
        let scope = (self.network as u64) << 8 | self.protocol as u64;
        [(self.address as u64) << 32 | self.external as u64, ports << 32 | scope, self.remote as u64]
    }
}

/// Remote addresses that a binding itself remembers; more of them are kept in `PEERS`.
pub const BINDING_PEERS: usize = 4;

/// Value of `BINDINGS`. All zero: free.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct Binding {
    /// The guest's side.
    pub internal: u32,
    /// The outside's.
    pub external: u32,
    /// Endpoint-dependent mapping: the only remote that it is for; else 0.
    pub remote: u32,
    pub internal_port: Be16,
    pub external_port: Be16,
    pub remote_port: Be16,
    /// The guest's network.
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
    /// The guest's vport when it began.
    pub guest_vport: u16,
    /// Connections that use it, or [`DEAD`] once it is being taken down.
    pub connections: Word,
    /// Last time a connection began or ended on it, in seconds; 0: no binding.
    pub last_used: Word,
    /// When it began; of a free record, when it ended.
    pub created: Word,
    /// Remote addresses that the guest has sent to from here (RFC 4787 REQ-8); 0: free.
    pub peers: [Word; BINDING_PEERS],
    pub pad2: u32,
}

/// [`Binding::connections`] from here on: it is being taken down, begin no connection.
pub const DEAD: u32 = 1 << 31;

impl Binding {
    #[inline(always)]
    pub const fn internal_key(&self) -> BindingKey {
        BindingKey {
            address: self.internal,
            external: self.external,
            remote: self.remote,
            port: self.internal_port,
            remote_port: self.remote_port,
            network: self.network,
            protocol: self.protocol,
            pad: 0,
        }
    }

    #[inline(always)]
    pub const fn external_key(&self) -> BindingKey {
        BindingKey::external(self.external, self.external_port, self.protocol)
    }

    #[inline(always)]
    pub fn is_internal(&self, key: &BindingKey) -> bool {
        self.internal == key.address
            && self.external == key.external
            && self.remote == key.remote
            && self.internal_port == key.port
            && self.remote_port == key.remote_port
            && self.network == key.network
            && self.protocol == key.protocol
            && self.last_used.load() != 0
    }

    #[inline(always)]
    pub fn is_external(&self, key: &BindingKey) -> bool {
        key.network == OUTSIDE
            && self.external == key.address
            && self.external_port == key.port
            && self.protocol == key.protocol
            && self.last_used.load() != 0
    }
}

/// Key of `PEERS`: a remote address that a binding's guest has sent to, beyond those that the binding
/// remembers itself. Value: the second in which it was noted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PeerKey {
    /// The binding's record, and when it began: entries of an ended binding mean nothing to the next one.
    pub binding: u32,
    pub created: u32,
    /// Raw IPv4.
    pub remote: u32,
}

/// Value of `GUESTS` (slot = vport): what one guest uses, against its quotas.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct GuestUse {
    pub connections: Word,
    pub bindings: Word,
    /// Connections begun in that second, in [`crate::Seconds`].
    pub second: Word,
    pub begun: Word,
    /// By [`exhausted_slot`]: the second in which no external port was free, so that the search is not
    /// repeated for every packet.
    pub exhausted: [Word; EXHAUSTED_SLOTS],
    /// Entries of `FRAGMENTS` and of `HELD_FRAGMENTS` that came in on the port.
    pub fragments: Word,
    pub held: Word,
}

/// Protocols that [`GuestUse::exhausted`] tells apart.
pub const EXHAUSTED_SLOTS: usize = 4;

/// Where a protocol stands in [`GuestUse::exhausted`].
#[inline(always)]
pub const fn exhausted_slot(protocol: u8) -> usize {
    match protocol {
        conntrack::protocol::TCP => 0,
        conntrack::protocol::UDP => 1,
        conntrack::protocol::ICMP => 2,
        _ => 3,
    }
}
