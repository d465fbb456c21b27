//! The MAC table, from the daemon's side.

use vnet_common::{
    Mac, Seconds,
    config::NetworkId,
    fdb::{FdbEntry, FdbKey, FdbKind},
    flow::since,
    vport::VportId,
};

use super::Tables;
use crate::datapath::{TableError, clock};

/// One MAC address and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbRow {
    pub network: NetworkId,
    pub vlan: u16,
    pub mac: Mac,
    pub vport: VportId,
    pub kind: FdbKind,
    /// Since its last frame, or since it was set.
    pub age_seconds: Seconds,
    /// How often it moved to another vport.
    pub moves: u32,
}

impl FdbRow {
    fn new(key: &FdbKey, entry: &FdbEntry, now: Seconds) -> Self {
        Self {
            network: key.network,
            vlan: key.vlan,
            mac: key.mac,
            vport: entry.vport(),
            // Numbers are this crate's own: an unknown one can only be a later version's, which ages.
            kind: FdbKind::from_u32(entry.kind).unwrap_or(FdbKind::Learned),
            age_seconds: since(entry.last_seen.load(), now),
            moves: entry.moves.load(),
        }
    }

    pub fn key(&self) -> FdbKey {
        FdbKey::new(self.network, self.vlan, self.mac)
    }
}

impl Tables {
    /// The table of one network, or of all.
    pub fn fdb(&self, network: Option<NetworkId>) -> Result<Vec<FdbRow>, TableError> {
        self.fdb_rows(|row| network.is_none_or(|network| row.network == network))
    }

    /// Sets a [`FdbKind::Static`] or [`FdbKind::Local`] entry. A learned one makes way; another one that
    /// was set is kept, and [`TableError::Exists`] says so, unless `replace`.
    pub fn fdb_insert(&self, key: &FdbKey, vport: VportId, kind: FdbKind, replace: bool) -> Result<(), TableError> {
        let fdb = &self.0.fdb;
        self.0.writing(|| match fdb.insert_new(key, FdbEntry::new(vport, kind, clock::now())) {
            Err(TableError::Exists { table }) => {
                let present = fdb.lookup(key)?;
                let was_set = present.is_some_and(|entry| entry.kind != FdbKind::Learned as u32);
                if was_set && !replace {
                    return Err(TableError::Exists { table });
                }
                fdb.insert(key, FdbEntry::new(vport, kind, clock::now()))
            }
            result => result,
        })
    }

    /// The entry, if there is one.
    pub fn fdb_lookup(&self, key: &FdbKey) -> Result<Option<FdbRow>, TableError> {
        Ok(self.0.fdb.lookup(key)?.map(|entry| FdbRow::new(key, &entry, clock::now())))
    }

    /// False where there was no such entry.
    pub fn fdb_remove(&self, key: &FdbKey) -> Result<bool, TableError> {
        self.0.fdb.remove(key)
    }

    /// Removes the network's entries of these kinds; returns how many.
    pub fn fdb_flush(&self, network: NetworkId, kinds: &[FdbKind]) -> Result<usize, TableError> {
        self.fdb_remove_rows(|row| row.network == network && kinds.contains(&row.kind))
    }

    /// Removes every entry behind the vport, of whatever kind; returns how many.
    pub fn fdb_drop_vport(&self, vport: VportId) -> Result<usize, TableError> {
        self.fdb_remove_rows(|row| row.vport == vport)
    }

    fn fdb_remove_rows(&self, doomed: impl Fn(&FdbRow) -> bool) -> Result<usize, TableError> {
        let keys: Vec<FdbKey> = self.fdb_rows(doomed)?.iter().map(FdbRow::key).collect();
        self.0.fdb.remove_all(&keys)
    }

    fn fdb_rows(&self, wanted: impl Fn(&FdbRow) -> bool) -> Result<Vec<FdbRow>, TableError> {
        let now = clock::now();
        let mut rows = Vec::new();
        self.0.fdb.for_each(|key, entry| {
            let row = FdbRow::new(&key, &entry, now);
            if wanted(&row) {
                rows.push(row);
            }
            Ok(())
        })?;
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_and_since_when() {
        let key = FdbKey::new(4, 10, Mac([2, 0, 0, 0, 0, 7]));
        let entry = FdbEntry::new(9, FdbKind::Static, 100);
        entry.moves.store(2);
        let row = FdbRow::new(&key, &entry, 130);
        let wanted = FdbRow {
            network: 4,
            vlan: 10,
            mac: Mac([2, 0, 0, 0, 0, 7]),
            vport: 9,
            kind: FdbKind::Static,
            age_seconds: 30,
            moves: 2,
        };
        assert_eq!((row.key(), row), (key, wanted));
    }
}
