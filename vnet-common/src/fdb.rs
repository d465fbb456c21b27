//! The MAC table.

use core::sync::atomic::AtomicU32;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Mac, Seconds, config::NetworkId};

/// Key of `FDB`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FdbKey {
    pub network: NetworkId,
    /// VLAN identifier; [`crate::vport::UNTAGGED`] for untagged frames.
    pub vlan: u16,
    pub mac: Mac,
    pub pad: [u8; 2],
}

impl FdbKey {
    #[inline(always)]
    pub const fn new(network: NetworkId, vlan: u16, mac: Mac) -> Self {
        Self { network, vlan, mac, pad: [0; 2] }
    }
}

/// Where an entry came from. Travels as the number.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbKind {
    /// Seen as a source address; ages and moves.
    Learned = 0,
    /// Set by the user; neither ages nor moves.
    Static = 1,
    /// The gateway's or an uplink's own address; neither ages nor moves.
    Local = 2,
}

impl FdbKind {
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Learned,
            1 => Self::Static,
            2 => Self::Local,
            _ => return None,
        })
    }
}

/// Value of `FDB`.
#[repr(C)]
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
pub struct FdbEntry {
    /// The vport behind which the address lives; follows the guest when it moves.
    pub vport: AtomicU32,
    /// [`FdbKind`] as its number.
    pub kind: u32,
    /// Last frame from the address, in [`Seconds`]; written at most once a second.
    pub last_seen: AtomicU32,
    /// How often the address moved to another vport.
    pub moves: AtomicU32,
}

impl FdbEntry {
    #[inline(always)]
    pub const fn new(vport: u32, kind: FdbKind, now: Seconds) -> Self {
        Self {
            vport: AtomicU32::new(vport),
            kind: kind as u32,
            last_seen: AtomicU32::new(now),
            moves: AtomicU32::new(0),
        }
    }

    /// True for a learned entry unseen for `ageing` seconds.
    #[inline(always)]
    pub fn is_expired(&self, now: Seconds, ageing: Seconds) -> bool {
        let idle = now.wrapping_sub(self.last_seen.load(core::sync::atomic::Ordering::Relaxed));
        // A stamp from the future (another CPU's clock tick) is not an age.
        self.kind == FdbKind::Learned as u32 && idle >= ageing && idle < u32::MAX / 2
    }
}
