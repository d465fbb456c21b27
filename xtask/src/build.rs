//! `cargo xtask build`: the `vnet` binary, BPF programs included.

use anyhow::Result;

use crate::workspace::{self, Workspace};
use crate::{build_ebpf, process, setup};

/// Build the BPF programs and the `vnet` binary.
#[derive(clap::Args)]
pub struct Args {
    /// Optimise the binary (the BPF programs always are)
    #[arg(long)]
    release: bool,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let toolchain = setup::for_building(workspace)?;
    build_ebpf::build(workspace, &toolchain)?;
    vnet(workspace, args.release)?;
    let binary = workspace.vnet_binary(args.release);
    println!("build: {} is ready", workspace::short(workspace, &binary).display());
    Ok(())
}

/// The binary alone, from the BPF object that is there. The whole workspace is
/// selected, as everywhere here: what is compiled depends on the selection, and
/// one selection shares its results with the tests.
pub fn vnet(workspace: &Workspace, release: bool) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--workspace", "--bin", "vnet"]);
    if release {
        command.arg("--release");
    }
    process::run(&mut command)
}
