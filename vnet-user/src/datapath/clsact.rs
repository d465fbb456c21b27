//! Attaching as cls_bpf filters of a clsact qdisc, where the kernel has no tcx (before 6.6).
//!
//! A filter belongs to its device and needs no pin: it stays when the daemon goes. What was attached is
//! remembered by marks, empty directories beside the pins. Ours is the filter at [`PRIORITY`] and
//! [`HANDLE`]; replacing it there is atomic (`cls_bpf_change()` swaps it in one list).

use std::path::{Path, PathBuf};

use aya::programs::{
    Link, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::net::if_::if_indextoname;

use super::{
    DatapathError, Hook,
    error::{os_error, reason},
    pins,
    qdisc::{Filters, delete_clsact, is_clsact},
};

/// First in the chain.
const PRIORITY: u16 = 1;
/// "vn".
const HANDLE: TcHandle = TcHandle::new(0, 0x766e);

/// Attaches, or replaces what was attached. The mark is made first: what it stands for may be missing, but
/// nothing of ours is ever without one.
pub(super) fn attach(
    program: &mut SchedClassifier,
    hook: Hook,
    ifindex: u32,
    device: &str,
    mark: &Path,
) -> Result<(), DatapathError> {
    let failed = |reason| DatapathError::Attach { hook, device: device.to_owned(), reason };
    match qdisc_add_clsact(device) {
        Ok(()) => pins::mark(&qdisc_mark(mark, ifindex))?,
        Err(error) if netlink_error(&error) == Some(libc::EEXIST) => {
            if !is_clsact(ifindex).map_err(|error| failed(reason(&error)))? {
                // It would take filters for egress too, and run them at ingress.
                let why =
                    format!("it has an ingress qdisc in the place of clsact: 'tc qdisc del dev {device} ingress'");
                return Err(failed(why));
            }
            if !Use::of(ifindex).by_us {
                // Whoever made it, it was not we: a mark is from a qdisc or a device before this one.
                pins::remove(&qdisc_mark(mark, ifindex))?;
            }
        }
        Err(error) => return Err(failed(reason(&error))),
    }
    pins::mark(mark)?;
    if replace(program, hook, device).map_err(|error| failed(reason(&error)))? {
        return Ok(());
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let attached = program
        .attach_with_options(device, hook.side(), TcAttachOptions::Netlink(options))
        .and_then(|id| program.take_link(id));
    match attached {
        Ok(link) => {
            leave_attached(link);
            Ok(())
        }
        Err(error) => {
            pins::remove(mark)?;
            Err(failed(reason(&error)))
        }
    }
}

/// Puts `program` in the place of the one that our filter runs now. False: there is no such filter.
pub(super) fn adopt(
    program: &mut SchedClassifier,
    hook: Hook,
    ifindex: u32,
    mark: &Path,
) -> Result<bool, DatapathError> {
    let Some(device) = name_of(ifindex) else { return Ok(false) };
    let replaced = replace(program, hook, &device);
    replaced.map_err(|error| DatapathError::Adopt { path: mark.to_owned(), reason: reason(&error) })
}

/// True where our filter is there.
pub(super) fn is_on(hook: Hook, ifindex: u32) -> bool {
    Filters::of(ifindex, hook.side()).is_ok_and(|filters| filters.holds(PRIORITY, HANDLE.into()))
}

/// Removes our filter, and the qdisc where we made it and nobody else uses it.
pub(super) fn detach(hook: Hook, ifindex: u32, mark: &Path) -> Result<(), DatapathError> {
    let failed = |reason| DatapathError::Detach { hook, ifindex, reason };
    let qdisc_mark = qdisc_mark(mark, ifindex);
    if let Some(device) = name_of(ifindex) {
        remove_filter(hook, &device).map_err(|error| failed(reason(&error)))?;
        let left = Use::of(ifindex);
        if qdisc_mark.is_dir() && !left.by_us && !left.by_others {
            delete_clsact(ifindex).map_err(|error| failed(reason(&error)))?;
        }
        if !left.by_us {
            // Gone, or somebody else's from now on.
            pins::remove(&qdisc_mark)?;
        }
    } else {
        pins::remove(&qdisc_mark)?;
    }
    pins::remove(mark)
}

/// Where it is remembered that the qdisc is ours.
fn qdisc_mark(mark: &Path, ifindex: u32) -> PathBuf {
    mark.with_file_name(format!("clsact-{ifindex}"))
}

/// Whose filters hang in a device's qdisc.
struct Use {
    by_us: bool,
    by_others: bool,
}

impl Use {
    /// Where it cannot be told, somebody else's do: then the qdisc is left alone.
    fn of(ifindex: u32) -> Self {
        let mut found = Self { by_us: false, by_others: false };
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            match Filters::of(ifindex, side) {
                Ok(filters) => {
                    found.by_us |= filters.holds(PRIORITY, HANDLE.into());
                    found.by_others |= filters.holds_others(PRIORITY, HANDLE.into());
                }
                Err(_) => found.by_others = true,
            }
        }
        found
    }
}

fn replace(program: &mut SchedClassifier, hook: Hook, device: &str) -> Result<bool, ProgramError> {
    let ours = SchedClassifierLink::attached(device, hook.side(), PRIORITY, HANDLE, None)?;
    match program.attach_to_link(ours).and_then(|id| program.take_link(id)) {
        Ok(link) => {
            leave_attached(link);
            Ok(true)
        }
        // No filter there, or no qdisc for one.
        Err(error) if matches!(netlink_error(&error), Some(libc::ENOENT | libc::EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_filter(hook: Hook, device: &str) -> Result<(), ProgramError> {
    let ours = SchedClassifierLink::attached(device, hook.side(), PRIORITY, HANDLE, None)?;
    match ours.detach() {
        Err(error) if matches!(netlink_error(&error), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// Lets go of a link without detaching it, which its `drop` would do. It owns nothing: no memory, no
/// descriptor.
fn leave_attached(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// The device's name now; `None` where there is no such device.
fn name_of(ifindex: u32) -> Option<String> {
    // nix 0.31 compares the null that means failure with -1, and returns an empty name.
    if_indextoname(ifindex).ok()?.into_string().ok().filter(|name| !name.is_empty())
}

/// The error number in a netlink answer: aya's transparent wrappers hide it from `source()`.
fn netlink_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let netlink = match (error.downcast_ref::<TcError>(), error.downcast_ref::<ProgramError>()) {
        (Some(TcError::NetlinkError(error)), _)
        | (_, Some(ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)))) => error,
        _ => return os_error(error),
    };
    netlink.raw_os_error()
}
