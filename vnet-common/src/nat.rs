//! Bindings: internal address:port ↔ external address:port (RFC 6146's word), apart from flows.
//!
//! A binding is two entries, one a side. The external entry is the ownership of the outside port: it
//! is claimed with an insert-if-absent. The internal entry counts the connections that use it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Ip, Word, config::NetworkId};

/// Key of `BINDINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BindingKey {
    pub address: Ip,
    /// L4 port, or the ICMP query identifier.
    pub port: Be16,
    /// The guest's network on the internal side, [`crate::config::OUTSIDE`] on the external one.
    pub network: NetworkId,
    pub vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}

/// Value of `BINDINGS`: the other side.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout))]
pub struct BindingEntry {
    pub address: Ip,
    pub port: Be16,
    /// Network of the other side.
    pub network: NetworkId,
    pub vlan: u16,
    pub pad: [u8; 2],
    /// Internal side: connections that use the binding, or [`DEAD`] once it is being taken down.
    /// External side: unused.
    pub connections: Word,
    /// Last time a connection began or ended on it, in seconds.
    pub last_used: Word,
}

/// [`BindingEntry::connections`] from here on: the binding is being taken down, begin no connection.
pub const DEAD: u32 = 1 << 31;
