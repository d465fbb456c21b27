//! Where things are in this checkout, and how cargo is called in it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout that this run works on.
pub struct Workspace {
    pub root: PathBuf,
    /// `target/`, or `CARGO_TARGET_DIR` made absolute.
    pub target: PathBuf,
    /// The very cargo that started this run, not a rustup proxy.
    pub cargo: PathBuf,
}

impl Workspace {
    pub fn locate() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .context("run this as `cargo xtask` inside the checkout")?;
        let root = package.parent().context("the xtask package has no parent directory")?.to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => {
                env::current_dir().context("the current directory cannot be read")?.join(dir)
            }
            _ => root.join("target"),
        };
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self { root, target, cargo })
    }

    /// `cargo` for the host, in this workspace, free of what the outer cargo
    /// told this process about xtask itself.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        forget_outer_cargo(&mut command);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        if let Some(object) = self.bpf_object_override() {
            command.env("VNET_BPF_OBJECT", object);
        }
        command
    }

    /// The object with all BPF programs, as `build-ebpf` leaves it.
    pub fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/vnet.bpf.o")
    }

    /// The object with the benchmark's own programs.
    pub fn bench_object(&self) -> PathBuf {
        self.target.join("bpf/bench.bpf.o")
    }

    /// The `vnet` binary of a profile (`debug` or `release`).
    pub fn vnet_binary(&self, release: bool) -> PathBuf {
        let profile = if release { "release" } else { "debug" };
        self.target.join(profile).join("vnet")
    }

    /// Everyone looks for the object below the checkout's own `target/`; they
    /// are told only where that is wrong, so that plain `cargo build` and
    /// `cargo xtask build` share their results.
    fn bpf_object_override(&self) -> Option<PathBuf> {
        (self.target != self.root.join("target")).then(|| self.bpf_object())
    }
}

/// Removes from `command` what cargo sets for the program that it runs.
pub fn forget_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if is_about_the_outer_package(&name) {
            command.env_remove(&name);
        }
    }
}

/// Removes from `command` all that selects a compiler or its flags, so that
/// only what the caller sets applies.
pub fn forget_outer_compiler(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if selects_compiler_or_flags(&name) {
            command.env_remove(&name);
        }
    }
}

fn is_about_the_outer_package(name: &OsStr) -> bool {
    const NAMES: &[&str] =
        &["CARGO", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"];
    const PREFIXES: &[&str] = &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];
    matches_any(name, NAMES, PREFIXES)
}

fn selects_compiler_or_flags(name: &OsStr) -> bool {
    const NAMES: &[&str] = &[
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const PREFIXES: &[&str] =
        &["RUSTC", "RUSTDOC", "CARGO_BUILD_RUST", "CARGO_BUILD_TARGET", "CARGO_PROFILE_", "CARGO_TARGET_BPF"];
    matches_any(name, NAMES, PREFIXES)
}

fn matches_any(name: &OsStr, names: &[&str], prefixes: &[&str]) -> bool {
    name.to_str().is_some_and(|name| names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix)))
}

/// `path` as a user would write it from the root of the checkout.
pub fn short<'a>(workspace: &Workspace, path: &'a Path) -> &'a Path {
    path.strip_prefix(&workspace.root).unwrap_or(path)
}

/// `path` as a shell in the root of the checkout would take it from anywhere.
pub fn typed(workspace: &Workspace, path: &Path) -> String {
    match path.strip_prefix(&workspace.root) {
        Ok(below) => format!("$PWD/{}", below.display()),
        Err(_) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_package_is_forgotten_and_user_settings_are_kept() {
        for name in ["CARGO", "CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "OUT_DIR"] {
            assert!(is_about_the_outer_package(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS", "PATH", "RUSTFLAGS"] {
            assert!(!is_about_the_outer_package(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn nothing_of_the_outer_compiler_reaches_the_bpf_build() {
        for name in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTDOC",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            "CARGO_TARGET_DIR",
        ] {
            assert!(selects_compiler_or_flags(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!selects_compiler_or_flags(OsStr::new(name)), "{name}");
        }
    }
}
