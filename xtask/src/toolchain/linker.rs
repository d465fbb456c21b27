//! bpf-linker: one that fits the compiler's LLVM, found or installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::version::{self, LINKER_VERSION};
use crate::workspace::{self, Workspace};
use crate::{packages, process};

const PROGRAM: &str = "bpf-linker";
const QUERY_LIMIT: Duration = Duration::from_secs(20);

/// A recent bpf-linker that uses this LLVM: our own, or one in the `PATH`.
pub fn find(workspace: &Workspace, llvm: u32) -> Result<PathBuf> {
    candidates(workspace)
        .into_iter()
        .find(|linker| fits(linker, llvm))
        .map_or_else(|| bail!("no {PROGRAM} {LINKER_VERSION} for LLVM {llvm}"), Ok)
}

fn candidates(workspace: &Workspace) -> Vec<PathBuf> {
    let own = private_root(workspace).join("bin").join(PROGRAM);
    let mut all = vec![own];
    all.extend(process::which_all(PROGRAM));
    all.extend(cargo_home().map(|home| home.join("bin").join(PROGRAM)));
    all.retain(|file| process::is_executable(file));
    all
}

fn fits(linker: &Path, llvm: u32) -> bool {
    let says = |command: &mut Command| {
        process::capture(command, QUERY_LIMIT).and_then(|outcome| outcome.success(PROGRAM)).unwrap_or_default()
    };
    if !version::linker_is_recent(&says(Command::new(linker).arg("--version"))) {
        return false;
    }
    let own_llvm = version::llvm_of_libraries(&says(Command::new("ldd").arg(linker)))
        .or_else(|| version::llvm_of_bytes(&fs::read(linker).ok()?));
    own_llvm == Some(llvm)
}

/// Builds bpf-linker against the distribution's LLVM.
pub fn install(workspace: &Workspace, llvm: u32) -> Result<PathBuf> {
    let prefix = llvm_prefix(llvm)?;
    let mut command = Command::new(&workspace.cargo);
    workspace::forget_outer_cargo(&mut command);
    workspace::forget_outer_compiler(&mut command);
    command
        .env("LLVM_PREFIX", &prefix)
        .args(["install", PROGRAM, "--version", LINKER_VERSION])
        .args(["--locked", "--no-default-features"])
        .arg(format!("--features=llvm-{llvm}"));
    if in_cargo_home() {
        // One that does not fit us may fit its owner: leave it alone.
        command.arg("--root").arg(private_root(workspace));
    }
    println!("setup: LLVM_PREFIX={} {} (takes a minute or two)", prefix.display(), process::display(&command));
    process::run(&mut command)?;
    find(workspace, llvm)
}

/// Where LLVM with its headers is; installs it if the distribution has it.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(PathBuf::from(prefix));
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let config = prefix.join("bin/llvm-config");
    if !config.is_file() {
        packages::install(&[&format!("llvm-{llvm}-dev")])?;
    }
    if !config.is_file() {
        bail!("llvm-{llvm}-dev is installed but {} is not there", config.display());
    }
    Ok(prefix)
}

fn private_root(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools")
}

fn in_cargo_home() -> bool {
    cargo_home().is_some_and(|home| home.join("bin").join(PROGRAM).exists())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}
