//! The compiler and linker for the BPF target.
//!
//! `bpfel-unknown-none` has no prebuilt `core`, so it takes a compiler, the
//! library source of exactly that compiler, and a bpf-linker built against the
//! same LLVM. Either rustup's nightly or the distribution's compiler will do.
//! What was found is remembered, and believed while the files stay the same.

mod compiler;
mod linker;
mod memo;
mod version;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, anyhow};

use crate::workspace::Workspace;
use compiler::Compiler;
pub use compiler::Provider;

/// The programs that build for the BPF target, known to fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfToolchain {
    /// For people: which compiler this is.
    pub label: String,
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub cargo_clippy: PathBuf,
    /// `library/` of the standard library's source.
    pub library: PathBuf,
    /// LLVM's major version, of compiler and linker alike.
    pub llvm: u32,
    pub linker: PathBuf,
}

impl BpfToolchain {
    fn new(compiler: Compiler, linker: PathBuf) -> Self {
        Self {
            label: compiler.label,
            cargo: compiler.cargo,
            rustc: compiler.rustc,
            cargo_clippy: compiler.cargo_clippy,
            library: compiler.library,
            llvm: compiler.llvm,
            linker,
        }
    }
}

impl fmt::Display for BpfToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with LLVM {}, {}", self.label, self.llvm, self.linker.display())
    }
}

/// What is installed already; installs nothing.
pub fn find(workspace: &Workspace) -> Result<BpfToolchain> {
    if let Some(known) = memo::recall(workspace) {
        return Ok(known);
    }
    let mut reasons = Vec::new();
    for provider in Provider::ALL {
        let ready = provider.ready(workspace).and_then(|compiler| {
            let linker = linker::find(workspace, compiler.llvm)?;
            Ok(BpfToolchain::new(compiler, linker))
        });
        match ready {
            Ok(toolchain) => {
                memo::remember(workspace, &toolchain)?;
                return Ok(toolchain);
            }
            Err(error) => reasons.push(format!("{provider}: {error:#}")),
        }
    }
    Err(none_found(&reasons))
}

/// What is installed already, else what can be installed.
pub fn ensure(workspace: &Workspace) -> Result<BpfToolchain> {
    match memo::recall(workspace) {
        Some(known) => Ok(known),
        None => ensure_from(workspace, &Provider::ALL),
    }
}

/// The same from these providers alone, whatever was used before. A compiler
/// that is there is preferred to one that has to be fetched.
pub fn ensure_from(workspace: &Workspace, providers: &[Provider]) -> Result<BpfToolchain> {
    println!("setup: looking for a compiler and linker for the BPF target");
    let mut reasons = Vec::new();
    let mut incomplete = Vec::new();
    for provider in providers {
        let Ok(compiler) = provider.ready(workspace) else {
            incomplete.push(provider);
            continue;
        };
        match complete(workspace, compiler) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => reasons.push(format!("{provider}: {error:#}")),
        }
    }
    for provider in incomplete {
        let installed = provider.install(workspace).and_then(|compiler| complete(workspace, compiler));
        match installed {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => {
                println!("setup: {provider} will not do: {error:#}");
                reasons.push(format!("{provider}: {error:#}"));
            }
        }
    }
    Err(none_found(&reasons))
}

/// Adds the linker to a compiler, installing it if need be.
fn complete(workspace: &Workspace, compiler: Compiler) -> Result<BpfToolchain> {
    let linker = linker::find(workspace, compiler.llvm).or_else(|_| linker::install(workspace, compiler.llvm))?;
    let toolchain = BpfToolchain::new(compiler, linker);
    println!("setup: BPF programs are built by {toolchain}");
    memo::remember(workspace, &toolchain)?;
    Ok(toolchain)
}

fn none_found(reasons: &[String]) -> anyhow::Error {
    anyhow!(
        "no compiler and linker for the BPF target ({}); with a network, \
         `rustup toolchain install nightly --component rust-src,clippy` and `cargo xtask setup` help",
        reasons.join("; ")
    )
}
