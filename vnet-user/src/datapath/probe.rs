//! What the kernel must have, each with the version that brought it, asked of the running kernel itself
//! (distributions move features back, and configurations leave them out).

use aya::{
    maps::{MapData, MapType},
    programs::{ProgramType, SchedClassifier, TcAttachType},
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;
use nix::sys::utsname::uname;

use super::{
    DatapathError,
    error::{os_error, reason},
    sys::RawMap,
};

type Probe = fn() -> Result<bool, Box<dyn std::error::Error>>;

/// One thing that the datapath needs or can use.
struct Feature {
    name: &'static str,
    since: &'static str,
    /// What else may be the matter on a newer kernel.
    hint: &'static str,
    needed: bool,
    probe: Probe,
}

const NEEDED: Feature = Feature { name: "", since: "", hint: "", needed: true, probe: || Ok(true) };

/// Programs on the calls of sockets below a cgroup, with what they need to keep with a socket.
const SOCKET_HOOKS: Feature = Feature {
    name: "BPF programs at a cgroup's sockets",
    since: "5.8",
    hint: " (with CONFIG_CGROUP_BPF)",
    probe: || Ok(is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_sk_storage_get)?),
    ..NEEDED
};

/// In the order of asking: the first one tells a kernel without BPF and a caller without privileges.
const FEATURES: [Feature; 10] = [
    Feature {
        name: "BPF programs at tc",
        since: "4.1",
        hint: " (with CONFIG_BPF_SYSCALL)",
        probe: || Ok(is_program_supported(ProgramType::SchedClassifier)?),
        ..NEEDED
    },
    Feature {
        name: "BPF programs at XDP",
        since: "4.8",
        probe: || Ok(is_program_supported(ProgramType::Xdp)?),
        ..NEEDED
    },
    Feature {
        name: "longest-prefix-match maps",
        since: "4.11",
        probe: || Ok(is_map_supported(MapType::LpmTrie)?),
        ..NEEDED
    },
    Feature {
        name: "bpf_fib_lookup()",
        since: "4.18",
        hint: " (with CONFIG_INET)",
        probe: || helper(BpfHelper::BPF_FUNC_fib_lookup),
        ..NEEDED
    },
    Feature { name: "batch operations on maps", since: "5.6", probe: batch_operations, ..NEEDED },
    Feature { needed: false, ..SOCKET_HOOKS },
    Feature {
        name: "bpf_redirect_neigh()",
        since: "5.10",
        probe: || helper(BpfHelper::BPF_FUNC_redirect_neigh),
        ..NEEDED
    },
    Feature {
        name: "bpf_ktime_get_coarse_ns()",
        since: "5.11",
        probe: || helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        ..NEEDED
    },
    Feature { name: "bpf_loop()", since: "5.17", probe: || helper(BpfHelper::BPF_FUNC_loop), ..NEEDED },
    Feature { name: "tcx links", since: "6.6", needed: false, probe: || Ok(has_tcx()), ..NEEDED },
];

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureReport {
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
    /// Vnet does not run without it.
    pub needed: bool,
    pub supported: bool,
}

/// Asks the kernel for every feature.
pub fn features() -> Result<Vec<FeatureReport>, DatapathError> {
    let report = |feature: &Feature| {
        let supported = ask(feature)?;
        Ok(FeatureReport { name: feature.name, since: feature.since, needed: feature.needed, supported })
    };
    FEATURES.iter().map(report).collect()
}

/// An error that says what is missing, if anything that is needed is.
pub(super) fn check() -> Result<(), DatapathError> {
    for feature in FEATURES.iter().filter(|feature| feature.needed) {
        if !ask(feature)? {
            return Err(missing(feature));
        }
    }
    Ok(())
}

/// True where programs can be attached as tcx links. Asked of the loopback device, which every namespace
/// has: a kernel without tcx knows no such attach type, one with it knows that nothing is attached.
pub(super) fn has_tcx() -> bool {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => true,
        Err(error) => os_error(&error) == Some(libc::ENOENT),
    }
}

/// What is missing for programs on socket calls, in words, if something is.
pub(super) fn lack_of_socket_hooks() -> Result<Option<DatapathError>, DatapathError> {
    Ok(if ask(&SOCKET_HOOKS)? { None } else { Some(missing(&SOCKET_HOOKS)) })
}

fn missing(feature: &Feature) -> DatapathError {
    DatapathError::MissingFeature {
        feature: feature.name,
        since: feature.since,
        hint: feature.hint,
        running: running(),
    }
}

fn ask(feature: &Feature) -> Result<bool, DatapathError> {
    match (feature.probe)() {
        Ok(supported) => Ok(supported),
        Err(error) => match os_error(error.as_ref()) {
            Some(libc::EPERM | libc::EACCES) => Err(DatapathError::Unprivileged),
            Some(libc::ENOSYS) => Ok(false),
            _ => Err(DatapathError::Probe { feature: feature.name, reason: reason(error.as_ref()) }),
        },
    }
}

fn helper(helper: BpfHelper) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(is_helper_supported(ProgramType::SchedClassifier, helper)?)
}

fn batch_operations() -> Result<bool, Box<dyn std::error::Error>> {
    let tiny = aya_obj::Map::new_from_params(BPF_MAP_TYPE_HASH as u32, 4, 4, 1, 0);
    let map = RawMap::new(MapData::create(tiny, "vnet_probe", None)?)?;
    match map.lookup_batch(&mut map.cursor(), &mut [0; 4], &mut [0; 4]) {
        Ok(_) => Ok(true),
        // An unknown command, or one that the map type does not take (ENOTSUPP, which libc has no name for).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | 524)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn running() -> String {
    uname().map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_stand_in_the_order_of_the_kernels_that_brought_them() {
        let version = |since: &str| -> Vec<u32> { since.split('.').map(|part| part.parse().unwrap()).collect() };
        assert!(FEATURES.is_sorted_by_key(|feature| version(feature.since)));
    }

    #[test]
    fn a_missing_feature_is_one_line_with_its_kernel() {
        let error = DatapathError::MissingFeature {
            feature: "bpf_loop()",
            since: "5.17",
            hint: "",
            running: "5.10.0".to_owned(),
        };
        assert_eq!(error.to_string(), "this kernel (5.10.0) lacks bpf_loop(): Linux 5.17 and newer have it");
    }
}
