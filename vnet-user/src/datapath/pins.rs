//! The pin directory: where maps and links outlive the daemon.
//!
//! `<pin_dir>/v<ABI_VERSION>/` holds the maps under their own names, `links/` beside them what is
//! attached. Layouts of another version are in another directory and are never mixed with this one's.
//! Nothing is locked here: one daemon a directory is seen to by whoever owns the state.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tracing::{info, warn};
use vnet_common::ABI_VERSION;

use super::DatapathError;

/// Where every distribution mounts it.
const USUAL_MOUNT: &str = "/sys/fs/bpf";

/// The directories, made and on a bpffs.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    maps: PathBuf,
    links: PathBuf,
}

impl Pins {
    pub(super) fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        let failed = |action| move |source| DatapathError::Pins { action, path: pin_dir.to_owned(), source };
        let pin_dir = std::path::absolute(pin_dir).map_err(failed("find"))?;
        if !is_bpffs(&pin_dir)? {
            mount_bpffs(&pin_dir)?;
        }
        let maps = pin_dir.join(format!("v{ABI_VERSION}"));
        let links = maps.join("links");
        make_directory(&links)?;
        warn_of_other_versions(&pin_dir, &maps);
        Ok(Self { maps, links })
    }

    pub(super) fn maps(&self) -> &Path {
        &self.maps
    }

    pub(super) fn links(&self) -> &Path {
        &self.links
    }
}

/// True where `path`, or the nearest directory above it that is there, is on a bpffs.
fn is_bpffs(path: &Path) -> Result<bool, DatapathError> {
    let failed = |source| DatapathError::Pins { action: "look at", path: path.to_owned(), source };
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let statistics = statfs(there).map_err(|error| failed(error.into()))?;
    Ok(statistics.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(pin_dir: &Path) -> Result<(), DatapathError> {
    let usual = Path::new(USUAL_MOUNT);
    let target = if pin_dir.starts_with(usual) { usual } else { pin_dir };
    if target != usual {
        make_directory(target)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), target, Some("bpf"), flags, Some("mode=0700")).map_err(|error| DatapathError::Pins {
        action: "mount a bpffs on",
        path: target.to_owned(),
        source: error.into(),
    })?;
    info!("mounted a bpffs on {}", target.display());
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), DatapathError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DatapathError::Pins { action: "make", path: path.to_owned(), source })
}

fn warn_of_other_versions(pin_dir: &Path, own: &Path) {
    for entry in fs::read_dir(pin_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != own && path.join("links").is_dir() {
            warn!(
                "{} holds the datapath of another vnet version, which stays attached beside this one",
                path.display()
            );
        }
    }
}

/// The names in `directory`.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let failed = |source| DatapathError::Pins { action: "read", path: directory.to_owned(), source };
    let entries = fs::read_dir(directory).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(failed)
}

/// Removes a pin (a file) or a mark (a directory); one that is gone is as good as removed.
pub(super) fn remove(path: &Path) -> Result<(), DatapathError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| DatapathError::Pins { action: "remove", path: path.to_owned(), source }),
    }
}

/// Makes a mark: an empty directory, the one thing beside BPF objects that a bpffs holds.
pub(super) fn mark(path: &Path) -> Result<(), DatapathError> {
    make_directory(path)
}
