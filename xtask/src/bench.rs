//! `cargo xtask bench`: builds what is measured and what measures, then lets the latter (`bench/`) run.
//!
//! That is a package of its own, so that the commands here stay quick to compile.

#[path = "../../bench/src/arguments.rs"]
mod arguments;

use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{build_ebpf, interrupt, process, setup};

pub use arguments::Arguments as Args;

const VNET: &str = "vnet";
const BENCHMARK: &str = "vnet-benchmark";

pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("the benchmark makes network namespaces and loads BPF programs: run it as root");
    }
    let toolchain = setup::for_running(workspace)?;
    build_ebpf::build(workspace, &toolchain)?;
    let binaries = ["--bin", VNET, "--bin", BENCHMARK];
    process::run(workspace.cargo().args(["build", "--workspace", "--release"]).args(binaries))?;

    // Ctrl-C is for the benchmark, which cleans up; this waits for it.
    interrupt::catch()?;
    let vnet = workspace.vnet_binary(true);
    let mut command = Command::new(vnet.with_file_name(BENCHMARK));
    command
        .args(args.words())
        .env("VNET_BIN", &vnet)
        .env("VNET_BENCH_OBJECT", workspace.bench_object())
        .env("VNET_LOG", "error");
    process::run(&mut command)
}
