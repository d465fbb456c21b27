//! Attaching as pinned tcx links (kernel ≥ 6.6).
//!
//! A link is the attachment: it stands while its pin does, its program is replaced atomically
//! (`bpf_link_update`), and it dies with its device, where the pin stays behind.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
};

use super::{
    DatapathError, Hook,
    error::{os_error, reason},
    pins,
    sys::{detach_link, link_ifindex},
};

/// Attaches first in the chain (programs that others put before it later come before it) and pins.
pub(super) fn attach(
    program: &mut SchedClassifier,
    hook: Hook,
    ifindex: u32,
    device: &str,
    pin: &Path,
) -> Result<(), DatapathError> {
    let failed = |reason| DatapathError::Attach { hook, device: device.to_owned(), reason };
    let link = program
        .attach_with_options(device, hook.side(), TcAttachOptions::TcxOrder(LinkOrder::first()))
        .and_then(|id| take(program, id))
        .map_err(|error| failed(reason(&error)))?;
    link.pin(pin).map_err(|error| failed(reason(&error)))?;
    // The device was named: make sure that the name still meant this one.
    match link_ifindex(pin) {
        Ok(Some(found)) if found == ifindex => Ok(()),
        result => {
            remove(pin).map_err(|error| failed(reason(&error)))?;
            Err(match result {
                Ok(_) => DatapathError::DeviceChanged { device: device.to_owned(), ifindex },
                Err(error) => failed(error.to_string()),
            })
        }
    }
}

/// Puts `program` in the place of the one that runs on the pinned link now. False: the link is dead.
pub(super) fn replace(program: &mut SchedClassifier, pin: &Path) -> Result<bool, DatapathError> {
    let failed = |reason| DatapathError::Adopt { path: pin.to_owned(), reason };
    let link = open(pin).map_err(|error| failed(reason(&error)))?;
    match program.attach_to_link(link) {
        // What is taken here is one more handle of the pinned link; closing it changes nothing.
        Ok(id) => take(program, id).map(|_| true).map_err(|error| failed(reason(&error))),
        // tcx_link_update(): the device is gone.
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(failed(reason(&error))),
    }
}

/// True where the link is on a device, and on this one.
pub(super) fn is_on(pin: &Path, ifindex: u32) -> Result<bool, DatapathError> {
    match link_ifindex(pin) {
        Ok(found) => Ok(found == Some(ifindex)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DatapathError::Adopt { path: pin.to_owned(), reason: error.to_string() }),
    }
}

/// True where `program` runs on the device of this name, here: a link whose device went into another
/// namespace lives on there, maybe under the same index.
pub(super) fn runs_on(program: &SchedClassifier, hook: Hook, device: &str) -> Result<bool, DatapathError> {
    let failed = |error| DatapathError::Attach { hook, device: device.to_owned(), reason: reason(&error) };
    let own = program.info().map_err(failed)?.id();
    match SchedClassifier::query_tcx(device, hook.side()) {
        Ok((_, programs)) => Ok(programs.iter().any(|program| program.id() == own)),
        // Nothing at all is attached.
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Detaches and unpins, whether the device is there or not.
pub(super) fn remove(pin: &Path) -> Result<(), DatapathError> {
    match detach_link(pin) {
        Ok(()) => {}
        // Gone, or no link at all: nothing to detach.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOLINK | libc::EINVAL)) => {}
        Err(source) => return Err(DatapathError::Pins { action: "detach", path: pin.to_owned(), source }),
    }
    pins::remove(pin)
}

/// Takes the link out of the program, which would detach it when dropped.
fn take(program: &mut SchedClassifier, id: SchedClassifierLinkId) -> Result<FdLink, ProgramError> {
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

fn open(pin: &Path) -> Result<SchedClassifierLink, LinkError> {
    FdLink::from(PinnedLink::from_pin(pin)?).try_into()
}
