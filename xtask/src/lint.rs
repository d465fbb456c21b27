//! `cargo xtask lint`: formatting, and clippy on both targets.

use anyhow::Result;

use crate::stages::Stages;
use crate::toolchain::BpfToolchain;
use crate::workspace::Workspace;
use crate::{build_ebpf, process, setup};

/// Check formatting, and run clippy for the host and for the BPF target.
///
/// Warnings are errors.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(workspace: &Workspace, _args: &Args) -> Result<()> {
    let mut stages = Stages::new("lint");
    let toolchain = stages.run("setup", || setup::for_running(workspace))?;
    run_stages(workspace, &toolchain, &mut stages)?;
    stages.finish();
    Ok(())
}

/// The quickest first. The host side embeds the BPF object, so that is built
/// before clippy compiles the host side.
pub fn run_stages(workspace: &Workspace, toolchain: &BpfToolchain, stages: &mut Stages) -> Result<()> {
    stages.run("format", || process::run(workspace.cargo().args(["fmt", "--all", "--check"])))?;
    stages.run("clippy for BPF", || build_ebpf::clippy(workspace, toolchain))?;
    stages.run("build BPF programs", || build_ebpf::build(workspace, toolchain))?;
    stages.run("clippy for the host", || {
        process::run(workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })
}
