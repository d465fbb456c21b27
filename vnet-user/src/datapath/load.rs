//! Loads the object: maps (new ones, or the pinned ones of an earlier daemon) and every program.

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError, SchedClassifier},
};
use tracing::debug;
use vnet_common::names::{map, program};

use super::{DatapathError, Hook, error::reason, expiry::Expirers, pins::Pins};

/// Lines of the verifier's log that an error shows; the whole goes to the debug log.
const LOG_LINES: usize = 6;

/// What was loaded. The programs live as long as they are attached or held here.
pub(super) struct Loaded {
    pub(super) hooks: HookPrograms,
    pub(super) expirers: Expirers,
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

pub(super) fn load(object: &[u8], pins: &Pins) -> Result<Loaded, DatapathError> {
    let mut loader = EbpfLoader::new();
    for name in map::ALL {
        loader.map_pin_path(name, pins.maps().join(name));
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
        expirers: Expirers::new(
            load_classifier(&mut ebpf, program::EXPIRE_FLOWS)?,
            load_classifier(&mut ebpf, program::EXPIRE_BINDINGS)?,
            load_classifier(&mut ebpf, program::EXPIRE_FDB)?,
        ),
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
