//! Vports: the devices on the switch.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Ip, Mac};

/// Number of a vport: its slot in `VPORTS` and `VPORT_STATS`. 0 is never a vport.
///
/// State is keyed by it and not by ifindex, which the kernel uses again for other devices.
pub type VportId = u32;

/// Slots in `VPORTS`, slot 0 included.
pub const MAX_VPORTS: u32 = 4096;

/// What a vport is for. Travels as the number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VportRole {
    /// A guest's tap or veth.
    Guest = 1,
    /// A NIC that is a member of a bridge network: frames for its own MAC belong to the host.
    BridgeUplink = 2,
    /// A NIC towards the outside of nat and routed networks: routed, never bridged.
    RoutedUplink = 3,
    /// `vn-NAME`, the host's own leg in a network.
    Gateway = 4,
}

impl VportRole {
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Guest,
            2 => Self::BridgeUplink,
            3 => Self::RoutedUplink,
            4 => Self::Gateway,
            _ => return None,
        })
    }
}

/// Value of `VPORTS`. All zero: the slot is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VportEntry {
    /// The device now behind the vport; 0 while it is absent (nothing is sent there).
    pub ifindex: u32,
    /// Network of guest, bridge uplink and gateway vports; 0 for routed uplinks, which serve several.
    pub network: u16,
    /// [`VportRole`] as its number.
    pub role: u8,
    /// [`PEER_ELSEWHERE`].
    pub flags: u8,
    /// The device's own MAC address (not the guest's).
    pub mac: Mac,
    /// The device's MTU in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Routed uplinks: the address that SNAT shows. Unspecified: none, nothing is translated here.
    pub external: Ip,
}

/// [`VportEntry::flags`]: the device is a veth whose other end, the guest's, is in another network namespace,
/// and nothing is queued on it: frames may go straight to the other end.
pub const PEER_ELSEWHERE: u8 = 1;

impl VportEntry {
    #[inline(always)]
    pub const fn role(&self) -> Option<VportRole> {
        VportRole::from_u8(self.role)
    }
}

/// Key of `FLOODS`: the network. Value: the vports that a flooded frame goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FloodList {
    /// How many of `vports` count.
    pub count: u32,
    pub vports: [VportId; MAX_FLOOD as usize],
}

/// Ports of one network that a flooded frame reaches, at most.
pub const MAX_FLOOD: u32 = 1024;

/// Value of `LOCALS` (key: [`Ip`]): an address of the host itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LocalEntry {
    /// The device that carries the address.
    pub ifindex: u32,
}

/// The VLAN of an untagged frame in every key.
pub const UNTAGGED: u16 = 0;

/// The VLAN identifier in a tag control information word (IEEE 802.1Q 9.6): never compare the whole
/// word, priority bits are no part of the VLAN.
#[inline(always)]
pub const fn vid(tci: Be16) -> u16 {
    tci.get() & 0x0fff
}
