//! `cargo xtask setup`: everything that building and testing need.

use anyhow::{Context, Result, bail};

use crate::toolchain::{BpfToolchain, Provider};
use crate::workspace::Workspace;
use crate::{coturn, packages, process, toolchain};

/// Install what building, testing and the demo need.
///
/// Looks for a compiler for the BPF target (rustup's nightly with rust-src,
/// else the distribution's rustc), for a bpf-linker with the same LLVM, and for
/// the programs that the tests and the demo run. What is missing is installed
/// with rustup, apt-get and cargo. Done in an instant when nothing is missing.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is missing; change nothing, and fail if anything is
    #[arg(long)]
    check: bool,

    /// Take this compiler for the BPF target, now and from now on
    #[arg(long, value_enum, value_name = "WHOSE", conflicts_with = "check")]
    compiler: Option<Provider>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        return check(workspace);
    }
    install_programs(workspace)?;
    let toolchain = match args.compiler {
        Some(provider) => toolchain::ensure_from(workspace, &[provider])?,
        None => toolchain::ensure(workspace)?,
    };
    println!("setup: ready; BPF programs are built by {toolchain}");
    Ok(())
}

/// What building takes.
pub fn for_building(workspace: &Workspace) -> Result<BpfToolchain> {
    toolchain::ensure(workspace)
}

/// What building, linting, the kernel tests and the demo take.
pub fn for_running(workspace: &Workspace) -> Result<BpfToolchain> {
    install_programs(workspace)?;
    toolchain::ensure(workspace)
}

fn install_programs(workspace: &Workspace) -> Result<()> {
    let missing = packages::missing();
    if !missing.is_empty() {
        packages::install_missing(&missing).with_context(|| format!("missing packages: {}", missing.join(" ")))?;
    }
    if !coturn::is_there(workspace) {
        coturn::unpack(workspace).context("the STUN judge of the NAT tests")?;
    }
    let components = missing_components(workspace);
    if !components.is_empty() {
        println!("setup: rustup component add {}", components.join(" "));
        process::run(std::process::Command::new("rustup").args(["component", "add"]).args(&components))?;
    }
    Ok(())
}

fn check(workspace: &Workspace) -> Result<()> {
    let mut missing = Vec::new();
    match toolchain::find(workspace) {
        Ok(found) => println!("setup: BPF programs are built by {found}"),
        Err(error) => missing.push(format!("{error:#}")),
    }
    let packages = packages::missing();
    if packages.is_empty() {
        println!("setup: the programs for tests and demo are installed");
    } else {
        missing.push(format!("packages {}", packages.join(" ")));
    }
    if !coturn::is_there(workspace) {
        missing.push("coturn (unpacked, not installed)".to_owned());
    }
    let components = missing_components(workspace);
    if !components.is_empty() {
        missing.push(format!("rustup components {}", components.join(" ")));
    }
    if !missing.is_empty() {
        bail!("missing: {}", missing.join("; "));
    }
    println!("setup: nothing is missing");
    Ok(())
}

/// The host toolchain's own checkers, which live next to its cargo.
fn missing_components(workspace: &Workspace) -> Vec<&'static str> {
    [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")]
        .into_iter()
        .filter(|(program, _)| {
            !process::is_executable(&workspace.cargo.with_file_name(program)) && process::which(program).is_none()
        })
        .map(|(_, component)| component)
        .collect()
}
