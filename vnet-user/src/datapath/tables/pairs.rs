//! A table of pairs from the daemon's side: read through a mapping, never written.

use std::{io, marker::PhantomData, path::Path};

use vnet_common::index::Pool;
use zerocopy::{FromBytes, IntoBytes};

use super::table::{Table, open};
use crate::datapath::{TableError, sys::View};

/// An array of records of which those in use are known by their life not being 0.
pub(crate) struct PairTable<R> {
    name: &'static str,
    view: View,
    /// Records, record 0 included, which is never used.
    records: u32,
    /// Its slot in `POOLS`.
    pool: u32,
    is_live: fn(&R) -> bool,
    types: PhantomData<fn() -> R>,
}

impl<R: FromBytes + IntoBytes> PairTable<R> {
    pub(crate) fn open(
        directory: &Path,
        name: &'static str,
        pool: u32,
        is_live: fn(&R) -> bool,
    ) -> Result<Self, TableError> {
        let map = open(directory, name)?;
        if map.value_size != size_of::<R>() {
            return Err(TableError::Shape { table: name });
        }
        let view = map.view().map_err(|source| TableError::Io { table: name, action: "map", source })?;
        Ok(Self { name, view, records: map.max_entries, pool, is_live, types: PhantomData })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Records that can be in use at a time.
    pub(crate) fn capacity(&self) -> u32 {
        self.records - 1
    }

    /// Hands every live record to `visit`. Those that begin or end meanwhile may or may not be seen.
    pub(crate) fn for_each(
        &self,
        pools: &Table<u32, Pool>,
        mut visit: impl FnMut(u32, R) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        // Records beyond were never used.
        let used = pools.lookup(&self.pool)?.map_or(0, |pool| pool.fresh.load());
        for index in 1..=used.min(self.capacity()) {
            let mut record = R::new_zeroed();
            if !self.view.read(index, record.as_mut_bytes()) {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(TableError::Io { table: self.name, action: "read", source });
            }
            if (self.is_live)(&record) {
                visit(index, record)?;
            }
        }
        Ok(())
    }

    /// How many records are in use: from the pool, without a look at any. Those being made count.
    pub(crate) fn count(&self, pools: &Table<u32, Pool>) -> Result<usize, TableError> {
        Ok(pools.lookup(&self.pool)?.map_or(0, |pool| in_use(&pool, self.capacity())) as usize)
    }
}

/// Records that were ever used, without those that were given back. (The two ends of the ring are not read in
/// one moment: between them it may seem longer than it is.)
fn in_use(pool: &Pool, capacity: u32) -> u32 {
    let used = pool.fresh.load().min(capacity);
    let waiting = pool.tail.load().wrapping_sub(pool.head.load());
    used.saturating_sub(waiting)
}

#[cfg(test)]
mod tests {
    use vnet_common::Word;

    use super::*;

    #[test]
    fn records_given_back_are_not_in_use() {
        let cases = [(0, 0, 0, 0), (10, 0, 0, 10), (10, 0, 4, 6), (1023, u32::MAX, 1, 1021), (2000, 5, 5, 1023)];
        for (fresh, head, tail, used) in cases {
            let pool =
                Pool { fresh: Word::new(fresh), head: Word::new(head), tail: Word::new(tail), ..Pool::default() };
            assert_eq!(in_use(&pool, 1023), used, "{fresh} {head} {tail}");
        }
    }
}
