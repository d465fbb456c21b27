//! `cargo xtask build-ebpf`: the object with all BPF programs, and the benchmark's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::toolchain::BpfToolchain;
use crate::workspace::{self, Workspace};
use crate::{process, setup};

/// Build the BPF programs into target/bpf/vnet.bpf.o, the benchmark's into bench.bpf.o.
///
/// The `vnet` binary embeds the former. An object's time of change moves only when
/// its bytes do, so that nothing is rebuilt for nothing.
#[derive(clap::Args)]
pub struct Args {}

const PACKAGE: &str = "vnet-ebpf";
/// Its programs.
const DATAPATH: &str = "vnet-ebpf";
const BENCHMARK: &str = "vnet-bench";
const PROFILE: &str = "bpf";

#[cfg(target_endian = "little")]
const TARGET: &str = "bpfel-unknown-none";
#[cfg(target_endian = "big")]
const TARGET: &str = "bpfeb-unknown-none";

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

pub fn run(workspace: &Workspace, _args: &Args) -> Result<()> {
    let toolchain = setup::for_building(workspace)?;
    build(workspace, &toolchain)
}

pub fn build(workspace: &Workspace, toolchain: &BpfToolchain) -> Result<()> {
    let mut command = cargo(workspace, toolchain, &toolchain.cargo);
    command.arg("build");
    command.args(selection(workspace));
    process::run(&mut command)?;
    publish(workspace, DATAPATH, &workspace.bpf_object())?;
    publish(workspace, BENCHMARK, &workspace.bench_object())
}

/// Puts what cargo built to where everyone looks for it.
fn publish(workspace: &Workspace, program: &str, object: &Path) -> Result<()> {
    let built = build_dir(workspace).join(TARGET).join(PROFILE).join(program);
    let bytes = fs::read(&built).with_context(|| format!("{} cannot be read", built.display()))?;
    if !is_bpf_object(&bytes) {
        bail!("{} is not a BPF object", built.display());
    }
    if replace_if_changed(object, &bytes)? {
        let name = workspace::short(workspace, object).display();
        println!("build-ebpf: {name} is new ({} KiB)", bytes.len() / 1024);
    }
    Ok(())
}

/// Clippy over the BPF programs as the BPF target sees them.
pub fn clippy(workspace: &Workspace, toolchain: &BpfToolchain) -> Result<()> {
    let mut command = cargo(workspace, toolchain, &toolchain.cargo_clippy);
    command.arg("clippy");
    command.args(selection(workspace));
    command.args(["--", "-D", "warnings"]);
    process::run(&mut command)
}

/// `program` (cargo, or cargo-clippy) under the BPF toolchain and no other.
fn cargo(workspace: &Workspace, toolchain: &BpfToolchain, program: &Path) -> Command {
    let mut command = Command::new(program);
    workspace::forget_outer_cargo(&mut command);
    workspace::forget_outer_compiler(&mut command);
    command
        .current_dir(&workspace.root)
        .env("CARGO", &toolchain.cargo)
        .env("RUSTC", &toolchain.rustc)
        // Empty: also override a wrapper from the user's cargo configuration.
        .env("RUSTC_WRAPPER", "")
        // Unstable flags (build-std) from a compiler of any channel.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.linker, std::env::consts::ARCH));
    command
}

fn selection(workspace: &Workspace) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--package",
        PACKAGE,
        "--bin",
        DATAPATH,
        "--bin",
        BENCHMARK,
        "--profile",
        PROFILE,
        "--target",
        TARGET,
        "-Z",
        "build-std=core",
        "--target-dir",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(build_dir(workspace).display().to_string());
    arguments
}

/// Apart from the host's, whose lock the outer cargo may hold.
fn build_dir(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target.join("bpf-build")
}

fn rustflags(linker: &Path, host_arch: &str) -> String {
    [
        // Which kernel's registers and headers the programs meet.
        format!("--cfg=bpf_target_arch=\"{host_arch}\""),
        format!("-Clinker={}", linker.display()),
        // Debug information is what BTF is made of.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Fetching atomics and 32-bit jumps: kernel 5.12.
        "-Ctarget-cpu=v3".to_owned(),
    ]
    .join(SEPARATOR)
}

/// An ELF file for the BPF machine.
fn is_bpf_object(bytes: &[u8]) -> bool {
    const MACHINE: std::ops::Range<usize> = 18..20;
    const EM_BPF: u16 = 247;
    bytes.starts_with(b"\x7fELF")
        && bytes.get(MACHINE).and_then(|field| field.try_into().ok()).map(u16::from_ne_bytes) == Some(EM_BPF)
}

/// Whether the file had to be written.
fn replace_if_changed(file: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let parent = file.parent().context("the object has no directory")?;
    let fresh = file.with_extension("new");
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&fresh, bytes))
        .and_then(|()| fs::rename(&fresh, file))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_name_the_linker_and_ask_for_btf() {
        let flags = rustflags(Path::new("/t/bpf-linker"), "x86_64");
        let flags: Vec<&str> = flags.split(SEPARATOR).collect();
        for flag in [
            "--cfg=bpf_target_arch=\"x86_64\"",
            "-Clinker=/t/bpf-linker",
            "-Clink-arg=--btf",
            "-Cdebuginfo=2",
            "-Ctarget-cpu=v3",
        ] {
            assert!(flags.contains(&flag), "{flag}");
        }
    }

    #[test]
    fn only_an_elf_file_for_bpf_is_an_object() {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(18, 0);
        header.extend(247_u16.to_ne_bytes());
        assert!(is_bpf_object(&header));
        assert!(!is_bpf_object(header.get(..19).unwrap_or_default()));
        assert!(!is_bpf_object(b""));
        if let Some(machine) = header.get_mut(18) {
            *machine = 62;
        }
        assert!(!is_bpf_object(&header));
    }

    #[test]
    fn an_unchanged_object_is_not_touched() {
        let dir = std::env::temp_dir().join(format!("xtask-object-{}", std::process::id()));
        let file = dir.join("bpf/vnet.bpf.o");
        assert!(replace_if_changed(&file, b"one").expect("written"));
        let first = fs::metadata(&file).and_then(|data| data.modified());
        assert!(!replace_if_changed(&file, b"one").expect("compared"));
        let second = fs::metadata(&file).and_then(|data| data.modified());
        assert_eq!(first.expect("a time"), second.expect("a time"));
        assert!(replace_if_changed(&file, b"two").expect("written"));
        assert_eq!(fs::read(&file).expect("read"), b"two");
        fs::remove_dir_all(dir).expect("removed");
    }
}
