//! The BPF programs without the daemon: loaded, and run on single frames (`BPF_PROG_TEST_RUN`).

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use vnet_common::{
    fragment::HELD_BYTES,
    names::{expiry::Mode, program},
};

use crate::{daemon::target_directory, maps::pair_sizes};

/// What TC programs answer.
pub mod tc {
    /// TC_ACT_UNSPEC, on tcx: NEXT.
    pub const NEXT: u32 = u32::MAX;
    pub const DROP: u32 = 2;
    pub const REDIRECT: u32 = 7;
}

/// What XDP programs answer.
pub mod xdp {
    pub const PASS: u32 = 2;
    pub const REDIRECT: u32 = 4;
}

/// Offsets in `struct __sk_buff`.
const SKB_IFINDEX: usize = 40;
const SKB_GSO_SIZE: usize = 176;
const SKB_SIZE: usize = 192;

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub verdict: u32,
    pub bytes: Vec<u8>,
}

/// The object's file: from VNET_BPF_OBJECT, else where `cargo xtask build-ebpf` leaves it.
pub fn object() -> Result<PathBuf> {
    let path = match env::var_os("VNET_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("bpf/vnet.bpf.o"),
    };
    ensure!(path.is_file(), "{} is missing: run `cargo xtask build-ebpf`", path.display());
    Ok(path)
}

/// Room for connections and bindings in tests: small, as it is cleared for each case.
const PAIRS: u32 = 1024;

/// Loads everything, with some maps' sizes changed.
pub fn load(sizes: &[(&str, u32)]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for (map, size) in pair_sizes(PAIRS, PAIRS).iter().chain(sizes) {
        loader.map_max_entries(map, *size);
    }
    let object = object()?;
    let mut ebpf = loader.load_file(&object).with_context(|| format!("loading {}", object.display()))?;
    for (name, loaded) in ebpf.programs_mut() {
        match loaded {
            aya::programs::Program::SchedClassifier(loaded) => loaded.load(),
            aya::programs::Program::Xdp(loaded) => loaded.load(),
            aya::programs::Program::CgroupSockAddr(loaded) => loaded.load(),
            _ => bail!("{name} is neither a TC, nor an XDP, nor a socket program"),
        }
        .with_context(|| format!("the kernel refuses {name}"))?;
    }
    Ok(ebpf)
}

/// Runs a TC program on a frame that came in on (or goes out of) a device. Call it inside the
/// device's namespace.
pub fn run_tc(ebpf: &Ebpf, name: &str, ifindex: u32, gso_size: u32, frame: &[u8]) -> Result<Run> {
    let loaded: &SchedClassifier = ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
    let mut context = [0; SKB_SIZE];
    context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context[SKB_GSO_SIZE..SKB_GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
    run(loaded, &context, frame).with_context(|| format!("{name} on {} bytes", frame.len()))
}

/// Runs the XDP program.
pub fn run_xdp(ebpf: &Ebpf, ifindex: u32, frame: &[u8]) -> Result<Run> {
    let name = program::PORT_XDP;
    let loaded: &Xdp = ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let words = [0, u32::try_from(frame.len())?, 0, ifindex, 0, 0];
    let context: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    run(loaded, &context, frame).with_context(|| format!("{name} on {} bytes", frame.len()))
}

fn run<P>(loaded: &P, context: &[u8], frame: &[u8]) -> Result<Run>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::programs::TestRunResult>,
{
    // A frame may grow, or end as a copy of a fragment that was kept before it.
    let mut bytes = vec![0; frame.len().max(HELD_BYTES) + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut bytes),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let result = loaded.test_run(options)?;
    bytes.truncate(result.data_size_out as usize);
    Ok(Run { verdict: result.return_value, bytes })
}

/// Runs an expiry program on keys: how many it deleted.
pub fn run_expiry(ebpf: &Ebpf, name: &str, mode: Mode, keys: &[Vec<u8>]) -> Result<u32> {
    let words = [u32::try_from(keys.len())?, mode as u32, 0, 0];
    let header: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let packet = [header, keys.concat()].concat();
    let loaded: &SchedClassifier = ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
    let result: Result<_, ProgramError> =
        loaded.test_run(TestRunOptions { data_in: Some(&packet), ..TestRunOptions::new() });
    Ok(result?.return_value)
}
