//! Maps as bytes: every buffer's length is checked here, so that nothing above needs `unsafe`.

use std::{io, os::fd::AsFd};

use aya::{
    maps::{MapData, MapError, MapType},
    util::nr_cpus,
};
use aya_obj::generated::{BPF_ANY, BPF_NOEXIST, bpf_attr, bpf_cmd};

use super::{View, bpf, number, zeroed};

/// A map, its sizes as the kernel states them.
pub(crate) struct RawMap {
    data: MapData,
    pub(crate) key_size: usize,
    /// Bytes that a look-up writes: for per-CPU maps one value, padded to eight bytes, a possible CPU.
    pub(crate) value_size: usize,
    pub(crate) max_entries: u32,
}

/// What a write does to an entry that stands there already.
#[derive(Clone, Copy)]
pub(crate) enum Write {
    Replace,
    /// Fails with `EEXIST`.
    IfAbsent,
}

/// Where a batch look-up goes on.
pub(crate) struct Cursor {
    /// The kernel's own: a bucket number for hash maps, a key for others.
    token: Vec<u8>,
    started: bool,
    finished: bool,
}

impl RawMap {
    pub(crate) fn new(data: MapData) -> Result<Self, MapError> {
        let info = data.info()?;
        let value_size = info.value_size() as usize;
        let per_cpu = matches!(info.map_type()?, MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash);
        let value_size = if per_cpu {
            let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
            value_size.next_multiple_of(8) * cpus
        } else {
            value_size
        };
        Ok(Self { key_size: info.key_size() as usize, value_size, max_entries: info.max_entries(), data })
    }

    /// Maps the array's values to be read.
    pub(crate) fn view(&self) -> io::Result<View> {
        View::new(self.data.fd(), self.max_entries, self.value_size)
    }

    /// True where there is such an entry; `value` is its value then.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, value.len())?;
        let mut attr = self.element(key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
        // SAFETY: key and value have the map's sizes and outlive the call.
        found(unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) })
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8], write: Write) -> io::Result<()> {
        self.check(key, value.len())?;
        let mut attr = self.element(key);
        attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
        attr.__bindgen_anon_2.flags = u64::from(match write {
            Write::Replace => BPF_ANY,
            Write::IfAbsent => BPF_NOEXIST,
        });
        // SAFETY: key and value have the map's sizes and outlive the call.
        unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// True where there was such an entry.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, self.value_size)?;
        let mut attr = self.element(key);
        // SAFETY: the key has the map's size and outlives the call.
        found(unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) })
    }

    pub(crate) fn cursor(&self) -> Cursor {
        // Hash maps keep four bytes in it, whatever their keys' size.
        Cursor { token: vec![0; self.key_size.max(8)], started: false, finished: false }
    }

    /// Reads on from `cursor` into the buffers; returns how many entries came, `None` at the end.
    ///
    /// `ENOSPC`: a hash bucket holds more than fits; come again with larger buffers.
    pub(crate) fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<Option<usize>> {
        if cursor.finished {
            return Ok(None);
        }
        let room = self.entries(keys.len(), Some(values.len()))?;
        let mut next = vec![0; cursor.token.len()];
        let mut attr = zeroed();
        attr.batch.map_fd = number(self.data.fd().as_fd());
        attr.batch.in_batch = if cursor.started { cursor.token.as_ptr() as u64 } else { 0 };
        attr.batch.out_batch = next.as_mut_ptr() as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = room;
        // SAFETY: the buffers hold `room` keys and values of the map's sizes, the tokens a key or four
        // bytes, whichever is more; all outlive the call.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        match result {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => cursor.finished = true,
            Err(error) => return Err(error),
        }
        cursor.token = next;
        cursor.started = true;
        Ok(Some(done(&attr)))
    }

    /// Writes all; on failure says how many were written before it.
    pub(crate) fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<(), (usize, io::Error)> {
        let count = self.entries(keys.len(), Some(values.len())).map_err(|error| (0, error))?;
        self.change_batch(bpf_cmd::BPF_MAP_UPDATE_BATCH, keys, Some(values), count)
    }

    /// Deletes all that are there; returns how many were.
    pub(crate) fn delete_batch(&self, keys: &[u8]) -> io::Result<usize> {
        let mut rest = keys;
        let mut deleted = 0;
        while !rest.is_empty() {
            let count = self.entries(rest.len(), None)?;
            match self.change_batch(bpf_cmd::BPF_MAP_DELETE_BATCH, rest, None, count) {
                Ok(()) => return Ok(deleted + count as usize),
                // The kernel stops at a key that is not there: step over it.
                Err((before, error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                    deleted += before;
                    rest = rest.get((before + 1) * self.key_size..).unwrap_or_default();
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(deleted)
    }

    fn change_batch(
        &self,
        command: bpf_cmd,
        keys: &[u8],
        values: Option<&[u8]>,
        count: u32,
    ) -> Result<(), (usize, io::Error)> {
        if count == 0 {
            return Ok(());
        }
        let mut attr = zeroed();
        attr.batch.map_fd = number(self.data.fd().as_fd());
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.values = values.map_or(0, |values| values.as_ptr() as u64);
        attr.batch.count = count;
        // SAFETY: `entries()` checked that the buffers hold `count` keys (and values, where the command
        // reads them) of the map's sizes; they outlive the call.
        match unsafe { bpf(command, &mut attr) } {
            Ok(_) => Ok(()),
            // The kernel writes the count back, except where it fails before the first entry with `EFAULT`
            // or `ENOMEM`: then it still says `count`.
            Err(error) => match done(&attr) {
                all if all >= count as usize => Err((0, error)),
                before => Err((before, error)),
            },
        }
    }

    fn element(&self, key: &[u8]) -> bpf_attr {
        let mut attr = zeroed();
        attr.__bindgen_anon_2.map_fd = number(self.data.fd().as_fd());
        attr.__bindgen_anon_2.key = key.as_ptr() as u64;
        attr
    }

    fn check(&self, key: &[u8], value_length: usize) -> io::Result<()> {
        if key.len() == self.key_size && value_length == self.value_size {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "wrong key or value size"))
        }
    }

    /// Entries that buffers of these lengths hold.
    fn entries(&self, keys_length: usize, values_length: Option<usize>) -> io::Result<u32> {
        let count = keys_length / self.key_size;
        let fits = keys_length == count * self.key_size
            && values_length.is_none_or(|length| length == count * self.value_size);
        match u32::try_from(count) {
            Ok(count) if fits => Ok(count),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "buffers do not hold whole entries")),
        }
    }
}

fn found(result: io::Result<i64>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Entries that a batch command says it has done.
fn done(attr: &bpf_attr) -> usize {
    // SAFETY: the block was used as a batch's; the field is an integer.
    unsafe { attr.batch.count as usize }
}
