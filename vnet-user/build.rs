//! Embeds the BPF object, where it has been built.
//!
//! The object comes from `cargo xtask build-ebpf`, or from wherever `VNET_BPF_OBJECT` points. Without
//! it the daemon builds all the same (and says at its start that it has no datapath), so that plain
//! `cargo check` and `cargo test` need no BPF toolchain.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

const VARIABLE: &str = "VNET_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("vnet.bpf.o");
    let object = match env::var_os(VARIABLE) {
        Some(path) => {
            let path = PathBuf::from(path);
            if !path.is_file() {
                return Err(format!("{VARIABLE}: no file {}", path.display()).into());
            }
            Some(path)
        }
        None => built_object()?,
    };
    match object {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            fs::copy(&object, &embedded).map_err(|error| format!("{}: {error}", object.display()))?;
        }
        None => fs::write(&embedded, b"")?,
    }
    Ok(())
}

/// The workspace's own object, or none and a watch on the place where it will stand.
fn built_object() -> Result<Option<PathBuf>, Box<dyn Error>> {
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target/bpf");
    let object = directory.join("vnet.bpf.o");
    if object.is_file() {
        return Ok(Some(object));
    }
    // A missing file would count as changed each time: watch its directory instead.
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    Ok(None)
}
