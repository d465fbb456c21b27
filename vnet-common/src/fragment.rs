//! Fragments of IPv4 datagrams: the ports that only the first one carries, and those that came before it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Seconds, Word, config::NetworkId, vport::VportId};

/// Key of `FRAGMENTS`: a datagram, as all of its fragments name it (RFC 791: addresses, protocol,
/// identification).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Raw IPv4.
    pub src: u32,
    pub dst: u32,
    /// As it lies in the header.
    pub id: u16,
    /// Where the fragments come from.
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
    pub pad2: u16,
}

/// Value of `FRAGMENTS`.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Clone, Debug, Default, FromBytes, IntoBytes, KnownLayout))]
pub struct FragmentEntry {
    /// As [`crate::flow::Endpoints`] has them.
    pub src_port: Be16,
    pub dst_port: Be16,
    /// When the first fragment came.
    pub created: Seconds,
    /// The port that it came in on, whose share of the table it uses.
    pub from_vport: VportId,
    /// 1: the datagram is the host's own.
    pub to_host: Word,
    /// Bytes of the datagram, once its last fragment has come; else 0. And those that have come.
    pub length: Word,
    pub gathered: Word,
}

/// Bytes of a fragment's frame that can be kept, at most (a power of two).
pub const HELD_BYTES: usize = 2048;

/// Fragments of one datagram that can be kept, at most.
pub const HELD_PER_DATAGRAM: u32 = 4;

/// Key of `HELD_FRAGMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HeldKey {
    pub datagram: FragmentKey,
    /// Below [`HELD_PER_DATAGRAM`], in the order in which they came.
    pub slot: u32,
}

/// Value of `HELD_FRAGMENTS`: a frame that came before its datagram's first fragment.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HeldFragment {
    /// Bytes of it.
    pub length: u32,
    pub created: Seconds,
    /// The port that it came in on.
    pub from_vport: VportId,
    pub bytes: [u8; HELD_BYTES],
}

/// Datagrams in `FRAGMENTS` that came in on one port, at most.
pub const MAX_FRAGMENTED: u32 = 1024;

/// Frames in `HELD_FRAGMENTS` that came in on one port, at most.
pub const MAX_HELD: u32 = 64;

/// How long fragments from the outside wait for the rest, in seconds (RFC 791 section 3.2; from guests
/// [`crate::config::Timeouts::fragment`]).
pub const OUTSIDE_TIMEOUT: Seconds = 30;
