//! The ring buffer of connections' events.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use vnet_common::{event::ConnectionEvent, names::map, stats::EventCount};
use zerocopy::FromBytes;

use super::Tables;
use crate::datapath::{TableError, error::reason, sys::awaited};

/// Events taken before others have their turn.
const TURN: usize = 512;

/// Takes events out of `EVENTS`. There must be one at a time.
pub struct EventReader(AsyncFd<RingBuf<MapData>>);

impl EventReader {
    /// Waits for events and hands some of them on, in their order. Nothing is lost where the wait is given up.
    pub async fn take(&mut self, mut visit: impl FnMut(ConnectionEvent)) -> Result<(), TableError> {
        let mut ready = self.0.readable_mut().await.map_err(|error| failed("wait for", error))?;
        for _ in 0..TURN {
            match next(ready.get_inner_mut()) {
                Some(event) => visit(event),
                None => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Forgets the events that are there now.
    pub fn discard(&mut self) {
        while next(self.0.get_mut()).is_some() {}
    }
}

/// The next event; `None`: none is there now.
fn next(ring: &mut RingBuf<MapData>) -> Option<ConnectionEvent> {
    while let Some(item) = ring.next() {
        // A record of another length is none of ours.
        if let Ok(event) = ConnectionEvent::read_from_bytes(&item) {
            return Some(event);
        }
    }
    None
}

fn failed(action: &'static str, source: io::Error) -> TableError {
    TableError::Io { table: map::EVENTS, action, source }
}

impl Tables {
    /// Must be called within tokio's runtime.
    pub fn event_reader(&self) -> Result<EventReader, TableError> {
        let map = MapData::from_pin(self.0.directory.join(map::EVENTS)).and_then(Map::from_map_data);
        let ring = map.and_then(RingBuf::try_from);
        let ring = ring.map_err(|error| failed("open", io::Error::other(reason(&error))))?;
        Ok(EventReader(awaited(ring).map_err(|error| failed("wait for", error))?))
    }

    /// Events that found no room in `EVENTS`, since the tables were made.
    pub fn events_lost(&self) -> Result<u64, TableError> {
        self.event_count(EventCount::EventsLost)
    }
}
