//! Port forwards: static DNAT rules.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Ip, config::NetworkId};

/// Key of `FORWARDS`. A range stands as one entry a port: look-ups cost the same for any number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ForwardKey {
    /// Outside address; [`Ip::UNSPECIFIED`] for all addresses of the host.
    pub address: Ip,
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}

impl ForwardKey {
    #[inline(always)]
    pub const fn new(address: Ip, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, pad: 0 }
    }
}

/// Value of `FORWARDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ForwardEntry {
    /// The guest's address.
    pub target: Ip,
    /// The guest's port.
    pub port: Be16,
    /// The guest's network.
    pub network: NetworkId,
    /// [`LOOPBACK`] or nothing.
    pub flags: u32,
}

/// In [`ForwardEntry::flags`]: processes of the host reach the guest by 127.0.0.0/8, too.
pub const LOOPBACK: u32 = 1;
