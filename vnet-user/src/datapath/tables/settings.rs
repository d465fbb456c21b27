//! What concerns the whole switch.

use std::io::Read as _;

use vnet_common::{Seconds, config::Settings, names::map};

use super::Tables;
use crate::datapath::{TableError, clock, sizes::Sizes};

/// The only slot.
const SLOT: u32 = 0;

impl Tables {
    /// Readies tables that were just made: draws the seed of their index, and has TCP connections of an
    /// earlier time taken up for `pick_up` seconds. Tables that stand are left alone.
    pub(in crate::datapath) fn make_ready(&self, sizes: Sizes, pick_up: Seconds) -> Result<(), TableError> {
        if self.0.settings.lookup(&SLOT)?.is_some_and(|settings| settings.connections != 0) {
            // Whoever followed connections went with the daemon before this one.
            return self.set_reporting(false);
        }
        let settings = Settings {
            hash_seed: random().map_err(|source| TableError::Io { table: map::SETTINGS, action: "seed", source })?,
            pick_up_until: clock::now().wrapping_add(pick_up),
            report_connections: 0,
            connections: sizes.connections,
            bindings: sizes.bindings,
        };
        self.0.settings.insert(&SLOT, settings)
    }

    /// Has the datapath write to `EVENTS`, or leave off. (All else is written as it stands: programs that look
    /// meanwhile see no change.)
    pub fn set_reporting(&self, on: bool) -> Result<(), TableError> {
        let report_connections = u32::from(on);
        self.0.writing(|| match self.0.settings.lookup(&SLOT)? {
            Some(settings) if settings.report_connections != report_connections => {
                self.0.settings.insert(&SLOT, Settings { report_connections, ..settings })
            }
            _ => Ok(()),
        })
    }
}

fn random() -> std::io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut words = [0; 4];
    for (word, eight) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*eight);
    }
    Ok(words)
}
