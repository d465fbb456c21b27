//! One map with its types.

use std::{io, marker::PhantomData, path::Path};

use aya::maps::MapData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::datapath::{
    TableError,
    error::reason,
    sys::{RawMap, Write},
};

/// Entries that one system call reads, as long as the kernel can do with that many.
const BATCH: usize = 4096;

/// A pinned map whose keys and values are the structures of [`vnet_common`].
///
/// Values are taken and given by value: those with atomics in them are no `Copy` types.
pub(crate) struct Table<K, V> {
    name: &'static str,
    map: RawMap,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: FromBytes + IntoBytes + Immutable, V: FromBytes + IntoBytes> Table<K, V> {
    pub(crate) fn open(directory: &Path, name: &'static str) -> Result<Self, TableError> {
        let map = open(directory, name)?;
        if map.key_size != size_of::<K>() || map.value_size != size_of::<V>() {
            return Err(TableError::Shape { table: name });
        }
        Ok(Self { name, map, types: PhantomData })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.map.max_entries
    }

    pub(crate) fn lookup(&self, key: &K) -> Result<Option<V>, TableError> {
        let mut value = V::new_zeroed();
        let found = self.map.lookup(key.as_bytes(), value.as_mut_bytes());
        Ok(found.map_err(|error| self.failed("read", error))?.then_some(value))
    }

    /// Writes the entry, whatever stood there.
    pub(crate) fn insert(&self, key: &K, mut value: V) -> Result<(), TableError> {
        let result = self.map.update(key.as_bytes(), value.as_mut_bytes(), Write::Replace);
        result.map_err(|error| self.failed("write", error))
    }

    /// Writes the entry where nothing stands, or fails with [`TableError::Exists`].
    pub(crate) fn insert_new(&self, key: &K, mut value: V) -> Result<(), TableError> {
        let result = self.map.update(key.as_bytes(), value.as_mut_bytes(), Write::IfAbsent);
        result.map_err(|error| self.failed("write", error))
    }

    /// True where there was such an entry.
    pub(crate) fn remove(&self, key: &K) -> Result<bool, TableError> {
        self.map.delete(key.as_bytes()).map_err(|error| self.failed("write", error))
    }

    /// Removes what is there of `keys`, in few system calls; returns how many were.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<usize, TableError> {
        self.map.delete_batch(keys.as_bytes()).map_err(|error| self.failed("write", error))
    }

    /// Hands every entry to `visit`, some thousands a system call. Entries that come or go meanwhile may
    /// or may not be seen; all others are, once.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(K, V) -> Result<(), TableError>) -> Result<(), TableError> {
        let mut batch = BATCH.min(self.map.max_entries as usize);
        let mut keys = vec![0; batch * self.map.key_size];
        let mut values = vec![0; batch * self.map.value_size];
        let mut cursor = self.map.cursor();
        loop {
            let count = match self.map.lookup_batch(&mut cursor, &mut keys, &mut values) {
                Ok(None) => return Ok(()),
                Ok(Some(count)) => count,
                // One hash bucket holds more than the whole batch.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch < self.map.max_entries as usize => {
                    batch *= 2;
                    keys.resize(batch * self.map.key_size, 0);
                    values.resize(batch * self.map.value_size, 0);
                    continue;
                }
                Err(error) => return Err(self.failed("read", error)),
            };
            let entries = keys.chunks_exact(self.map.key_size).zip(values.chunks_exact(self.map.value_size));
            for (key, value) in entries.take(count) {
                let shape = TableError::Shape { table: self.name };
                let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) else {
                    return Err(shape);
                };
                visit(key, value)?;
            }
        }
    }

    /// All entries.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        let mut entries = Vec::new();
        self.for_each(|key, value| {
            entries.push((key, value));
            Ok(())
        })?;
        Ok(entries)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TableError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => TableError::Full { table: self.name, entries: self.map.max_entries },
            Some(libc::EEXIST) => TableError::Exists { table: self.name },
            _ => TableError::Io { table: self.name, action, source },
        }
    }
}

impl<K: FromBytes + IntoBytes + Immutable, V: FromBytes + IntoBytes + Immutable> Table<K, V> {
    /// Writes all entries in one system call; on failure says how many were written before it.
    pub(crate) fn insert_all(&self, keys: &[K], values: &[V]) -> Result<(), (usize, TableError)> {
        let result = self.map.update_batch(keys.as_bytes(), values.as_bytes());
        result.map_err(|(written, error)| (written, self.failed("write", error)))
    }
}

/// A per-CPU array, its slots summed over the CPUs by whoever reads them.
pub(crate) struct Counters<V> {
    name: &'static str,
    map: RawMap,
    types: PhantomData<fn() -> V>,
}

impl<V: FromBytes + IntoBytes> Counters<V> {
    /// Bytes that one CPU's value takes in a look-up.
    const STRIDE: usize = size_of::<V>().next_multiple_of(8);

    pub(crate) fn open(directory: &Path, name: &'static str) -> Result<Self, TableError> {
        let map = open(directory, name)?;
        if map.key_size != size_of::<u32>() || map.value_size % Self::STRIDE != 0 {
            return Err(TableError::Shape { table: name });
        }
        Ok(Self { name, map, types: PhantomData })
    }

    /// The slot's value on each possible CPU.
    pub(crate) fn lookup(&self, slot: u32) -> Result<Vec<V>, TableError> {
        let mut bytes = vec![0; self.map.value_size];
        let found = self.map.lookup(slot.as_bytes(), &mut bytes);
        if !found.map_err(|source| TableError::Io { table: self.name, action: "read", source })? {
            return Err(TableError::NoSlot { table: self.name, slot });
        }
        let values = bytes.chunks_exact(Self::STRIDE).map(V::read_from_prefix);
        values.map(|read| read.map(|(value, _)| value).map_err(|_| TableError::Shape { table: self.name })).collect()
    }

    /// Sets the slot to zero on every CPU.
    pub(crate) fn reset(&self, slot: u32) -> Result<(), TableError> {
        let zeros = vec![0; self.map.value_size];
        let result = self.map.update(slot.as_bytes(), &zeros, Write::Replace);
        result.map_err(|source| TableError::Io { table: self.name, action: "write", source })
    }
}

pub(super) fn open(directory: &Path, name: &'static str) -> Result<RawMap, TableError> {
    let map = MapData::from_pin(directory.join(name)).and_then(RawMap::new);
    map.map_err(|error| TableError::Io { table: name, action: "open", source: io::Error::other(reason(&error)) })
}
