//! Why the datapath could not be set up, changed or read: one line each, with the cause in it.

use std::{error::Error, io, path::PathBuf};

use super::Hook;

/// Loading, attaching and pinning.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("this vnet was built without its datapath: run 'cargo xtask build-ebpf', then build vnet again")]
    NotBuilt,
    #[error("vnet daemon needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)")]
    Unprivileged,
    #[error("this kernel ({running}) lacks {feature}: Linux {since} and newer have it{hint}")]
    MissingFeature { feature: &'static str, since: &'static str, hint: &'static str, running: String },
    #[error("cannot find out what this kernel can do ({feature}): {reason}")]
    Probe { feature: &'static str, reason: String },
    #[error("{variable} is '{value}': it takes 'tcx' or 'clsact'")]
    BadBackend { variable: &'static str, value: String },
    #[error("cannot {action} {}: {source}", path.display())]
    Pins { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "map {map} in {} is of another build ({found}, here {wanted}): stop vnet and remove that directory to start \
         afresh, which ends all connections", directory.display()
    )]
    ForeignMap { map: &'static str, directory: PathBuf, found: String, wanted: String },
    #[error("the datapath's object is broken: {0}")]
    Object(String),
    #[error("the kernel refuses program {program}: {reason}{log}")]
    Refused { program: &'static str, reason: String, log: String },
    #[error("{device} is not the device it was (index {ifindex}): it was removed or made anew")]
    DeviceChanged { device: String, ifindex: u32 },
    #[error("cannot attach {hook} to {device}: {reason}")]
    Attach { hook: Hook, device: String, reason: String },
    #[error("cannot attach {program} to cgroup {}: {reason}", cgroup.display())]
    AttachSockets { program: &'static str, cgroup: PathBuf, reason: String },
    #[error("cannot use cgroup {}: {reason} (--cgroup names another, or 'none')", path.display())]
    Cgroup { path: PathBuf, reason: String },
    #[error("cannot detach {hook} from device {ifindex}: {reason}")]
    Detach { hook: Hook, ifindex: u32, reason: String },
    #[error("cannot take over {}: {reason}", path.display())]
    Adopt { path: PathBuf, reason: String },
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reading and writing the tables.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No room for another entry.
    #[error("table {table} is full: {entries} entries are the most it takes")]
    Full { table: &'static str, entries: u32 },
    /// An entry stands there that is not to be replaced.
    #[error("table {table} holds that entry already")]
    Exists { table: &'static str },
    /// A list that is longer than the datapath can take.
    #[error("{count} entries for table {table}: {most} are the most")]
    TooLong { table: &'static str, count: usize, most: usize },
    /// A number that is none of the table's slots.
    #[error("table {table} has no slot {slot}")]
    NoSlot { table: &'static str, slot: u32 },
    /// The pinned map does not hold what this build's types say.
    #[error("table {table} does not hold what this build puts there")]
    Shape { table: &'static str },
    /// A program that works on the table failed.
    #[error("{program} on table {table}: {reason}")]
    Run { table: &'static str, program: &'static str, reason: String },
    #[error("cannot {action} table {table}: {source}")]
    Io { table: &'static str, action: &'static str, source: io::Error },
}

/// An error with all its causes, in one line.
pub(super) fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Transparent wrappers repeat their cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// The operating system's error number behind `error`, if there is one.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        if let Some(number) = cause.downcast_ref::<aya::sys::NetlinkError>().and_then(|error| error.raw_os_error()) {
            return Some(number);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_every_cause_once() {
        let error = DatapathError::Table(TableError::Io {
            table: "FDB",
            action: "read",
            source: io::Error::from_raw_os_error(libc::EPERM),
        });
        assert_eq!(reason(&error), "cannot read table FDB: Operation not permitted (os error 1)");
        assert_eq!(os_error(&error), Some(libc::EPERM));
    }
}
