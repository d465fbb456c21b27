//! What is attached where: one entry a hook and device in the links' directory, a pinned tcx link (a
//! file) or the mark of a clsact filter (a directory).
//!
//! The directory is the only memory, so that a new daemon knows what an old one left. Each entry says how
//! it was attached; the backend only decides how the next ones are.

use std::{env, path::PathBuf};

use nix::net::if_::if_nametoindex;
use tracing::{debug, info, warn};

use super::{DatapathError, Hook, clsact, load::HookPrograms, pins, pins::Pins, probe, tcx};

/// How programs are attached at tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcBackend {
    /// Pinned links, kernel ≥ 6.6.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

impl TcBackend {
    /// Overrides what the kernel would take, for tests: `tcx` or `clsact`.
    pub const VARIABLE: &str = "VNET_TC";

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    pub(super) fn detect() -> Result<Self, DatapathError> {
        let word = env::var(Self::VARIABLE).unwrap_or_default();
        match word.as_str() {
            "" if probe::has_tcx() => Ok(Self::Tcx),
            "" | "clsact" => Ok(Self::Clsact),
            "tcx" => Ok(Self::Tcx),
            _ => Err(DatapathError::BadBackend { variable: Self::VARIABLE, value: word }),
        }
    }
}

/// The links' directory, the programs that go there, and how.
pub(super) struct Attachments {
    pub(super) backend: TcBackend,
    directory: PathBuf,
    programs: HookPrograms,
}

impl Attachments {
    /// Takes over what is attached: its programs are replaced by `programs`, what is dead is removed.
    pub(super) fn open(pins: &Pins, programs: HookPrograms) -> Result<Self, DatapathError> {
        let directory = pins.links().to_owned();
        let mut attachments = Self { backend: TcBackend::detect()?, directory, programs };
        for (ifindex, hook) in attachments.entries()? {
            let path = attachments.path(ifindex, hook);
            if attachments.adopt(ifindex, hook)? {
                info!("took over {hook} on device {ifindex}");
            } else {
                debug!("{} is dead: its device is gone", path.display());
                attachments.remove(ifindex, hook)?;
            }
        }
        Ok(attachments)
    }

    pub(super) fn attach(&mut self, ifindex: u32, device: &str, hook: Hook) -> Result<(), DatapathError> {
        if if_nametoindex(device) != Ok(ifindex) {
            return Err(DatapathError::DeviceChanged { device: device.to_owned(), ifindex });
        }
        let path = self.path(ifindex, hook);
        if path.exists() {
            if self.adopt(ifindex, hook)? && (path.is_dir() || tcx::runs_on(self.programs.of(hook), hook, device)?) {
                return Ok(());
            }
            // Left by a device that had this index before.
            self.remove(ifindex, hook)?;
        }
        let program = self.programs.of(hook);
        match self.backend {
            TcBackend::Tcx => tcx::attach(program, hook, ifindex, device, &path),
            TcBackend::Clsact => clsact::attach(program, hook, ifindex, device, &path),
        }
    }

    /// Detaches; what is not attached, or whose device is gone, is as good as detached.
    pub(super) fn remove(&mut self, ifindex: u32, hook: Hook) -> Result<(), DatapathError> {
        let path = self.path(ifindex, hook);
        if path.is_dir() { clsact::detach(hook, ifindex, &path) } else { tcx::remove(&path) }
    }

    /// What is attached, on devices that are there.
    pub(super) fn list(&self) -> Vec<(u32, Hook)> {
        let mut entries = self.entries().unwrap_or_else(|error| {
            warn!("{error}");
            Vec::new()
        });
        entries.retain(|(ifindex, hook)| {
            let path = self.path(*ifindex, *hook);
            if path.is_dir() { clsact::is_on(*hook, *ifindex) } else { tcx::is_on(&path, *ifindex).unwrap_or(true) }
        });
        entries
    }

    /// Puts this build's program in place. False: nothing lives there.
    fn adopt(&mut self, ifindex: u32, hook: Hook) -> Result<bool, DatapathError> {
        let path = self.path(ifindex, hook);
        let program = self.programs.of(hook);
        if path.is_dir() {
            return clsact::adopt(program, hook, ifindex, &path);
        }
        Ok(tcx::is_on(&path, ifindex)? && tcx::replace(program, &path)?)
    }

    fn entries(&self) -> Result<Vec<(u32, Hook)>, DatapathError> {
        Ok(pins::names(&self.directory)?.iter().filter_map(|name| parse(name)).collect())
    }

    fn path(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.directory.join(format!("{hook}-{ifindex}"))
    }
}

/// A pin's name taken apart.
fn parse(name: &str) -> Option<(u32, Hook)> {
    let (hook, ifindex) = name.rsplit_once('-')?;
    let hook = Hook::ALL.into_iter().find(|known| known.program() == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_named_after_hook_and_device() {
        for hook in Hook::ALL {
            assert_eq!(parse(&format!("{hook}-42")), Some((42, hook)));
        }
        for foreign in ["clsact-42", "port_ingress", "port_ingress-", "port_ingress-x", "42"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
