//! What followers of connections are told, one record an event, in the ring buffer `EVENTS`.
//!
//! Written only while [`crate::config::Settings::report_connections`] is not 0.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Seconds, config::NetworkId, flow::Endpoints};

/// What happened to a connection. Travels as the number.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Begun = 1,
    /// A packet took its state on; [`ConnectionEvent::seen`] says where to.
    Changed = 2,
    /// Ended: idle for its time.
    Expired = 3,
    /// Ended: somebody asked for it.
    Flushed = 4,
    /// Ended: to make room, as nobody had answered or it was over.
    Spared = 5,
}

impl EventKind {
    /// `None` for a number of no event.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Begun,
            2 => Self::Changed,
            3 => Self::Expired,
            4 => Self::Flushed,
            5 => Self::Spared,
            _ => return None,
        })
    }
}

/// Record of `EVENTS`: an event, and the connection as it stood then (fields as in
/// [`crate::flow::Connection`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectionEvent {
    pub original: Endpoints,
    pub reply: Endpoints,
    pub original_network: NetworkId,
    pub reply_network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    pub origin: u8,
    pub guest_vport: u16,
    /// [`EventKind`] as its number.
    pub kind: u32,
    pub seen: u32,
    pub created: Seconds,
    pub last_seen: Seconds,
    /// When it happened.
    pub at: Seconds,
    pub pad: u32,
}

/// Bytes of `EVENTS`, a power of two of pages: some four thousand events.
pub const EVENTS_SIZE: u32 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_way_through_their_number() {
        let kinds = [EventKind::Begun, EventKind::Changed, EventKind::Expired, EventKind::Flushed, EventKind::Spared];
        for kind in kinds {
            assert_eq!(EventKind::from_u32(kind as u32), Some(kind));
        }
        assert_eq!((EventKind::from_u32(0), EventKind::from_u32(6)), (None, None));
    }
}
