//! An array map, mapped to be read: a million records without a system call each.

use std::{io, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of an array made with `BPF_F_MMAPABLE`, for as long as it lives.
pub(crate) struct View {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
    /// Bytes from one value to the next: the value's size, a multiple of eight.
    stride: usize,
}

// SAFETY: the mapping belongs to no thread, and reading it changes nothing.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub(super) fn new(map: impl AsFd, entries: u32, value_size: usize) -> io::Result<Self> {
        let stride = value_size.next_multiple_of(8);
        let length = NonZeroUsize::new(entries as usize * stride).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start, length, stride })
    }

    /// Copies the value at `index` into `value`, word by word, as other CPUs write it: words that change
    /// together may come from before and after a change. False beyond the end.
    pub(crate) fn read(&self, index: u32, value: &mut [u8]) -> bool {
        let offset = index as usize * self.stride;
        if offset + self.stride > self.length.get() || value.len() > self.stride {
            return false;
        }
        for (word, bytes) in value.chunks_mut(4).enumerate() {
            // SAFETY: within the mapping, and aligned: values begin at multiples of eight.
            let word = unsafe { self.start.cast::<u8>().add(offset + word * 4).cast::<u32>().read_volatile() };
            bytes.copy_from_slice(&word.to_ne_bytes()[..bytes.len()]);
        }
        true
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing borrowed from it is left. It cannot fail.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}
