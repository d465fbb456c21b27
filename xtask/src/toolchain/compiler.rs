//! Who can provide a compiler that builds `core` for the BPF target.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::version::{self, LINKER_LLVM, RUSTC_MINIMUM};
use crate::workspace::{self, Workspace};
use crate::{packages, process};

const QUERY_LIMIT: Duration = Duration::from_secs(20);
/// Without a network rustup may wait for a long time before it gives up.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(45);

const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// Packages of a distribution that belong together.
struct PackageSet {
    compiler: &'static str,
    source: &'static str,
    clippy: &'static str,
}

/// The one that follows upstream (Debian keeps it for browsers) comes first.
const PACKAGE_SETS: &[PackageSet] = &[
    PackageSet { compiler: "rustc-web", source: "rust-web-src", clippy: "rust-web-clippy" },
    PackageSet { compiler: "rustc", source: "rust-src", clippy: "rust-clippy" },
];

/// A compiler, its library source and its clippy.
pub struct Compiler {
    pub label: String,
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub cargo_clippy: PathBuf,
    pub library: PathBuf,
    pub llvm: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Provider {
    /// rustup's nightly, with rust-src
    Nightly,
    /// The packages of Debian or Ubuntu
    Distribution,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "rustup's nightly",
            Self::Distribution => "the distribution's rustc",
        })
    }
}

impl Provider {
    pub const ALL: [Self; 2] = [Self::Nightly, Self::Distribution];

    /// The compiler as it is installed now.
    pub fn ready(self, workspace: &Workspace) -> Result<Compiler> {
        match self {
            Self::Nightly => {
                let rustc = nightly_rustc()?;
                let cargo = rustc.with_file_name("cargo");
                inspect(self, &rustc, cargo)
            }
            Self::Distribution => inspect(self, Path::new(DISTRIBUTION_RUSTC), workspace.cargo.clone()),
        }
    }

    /// The compiler after what it lacks was fetched.
    pub fn install(self, workspace: &Workspace) -> Result<Compiler> {
        match self {
            Self::Nightly => {
                nightly_rustc()?;
                let mut command = rustup();
                command.args(["component", "add", "rust-src", "clippy", "--toolchain", "nightly"]);
                let line = process::display(&command);
                println!("setup: {line}");
                // Rustup's own words about this are many.
                let added = process::capture(&mut command, DOWNLOAD_LIMIT)?;
                if !added.status.success() {
                    bail!("`{line}` fails (no network?)");
                }
            }
            Self::Distribution => {
                packages::refresh()?;
                let set = choose_packages()?;
                packages::install(&[set.compiler, set.source, set.clippy])?;
            }
        }
        self.ready(workspace)
    }
}

/// Looks at a compiler, and refuses it unless it is complete.
fn inspect(provider: Provider, rustc: &Path, cargo: PathBuf) -> Result<Compiler> {
    if !process::is_executable(rustc) {
        bail!("not installed");
    }
    let printed = ask(rustc, &["--version", "--verbose"])?;
    let version =
        version::parse_rustc(&printed).with_context(|| format!("`rustc --version --verbose` says {printed:?}"))?;
    let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?.trim());
    let source = sysroot.join("lib/rustlib/src/rust");
    let library = source.join("library");
    // The real compiler, should this be rustup's stand-in for it.
    let rustc = sysroot.join("bin/rustc");
    let cargo_clippy = sysroot.join("bin/cargo-clippy");

    if version.number < RUSTC_MINIMUM {
        let (major, minor) = RUSTC_MINIMUM;
        bail!("{} is older than {major}.{minor}", version.release);
    }
    if !library.join("core/src/lib.rs").is_file() {
        bail!("the library source (rust-src) is not installed");
    }
    if !matches_source(&source, &version.release) {
        bail!("the library source is of another version than the compiler ({})", version.release);
    }
    if !process::is_executable(&cargo_clippy) {
        bail!("clippy is not installed");
    }
    if !LINKER_LLVM.contains(&version.llvm) {
        bail!("no bpf-linker {} for LLVM {}", version::LINKER_VERSION, version.llvm);
    }
    Ok(Compiler {
        label: format!("{provider} {}", version.release),
        cargo,
        rustc,
        cargo_clippy,
        library,
        llvm: version.llvm,
    })
}

/// Distributions pack the source tarball, which carries its version; rustup's
/// component does not, and is kept in step by rustup.
fn matches_source(source: &Path, release: &str) -> bool {
    std::fs::read_to_string(source.join("src/version")).map_or(true, |version| version.trim() == release)
}

fn nightly_rustc() -> Result<PathBuf> {
    if process::which("rustup").is_none() {
        bail!("rustup is not installed");
    }
    let path = process::capture(rustup().args(["which", "--toolchain", "nightly", "rustc"]), QUERY_LIMIT)?
        .success("no nightly toolchain")?;
    Ok(PathBuf::from(path.trim()))
}

fn rustup() -> Command {
    let mut command = Command::new("rustup");
    workspace::forget_outer_cargo(&mut command);
    workspace::forget_outer_compiler(&mut command);
    // Asking for a toolchain must not begin to download it.
    command.env("RUSTUP_AUTO_INSTALL", "0").env("RUST_BACKTRACE", "0");
    command
}

fn ask(rustc: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(rustc);
    workspace::forget_outer_compiler(&mut command);
    process::capture(command.args(arguments), QUERY_LIMIT)?.success("rustc")
}

fn choose_packages() -> Result<&'static PackageSet> {
    let names: Vec<&str> = PACKAGE_SETS.iter().map(|set| set.compiler).collect();
    let known = packages::candidates(&names)?;
    PACKAGE_SETS
        .iter()
        .find(|set| {
            known.version(set.compiler).and_then(version::major_minor).is_some_and(|number| number >= RUSTC_MINIMUM)
        })
        .with_context(|| {
            let (major, minor) = RUSTC_MINIMUM;
            format!("no package of rustc {major}.{minor} or newer")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_not_there_is_not_installed() {
        let error = inspect(Provider::Distribution, Path::new("/nonexistent/rustc"), PathBuf::from("cargo"))
            .err()
            .expect("there is none");
        assert_eq!(error.to_string(), "not installed");
    }

    #[test]
    fn source_without_a_version_is_trusted_to_its_installer() {
        assert!(matches_source(Path::new("/nonexistent"), "1.97.0-nightly"));
    }
}
