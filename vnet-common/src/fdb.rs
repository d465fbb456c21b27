//! The MAC table.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Mac, Seconds, Word, config::NetworkId, flow::since};

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
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout))]
pub struct FdbEntry {
    /// The vport behind which the address lives; follows the guest when it moves.
    pub vport: Word,
    /// Last frame from the address, in [`Seconds`]; written at most once a second.
    pub last_seen: Word,
    /// How often the address moved to another vport.
    pub moves: Word,
    /// [`FdbKind`] as its number.
    pub kind: u32,
}

impl FdbEntry {
    #[inline(always)]
    pub const fn new(vport: u32, kind: FdbKind, now: Seconds) -> Self {
        Self { vport: Word::new(vport), last_seen: Word::new(now), moves: Word::new(0), kind: kind as u32 }
    }

    /// The vport behind which the address lives.
    #[inline(always)]
    pub fn vport(&self) -> u32 {
        self.vport.load()
    }

    /// True for a learned entry unseen for `ageing` seconds.
    #[inline(always)]
    pub fn is_expired(&self, now: Seconds, ageing: Seconds) -> bool {
        self.kind == FdbKind::Learned as u32 && since(self.last_seen.load(), now) >= ageing
    }
}
