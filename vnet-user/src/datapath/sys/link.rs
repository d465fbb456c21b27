//! Pinned links: where they are, another program for them, and detaching at once.

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
    let info = info(path)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a tcx link"));
    }
    // SAFETY: the type says which of the union's members the kernel filled; both of its fields are integers.
    let ifindex = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok((ifindex != 0).then_some(ifindex))
}

/// The cgroup, by its id, that the link pinned at `path` is on. `None`: the cgroup is gone, the link is dead.
pub(crate) fn link_cgroup(path: &Path) -> io::Result<Option<u64>> {
    let info = info(path)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a link on a cgroup"));
    }
    // SAFETY: as above.
    let id = unsafe { info.__bindgen_anon_1.cgroup.cgroup_id };
    Ok((id != 0).then_some(id))
}

/// Puts `program` in the place of the one that runs on the link pinned at `path`, atomically.
pub(crate) fn update_link(path: &Path, program: impl AsFd) -> io::Result<()> {
    let link = open(path)?;
    let mut attr = zeroed();
    attr.link_update.link_fd = number(link.as_fd());
    attr.link_update.__bindgen_anon_1.new_prog_fd = number(program.as_fd());
    // SAFETY: no addresses in this command.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr)? };
    Ok(())
}

fn info(path: &Path) -> io::Result<bpf_link_info> {
    let link = open(path)?;
    // SAFETY: structures and unions of integers; all zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = number(link.as_fd());
    attr.info.info_len = mem::size_of::<bpf_link_info>() as u32;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    // SAFETY: `info` is as long as `info_len` says and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
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
