//! Counters, one set a CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DropReason;

/// Value of `VPORT_STATS` (per CPU, slot = vport).
///
/// Received and sent are seen from the switch: received is what came out of the device into vnet.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VportStats {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Frames received here and dropped, by [`DropReason`].
    pub drops: [u64; DropReason::SLOTS],
}

/// Things that happen besides a frame's verdict, counted per CPU in `EVENT_COUNTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventCount {
    /// A source address was not learned because `FDB` is full.
    FdbFull = 0,
    /// A flood reached a port that refused the frame.
    FloodRefused = 1,
    /// A path was decided again because its generation or age had run out.
    PathDecidedAgain = 2,
    /// Connections begun.
    ConnectionsCreated = 3,
    /// Connections ended by idle time.
    ConnectionsExpired = 4,
    /// Two CPUs began one connection; the later one took the earlier one's.
    ConnectionRaces = 5,
    /// ICMP errors sent about packets that were dropped.
    IcmpErrorsSent = 6,
    /// ICMP errors not sent because the port had enough of them this second (RFC 1812 4.3.2.8).
    IcmpErrorsLimited = 7,
    /// Connections ended to make room: nobody had answered, or they were over.
    ConnectionsSpared = 8,
    /// Connections ended because somebody asked for it.
    ConnectionsFlushed = 9,
    /// Events of connections that followers were not told of, as `EVENTS` was full.
    EventsLost = 10,
}

impl EventCount {
    pub const COUNT: u32 = 11;
    pub const ALL: [(Self, &'static str); Self::COUNT as usize] = [
        (Self::FdbFull, "fdb-full"),
        (Self::FloodRefused, "flood-refused"),
        (Self::PathDecidedAgain, "path-decided-again"),
        (Self::ConnectionsCreated, "connections-created"),
        (Self::ConnectionsExpired, "connections-expired"),
        (Self::ConnectionRaces, "connection-races"),
        (Self::IcmpErrorsSent, "icmp-errors-sent"),
        (Self::IcmpErrorsLimited, "icmp-errors-limited"),
        (Self::ConnectionsSpared, "connections-spared"),
        (Self::ConnectionsFlushed, "connections-flushed"),
        (Self::EventsLost, "events-lost"),
    ];
}
