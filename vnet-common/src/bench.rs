//! Between the benchmark and its own BPF programs: names, globals, counters.
//!
//! The two are loaded together and nothing of theirs is pinned, so this is no part of
//! [`ABI_VERSION`](crate::ABI_VERSION).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of every frame: the smallest that Ethernet carries, without its check sequence.
pub const FRAME_LENGTH: usize = 60;

/// What the sink knows the benchmark's frames by: raw bytes in the UDP payload.
pub const MAGIC: u32 = u32::from_ne_bytes(*b"vnet");
/// Where it lies: aligned, two bytes into the payload.
pub const MAGIC_OFFSET: usize = 44;

/// Program names.
pub mod program {
    /// XDP, run by `BPF_PROG_TEST_RUN` with live frames: writes a frame and sends it into a device.
    pub const SOURCE: &str = "source";
    /// TC: sends every frame out of one device. The least that a forwarder can do.
    pub const REDIRECT: &str = "redirect";
    /// TC: takes every frame straight to the far end of a veth, past that veth's own queue.
    pub const REDIRECT_PEER: &str = "redirect_peer";
    /// TC: counts the benchmark's frames and drops them; everything else goes on.
    pub const SINK: &str = "sink";
}

/// Global variables, set before loading.
pub mod global {
    /// `u32`: where `source` and the forwarders send to.
    pub const TO_IFINDEX: &str = "TO_IFINDEX";
    /// `[u64; 8]`: the frame of `source`, its varying port zero, padded.
    pub const FRAME: &str = "FRAME";
    /// `u32`: the UDP checksum's sum over that frame (RFC 1071), folded, not inverted, raw.
    pub const FRAME_SUM: &str = "FRAME_SUM";
    /// `u32`: 0 where the source port varies, else the destination port.
    pub const VARY_DESTINATION: &str = "VARY_DESTINATION";
    /// `u32`: the first of the varying ports.
    pub const FIRST_PORT: &str = "FIRST_PORT";
    /// `u32`: how many there are.
    pub const FLOWS: &str = "FLOWS";
    /// `[u16; 2]`: the raw source address that `sink` expects; zero: any.
    pub const EXPECTED_SOURCE: &str = "EXPECTED_SOURCE";
}

/// Map names.
pub mod map {
    /// One [`SourceCount`](super::SourceCount) a CPU.
    pub const SOURCE_COUNTS: &str = "SOURCE_COUNTS";
    /// One [`SinkCount`](super::SinkCount) a CPU.
    pub const SINK_COUNTS: &str = "SINK_COUNTS";
}

/// What `source` has done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SourceCount {
    pub frames: u64,
    /// `CLOCK_MONOTONIC` at the first frame and at the latest batch; zero: none yet.
    pub first_ns: u64,
    pub last_ns: u64,
    /// The flow that the next frame belongs to.
    pub next_flow: u64,
}

/// What `sink` has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SinkCount {
    pub expected: u64,
    /// The benchmark's frames from another source than the expected one: translated wrongly, or not.
    pub unexpected: u64,
}
