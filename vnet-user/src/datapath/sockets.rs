//! Programs on calls of the host's own sockets: one pinned link a kind of call, on one cgroup.
//!
//! All of them or none: a process must not be led to a guest and then be shown another address than the one
//! that it asked for. They see the calls of every process below the cgroup and let alone those of other
//! network namespaces. Where they cannot be, vnet goes on without, and says so once.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink};
use tracing::{info, warn};
use vnet_common::names::program;

use super::{
    CgroupChoice, DatapathError,
    cgroup::Cgroup,
    error::reason,
    load::SocketPrograms,
    pins::Pins,
    probe,
    sys::{link_cgroup, netns_cookie, update_link},
    tcx,
};

/// What goes missing where the programs cannot be.
const WITHOUT: &str = "forwards are not reached from the host itself";

/// Where the programs go, and whose calls they are for.
pub(super) struct SocketPlace {
    cgroup: Cgroup,
    /// Cookie of the network namespace.
    pub(super) netns: u64,
}

impl SocketPlace {
    /// `None`: the user, the host or the kernel has none.
    pub(super) fn find(choice: &CgroupChoice) -> Result<Option<Self>, DatapathError> {
        let cgroup = match choice {
            CgroupChoice::Off => return Ok(None),
            CgroupChoice::At(path) => Some(Cgroup::open(path)?),
            CgroupChoice::Auto => Cgroup::root()?,
        };
        let Some(cgroup) = cgroup else {
            info!("no cgroup v2 is mounted: {WITHOUT}");
            return Ok(None);
        };
        if let Some(lack) = probe::lack_of_socket_hooks()? {
            warn!("{lack}: {WITHOUT}");
            return Ok(None);
        }
        match netns_cookie() {
            Ok(netns) => Ok(Some(Self { cgroup, netns })),
            Err(error) => {
                warn!("this kernel does not name its network namespaces (Linux 5.14 does; {error}): {WITHOUT}");
                Ok(None)
            }
        }
    }

    /// True where the pinned link is there and on this cgroup.
    fn holds(&self, pin: &Path) -> Result<bool, DatapathError> {
        match link_cgroup(pin) {
            Ok(found) => Ok(found == Some(self.cgroup.id)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DatapathError::Adopt { path: pin.to_owned(), reason: error.to_string() }),
        }
    }
}

/// The programs and their place, where there is one.
pub(super) struct SocketHooks {
    links: PathBuf,
    place: Option<(SocketPlace, SocketPrograms)>,
    /// Attaching failed, and that was said.
    failed: bool,
}

impl SocketHooks {
    /// Takes over what is attached: its programs are replaced, and what is somewhere else is removed.
    pub(super) fn open(pins: &Pins, place: Option<(SocketPlace, SocketPrograms)>) -> Result<Self, DatapathError> {
        let mut hooks = Self { links: pins.links().to_owned(), place, failed: false };
        for name in program::SOCKETS {
            let pin = hooks.pin(name);
            match &mut hooks.place {
                Some((place, programs)) if place.holds(&pin)? => replace(programs.of(name)?, &pin)?,
                _ => tcx::remove(&pin)?,
            }
        }
        if hooks.is_attached() {
            info!("took over the programs on the host's sockets");
        } else {
            // Some may be left of a daemon that was killed while it attached them.
            hooks.detach()?;
        }
        Ok(hooks)
    }

    /// Attaches what is not attached yet. Where that cannot be it is logged, once, and done without.
    pub(super) fn attach(&mut self) -> Result<(), DatapathError> {
        if self.failed || self.place.is_none() {
            return Ok(());
        }
        for name in program::SOCKETS {
            if let Err(error) = self.attach_one(name) {
                warn!("{error}: {WITHOUT}");
                self.failed = true;
                return self.detach();
            }
        }
        Ok(())
    }

    fn attach_one(&mut self, name: &'static str) -> Result<(), DatapathError> {
        let pin = self.pin(name);
        let Some((place, programs)) = self.place.as_mut().filter(|_| !pin.exists()) else { return Ok(()) };
        let failed = |reason| DatapathError::AttachSockets { program: name, cgroup: place.cgroup.path.clone(), reason };
        let program = programs.of(name)?;
        // Links of cgroups share with other programs by themselves; "single" is the flag that says nothing more.
        let link = program
            .attach(&place.cgroup.directory, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|error| failed(reason(&error)))?;
        let link = FdLink::try_from(link).map_err(|error| failed(reason(&error)))?;
        link.pin(&pin).map(drop).map_err(|error| failed(reason(&error)))
    }

    pub(super) fn detach(&mut self) -> Result<(), DatapathError> {
        program::SOCKETS.iter().try_for_each(|name| tcx::remove(&self.pin(name)))
    }

    /// True where all are attached, whichever daemon attached them.
    pub(super) fn is_attached(&self) -> bool {
        program::SOCKETS.iter().all(|name| self.pin(name).exists())
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }
}

/// Puts `program` in the place of the one that runs on the pinned link now.
fn replace(program: &CgroupSockAddr, pin: &Path) -> Result<(), DatapathError> {
    let failed = |reason| DatapathError::Adopt { path: pin.to_owned(), reason };
    let program = program.fd().map_err(|error| failed(reason(&error)))?;
    update_link(pin, program).map_err(|error| failed(error.to_string()))
}
