//! The benchmark's BPF programs: loading, attaching, reading their counters.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TcAttachType, tc},
    util::{KernelVersion, nr_cpus},
};
use vnet_tests::namespace::Namespace;

/// Loads the object with its globals set.
pub fn load(globals: &[(&str, &[u8])]) -> Result<Ebpf> {
    let object = object()?;
    let mut loader = EbpfLoader::new();
    for (name, value) in globals {
        loader.override_global(name, *value, true);
    }
    loader.load_file(&object).with_context(|| format!("{} cannot be loaded", object.display()))
}

/// `cargo xtask bench` says where the object is.
fn object() -> Result<PathBuf> {
    let path = std::env::var_os("VNET_BENCH_OBJECT").map(PathBuf::from);
    let path = path.context("VNET_BENCH_OBJECT is not set: run this as `cargo xtask bench`")?;
    ensure!(path.is_file(), "{} is missing: run `cargo xtask build-ebpf`", path.display());
    Ok(path)
}

/// Puts a program on a device's TC ingress, for as long as `ebpf` lives.
pub fn attach(ebpf: &mut Ebpf, program: &str, inside: &Namespace, device: &str) -> Result<()> {
    let program: &mut SchedClassifier = ebpf.program_mut(program).context("no such program")?.try_into()?;
    program.load().context("the kernel refuses the program")?;
    inside
        .enter(|| {
            if KernelVersion::current()? < TCX {
                tc::qdisc_add_clsact(device)?;
            }
            program.attach(device, TcAttachType::Ingress)?;
            Ok(())
        })
        .with_context(|| format!("the program cannot be put on {device}"))
}

/// From here on aya attaches by tcx, which needs no qdisc.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// The one slot of a per-CPU array, for each CPU. `W`: the value as bare words.
pub fn counters<W: Pod>(ebpf: &Ebpf, map: &str) -> Result<Vec<W>> {
    let map = ebpf.map(map).with_context(|| format!("no map {map}"))?;
    let array: PerCpuArray<_, W> = PerCpuArray::try_from(map)?;
    Ok(array.get(&0, 0)?.to_vec())
}

/// Sets that slot for every CPU.
pub fn set_counters<W: Pod>(ebpf: &mut Ebpf, map: &str, value: W) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let mut array: PerCpuArray<_, W> = PerCpuArray::try_from(map)?;
    let cpus = nr_cpus().map_err(|(_, error)| error).context("the number of CPUs is unknown")?;
    array.set(0, PerCpuValues::try_from(vec![value; cpus])?, 0)?;
    Ok(())
}
