//! Loads the object: maps (new ones, or the pinned ones of an earlier daemon) and every program.

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier},
};
use tracing::debug;
use vnet_common::names::{global, map, program};

use super::{DatapathError, Hook, error::reason, expiry::Expirers, pins::Pins, sizes::Sizes};

/// Lines of the verifier's log that an error shows; the whole goes to the debug log.
const LOG_LINES: usize = 6;

/// What was loaded. The programs live as long as they are attached or held here.
pub(super) struct Loaded {
    pub(super) hooks: HookPrograms,
    pub(super) expirers: Expirers,
    /// Loaded where there is a place for them.
    pub(super) sockets: Option<SocketPrograms>,
}

/// The programs on socket calls, kept in the object: aya knows no second handle of such a program.
pub(super) struct SocketPrograms(Ebpf);

impl SocketPrograms {
    fn load(ebpf: Ebpf) -> Result<Self, DatapathError> {
        let mut programs = Self(ebpf);
        for name in program::SOCKETS {
            programs.of(name)?.load().map_err(|error| refused(name, error))?;
        }
        Ok(programs)
    }

    pub(super) fn of(&mut self, name: &'static str) -> Result<&mut CgroupSockAddr, DatapathError> {
        let Program::CgroupSockAddr(program) = find(&mut self.0, name)? else {
            return Err(DatapathError::Object(format!("program {name} is not for socket calls")));
        };
        Ok(program)
    }
}

/// The programs that are attached, one a hook.
pub(super) struct HookPrograms {
    port_ingress: SchedClassifier,
    gateway_egress: SchedClassifier,
    uplink_egress: SchedClassifier,
}

impl HookPrograms {
    pub(super) fn of(&mut self, hook: Hook) -> &mut SchedClassifier {
        match hook {
            Hook::PortIngress => &mut self.port_ingress,
            Hook::GatewayEgress => &mut self.gateway_egress,
            Hook::UplinkEgress => &mut self.uplink_egress,
        }
    }
}

/// `host_netns`: cookie of the network namespace whose sockets are the host's, where their calls are looked at.
pub(super) fn load(object: &[u8], pins: &Pins, sizes: Sizes, host_netns: Option<u64>) -> Result<Loaded, DatapathError> {
    let mut loader = EbpfLoader::new();
    let netns = host_netns.unwrap_or(0);
    loader.override_global(global::HOST_NETNS, &netns, true);
    for name in map::ALL {
        loader.map_pin_path(name, pins.maps().join(name));
    }
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(object).map_err(|error| DatapathError::Object(reason(&error)))?;
    // Attached by nobody yet: loaded so that the verifier has seen it.
    load_xdp(&mut ebpf, program::PORT_XDP)?;
    Ok(Loaded {
        hooks: HookPrograms {
            port_ingress: load_classifier(&mut ebpf, program::PORT_INGRESS)?,
            gateway_egress: load_classifier(&mut ebpf, program::GATEWAY_EGRESS)?,
            uplink_egress: load_classifier(&mut ebpf, program::UPLINK_EGRESS)?,
        },
        expirers: Expirers::load(|name| load_classifier(&mut ebpf, name))?,
        sockets: host_netns.map(|_| SocketPrograms::load(ebpf)).transpose()?,
    })
}

/// Loads the program and takes it out of `ebpf`, which does not give its programs away: the handle is a
/// second one on the same kernel object.
fn load_classifier(ebpf: &mut Ebpf, name: &'static str) -> Result<SchedClassifier, DatapathError> {
    let Program::SchedClassifier(program) = find(ebpf, name)? else {
        return Err(DatapathError::Object(format!("program {name} is not for tc")));
    };
    program
        .load()
        .and_then(|()| program.info())
        .and_then(|info| SchedClassifier::from_program_info(info, name.into()))
        .map_err(|error| refused(name, error))
}

fn load_xdp(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let Program::Xdp(program) = find(ebpf, name)? else {
        return Err(DatapathError::Object(format!("program {name} is not for XDP")));
    };
    program.load().map_err(|error| refused(name, error))
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, DatapathError> {
    ebpf.program_mut(name).ok_or_else(|| DatapathError::Object(format!("it has no program {name}")))
}

fn refused(program: &'static str, error: ProgramError) -> DatapathError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            debug!("verifier log of {program}:\n{log}");
            DatapathError::Refused { program, reason: io_error.to_string(), log: last_lines(&log) }
        }
        error => DatapathError::Refused { program, reason: reason(&error), log: String::new() },
    }
}

/// The end of the verifier's log, where it says what it minds, indented below the error.
fn last_lines(log: &str) -> String {
    // Statistics come last.
    let is_statistics =
        |line: &str| ["verification time", "stack depth", "processed"].iter().any(|word| line.starts_with(word));
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty() && !is_statistics(line)).collect();
    let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    last.iter().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_verifier_log_is_shown() {
        let log: String = (0..1000).map(|line| format!("{line}: r0 = 0\n\n")).collect();
        assert_eq!(last_lines(&log).lines().count(), LOG_LINES + 1);
        assert!(last_lines(&log).ends_with("\n  999: r0 = 0"));
        let log = "R7 invalid mem access\nprocessed 277 insns (limit 1000000)\n";
        assert_eq!(last_lines(log), "\n  R7 invalid mem access");
        assert_eq!(last_lines(""), "");
    }
}
