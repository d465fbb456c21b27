//! bpf(2) commands that aya 0.14 has no call for: batches, values that hold atomics (aya's typed maps
//! want `Copy`), details of pinned links. The structures are the kernel's own, from `aya-obj`.
//!
//! All `unsafe` of the daemon's datapath side is in here.

mod link;
mod map;
mod netns;
mod ring;
mod view;

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

pub(super) use self::{
    link::{detach_link, link_cgroup, link_ifindex, update_link},
    map::{RawMap, Write},
    netns::netns_cookie,
    ring::awaited,
    view::View,
};

/// An attribute block with every field zero, as the kernel wants unused ones.
fn zeroed() -> bpf_attr {
    // SAFETY: a union of structures of integers; all zero is a value of each.
    unsafe { mem::zeroed() }
}

/// bpf(2).
///
/// # Safety
/// Every address in `attr` that `command` reads or writes must be valid for the length that goes with
/// it, until the call returns.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole attribute block of the size given; what it points to is the caller's word.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_uint, std::ptr::from_mut(attr), mem::size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}
