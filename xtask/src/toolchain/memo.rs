//! The toolchain of the last run, in `target/bpf/toolchain`. It is believed
//! while its programs have the same size and time of change, so that no
//! command starts by running compilers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::BpfToolchain;
use crate::workspace::Workspace;

pub fn recall(workspace: &Workspace) -> Option<BpfToolchain> {
    let text = fs::read_to_string(file(workspace)).ok()?;
    let (toolchain, stamp) = parse(&text)?;
    let holds = stamp == self::stamp(&toolchain)?
        && toolchain.cargo_clippy.is_file()
        && toolchain.cargo.is_file()
        && toolchain.library.join("core/src/lib.rs").is_file();
    holds.then_some(toolchain)
}

pub fn remember(workspace: &Workspace, toolchain: &BpfToolchain) -> Result<()> {
    let file = file(workspace);
    let stamp = stamp(toolchain).context("the BPF toolchain vanished while it was looked at")?;
    fs::create_dir_all(workspace.target.join("bpf"))
        .and_then(|()| fs::write(&file, print(toolchain, &stamp)))
        .with_context(|| format!("{} cannot be written", file.display()))
}

fn file(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf/toolchain")
}

fn stamp(toolchain: &BpfToolchain) -> Option<String> {
    let of = |path: &Path| {
        let data = path.metadata().ok()?;
        Some(format!("{}:{}.{}", data.size(), data.mtime(), data.mtime_nsec()))
    };
    Some(format!("{} {}", of(&toolchain.rustc)?, of(&toolchain.linker)?))
}

fn print(toolchain: &BpfToolchain, stamp: &str) -> String {
    format!(
        "label={}\ncargo={}\nrustc={}\ncargo-clippy={}\nlibrary={}\nllvm={}\nlinker={}\nstamp={stamp}\n",
        toolchain.label,
        toolchain.cargo.display(),
        toolchain.rustc.display(),
        toolchain.cargo_clippy.display(),
        toolchain.library.display(),
        toolchain.llvm,
        toolchain.linker.display(),
    )
}

fn parse(text: &str) -> Option<(BpfToolchain, String)> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name: &str| fields.get(name).map(|value| (*value).to_owned());
    let path = |name: &str| field(name).map(PathBuf::from);
    let toolchain = BpfToolchain {
        label: field("label")?,
        cargo: path("cargo")?,
        rustc: path("rustc")?,
        cargo_clippy: path("cargo-clippy")?,
        library: path("library")?,
        llvm: field("llvm")?.parse().ok()?,
        linker: path("linker")?,
    };
    Some((toolchain, field("stamp")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BpfToolchain {
        BpfToolchain {
            label: "the distribution's rustc 1.96.0".into(),
            cargo: "/c/cargo".into(),
            rustc: "/usr/bin/rustc".into(),
            cargo_clippy: "/usr/bin/cargo-clippy".into(),
            library: "/usr/lib/rustlib/src/rust/library".into(),
            llvm: 22,
            linker: "/c/bpf-linker".into(),
        }
    }

    #[test]
    fn what_is_remembered_is_recalled() {
        let text = print(&example(), "1:2.3 4:5.6");
        assert_eq!(parse(&text), Some((example(), "1:2.3 4:5.6".into())));
    }

    #[test]
    fn a_damaged_memory_is_no_memory() {
        let whole = print(&example(), "1:2.3 4:5.6");
        let half = whole.split("llvm=").next().unwrap_or_default();
        assert_eq!(parse(half), None);
        assert_eq!(parse(&whole.replace("llvm=22", "llvm=new")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn programs_that_are_gone_have_no_stamp() {
        assert_eq!(stamp(&example()), None);
    }
}
