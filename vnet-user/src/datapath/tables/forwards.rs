//! Port forwards: one entry a port, ranges written in one go.

use std::collections::HashMap;

use tracing::error;
use vnet_common::forward::{ForwardEntry, ForwardKey};

use super::Tables;
use crate::datapath::TableError;

impl Tables {
    /// Writes all entries or none: where one fails, those before it are as they were. An entry that stands
    /// there already is replaced (whose it is, is the caller's to know).
    pub fn forwards_insert(&self, entries: &[(ForwardKey, ForwardEntry)]) -> Result<(), TableError> {
        let (keys, values): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
        self.0.writing(|| {
            let before: HashMap<_, _> = self.0.forwards.entries()?.into_iter().collect();
            self.0.forwards.insert_all(&keys, &values).map_err(|(written, error)| {
                self.undo_forwards(keys.get(..written).unwrap_or(&keys), &before);
                error
            })
        })
    }

    /// Removes those of `keys` that are there; returns how many.
    pub fn forwards_remove(&self, keys: &[ForwardKey]) -> Result<usize, TableError> {
        self.0.writing(|| self.0.forwards.remove_all(keys))
    }

    /// All forwarded ports.
    pub fn forwards(&self) -> Result<Vec<(ForwardKey, ForwardEntry)>, TableError> {
        self.0.forwards.entries()
    }

    fn undo_forwards(&self, written: &[ForwardKey], before: &HashMap<ForwardKey, ForwardEntry>) {
        for key in written {
            let undone = match before.get(key) {
                Some(entry) => self.0.forwards.insert(key, *entry),
                None => self.0.forwards.remove(key).map(drop),
            };
            if let Err(error) = undone {
                error!("undoing a forward: {error}");
            }
        }
    }
}
