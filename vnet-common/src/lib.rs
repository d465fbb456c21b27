//! The ABI between vnet's datapath (BPF) and its daemon.
//!
//! Everything that crosses the border is defined here, once: keys and values of the maps, names of
//! maps and programs, drop reasons, and the connection state machine as a pure function. Layouts are
//! `repr(C)` without implicit padding (derived, not promised: `IntoBytes` refuses padding) and pinned
//! by a test. Multi-byte packet fields are kept in network byte order and say so in their type
//! ([`Be16`], [`Ip`]); everything else is in host order. Words that several CPUs write
//! are [`Word`]s; the layouts that hold some are checked on the host only.
#![no_std]
#![cfg_attr(not(target_arch = "bpf"), forbid(unsafe_code))]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), allow(internal_features))]

#[cfg(test)]
extern crate std;

pub mod bench;
pub mod bytes;
pub mod config;
pub mod conntrack;
pub mod drop;
pub mod event;
pub mod fdb;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod index;
pub mod names;
pub mod nat;
pub mod socket;
pub mod stats;
pub mod vport;
pub mod word;

pub use bytes::{Be16, Ip, Mac};
pub use drop::DropReason;
pub use word::{DoubleWord, Word};

/// Version of every layout in this crate. A change of any of them bumps it: maps pinned under another
/// version are never mixed with programs of this one.
pub const ABI_VERSION: u32 = 2;

/// Seconds on the kernel's coarse monotonic clock (`CLOCK_MONOTONIC_COARSE`), wrapped to 32 bits.
///
/// All `last_seen` stamps use it. Differences are taken with [`u32::wrapping_sub`].
pub type Seconds = u32;

#[cfg(test)]
mod layout_tests;
