//! Pinned links: which device they are on, and detaching at once.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::{bpf_cmd, bpf_link_info, bpf_link_type};

use super::{bpf, number, zeroed};

/// The device that the tcx link pinned at `path` is on. `None`: the device is gone, the link is dead
/// (the kernel detaches it then, `tcx_uninstall()`, but the pin stays).
pub(crate) fn link_ifindex(path: &Path) -> io::Result<Option<u32>> {
    let link = open(path)?;
    // SAFETY: structures and unions of integers; all zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = number(link.as_fd());
    attr.info.info_len = mem::size_of::<bpf_link_info>() as u32;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    // SAFETY: `info` is as long as `info_len` says and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a tcx link"));
    }
    // SAFETY: the type says which of the union's members the kernel filled; both of its fields are integers.
    let ifindex = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok((ifindex != 0).then_some(ifindex))
}

/// Detaches the link pinned at `path`, now: removing the pin alone takes effect some time later (the
/// inode is freed after an RCU grace period). The pin is left to the caller.
pub(crate) fn detach_link(path: &Path) -> io::Result<()> {
    let link = open(path)?;
    let mut attr = zeroed();
    attr.link_detach.link_fd = number(link.as_fd());
    // SAFETY: no addresses in this command.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr)? };
    Ok(())
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = name.as_ptr() as u64;
    // SAFETY: `name` is a C string that outlives the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)? };
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: a successful BPF_OBJ_GET returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
