//! The STUN server and the client that judge the NAT (RFC 5780): Debian's coturn, unpacked below
//! `target/` and never installed, because the package starts a TURN server on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{packages, process};

const PACKAGE: &str = "coturn";
const PROGRAMS: [&str; 2] = ["turnserver", "turnutils_natdiscovery"];
const UNPACK_LIMIT: Duration = Duration::from_secs(60);

/// Whether the tests will find both programs: installed by the user, or unpacked here.
pub fn is_there(workspace: &Workspace) -> bool {
    let unpacked = directory(workspace);
    PROGRAMS.iter().all(|program| {
        process::which(program).is_some() || process::is_executable(&unpacked.join("usr/bin").join(program))
    })
}

/// Downloads the package, with the libraries that this machine lacks, and unpacks them all.
pub fn unpack(workspace: &Workspace) -> Result<()> {
    let archives = workspace.target.join("coturn-archives");
    fs::create_dir_all(archives.join("partial")).with_context(|| format!("making {}", archives.display()))?;
    packages::download(PACKAGE, &archives)?;
    let fresh = workspace.target.join("coturn.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
    }
    fs::create_dir_all(&fresh)?;
    for archive in debian_archives(&archives)? {
        process::capture(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&fresh), UNPACK_LIMIT)?
            .success("dpkg-deb --extract")
            .with_context(|| archive.display().to_string())?;
    }
    // In place only when whole: what a broken run leaves is not taken for the real thing.
    let place = directory(workspace);
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    fs::rename(&fresh, &place)?;
    fs::remove_dir_all(&archives)?;
    if !is_there(workspace) {
        bail!("the package {PACKAGE} has not all of {}", PROGRAMS.join(", "));
    }
    println!("setup: {PACKAGE} is unpacked to {}", place.display());
    Ok(())
}

/// Where the tests look for it.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("coturn")
}

fn debian_archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    Ok(found)
}
