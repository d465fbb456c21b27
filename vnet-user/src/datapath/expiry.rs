//! Ending what has been idle for too long, at a price that scales.
//!
//! The daemon reads the tables in batches and picks what may have expired; BPF programs, run over the
//! candidates' keys 64 at a time, look again and delete. So an entry that wakes up in between lives on,
//! and an entry costs a small part of a system call instead of two.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aya::{TestRun, TestRunOptions, programs::SchedClassifier};
use vnet_common::{
    Seconds,
    config::{NetworkId, OUTSIDE, Timeouts},
    conntrack,
    fdb::FdbEntry,
    flow::{FlowEntry, FlowKey, idle},
    names::{expiry, map, program},
    nat::{BindingEntry, BindingKey},
};
use zerocopy::{Immutable, IntoBytes};

use super::{TableError, Tables, clock, error::reason};

/// Idle seconds after which an unused binding is named to the kernel, which decides.
const BINDING_IDLE: Seconds = 1;

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryReport {
    /// `read` counts halves, `ended` connections.
    pub connections: Pass,
    /// `read` counts both sides, `ended` bindings.
    pub bindings: Pass,
    pub fdb: Pass,
    pub took: Duration,
}

/// One table's part of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries read.
    pub read: usize,
    /// Entries that looked expired.
    pub candidates: usize,
    /// What the kernel ended.
    pub ended: usize,
}

impl Tables {
    /// One pass over connections, bindings and the FDB.
    pub fn expire(&self) -> Result<ExpiryReport, TableError> {
        let begun = Instant::now();
        let now = clock::now();
        // In this order: bindings of connections that end now are told to go in the next pass.
        let connections = self.expire_connections(now)?;
        let bindings = self.expire_bindings(now)?;
        let fdb = self.expire_fdb(now)?;
        Ok(ExpiryReport { connections, bindings, fdb, took: begun.elapsed() })
    }

    fn expire_connections(&self, now: Seconds) -> Result<Pass, TableError> {
        let timeouts = self.timeouts()?;
        let mut read = 0;
        let mut batch = self.0.expirers.flows.batch(false);
        self.0.flows.for_each(|key, entry| {
            read += 1;
            let timeouts = timeouts.get(&entry.network);
            if flow_may_have_expired(&key, &entry, timeouts, now) { batch.add(key) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    fn expire_bindings(&self, now: Seconds) -> Result<Pass, TableError> {
        let mut read = 0;
        let mut batch = self.0.expirers.bindings.batch(false);
        self.0.bindings.for_each(|key, entry| {
            read += 1;
            if binding_may_have_expired(&key, &entry, now) { batch.add(key) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    fn expire_fdb(&self, now: Seconds) -> Result<Pass, TableError> {
        let ageing: HashMap<_, _> = self.networks()?.into_iter().map(|(id, settings)| (id, settings.ageing)).collect();
        let mut read = 0;
        let mut batch = self.0.expirers.fdb.batch(false);
        self.0.fdb.for_each(|key, entry| {
            read += 1;
            let ageing = ageing.get(&key.network).copied();
            if fdb_may_have_expired(&entry, ageing, now) { batch.add(key) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    /// Frees the bindings of a network that no connection uses, at once; returns how many.
    pub fn flush_bindings(&self, network: NetworkId) -> Result<usize, TableError> {
        let mut batch = self.0.expirers.bindings.batch(true);
        self.0.bindings.for_each(|key, _| if key.network == network { batch.add(key) } else { Ok(()) })?;
        batch.finish()
    }
}

/// This half alone has been idle for as long as its bits allow (the kernel asks the other half too), or
/// its network is gone.
fn flow_may_have_expired(key: &FlowKey, entry: &FlowEntry, timeouts: Option<&Timeouts>, now: Seconds) -> bool {
    timeouts
        .is_none_or(|timeouts| idle(now, &entry.last_seen) >= conntrack::timeout(key.protocol, entry.seen(), timeouts))
}

/// The internal side of a binding that no connection has used for a while. External sides go with them.
fn binding_may_have_expired(key: &BindingKey, entry: &BindingEntry, now: Seconds) -> bool {
    key.network != OUTSIDE && entry.connections.load() == 0 && idle(now, &entry.last_used) >= BINDING_IDLE
}

/// Learned, and unseen for the network's ageing time; or its network is gone.
fn fdb_may_have_expired(entry: &FdbEntry, ageing: Option<Seconds>, now: Seconds) -> bool {
    entry.is_expired(now, ageing.unwrap_or(0))
}

/// The programs that end entries.
pub(super) struct Expirers {
    pub(super) flows: Expirer,
    pub(super) bindings: Expirer,
    pub(super) fdb: Expirer,
}

/// One of them, and the table it works on.
pub(super) struct Expirer {
    pub(super) program: SchedClassifier,
    pub(super) name: &'static str,
    pub(super) table: &'static str,
}

impl Expirers {
    pub(super) fn new(flows: SchedClassifier, bindings: SchedClassifier, fdb: SchedClassifier) -> Self {
        Self {
            flows: Expirer { program: flows, name: program::EXPIRE_FLOWS, table: map::FLOWS },
            bindings: Expirer { program: bindings, name: program::EXPIRE_BINDINGS, table: map::BINDINGS },
            fdb: Expirer { program: fdb, name: program::EXPIRE_FDB, table: map::FDB },
        }
    }
}

impl Expirer {
    /// Collects keys and runs the program over them. `force`: it ends whatever is named.
    pub(super) fn batch<K: IntoBytes + Immutable>(&self, force: bool) -> Batch<'_, K> {
        let keys = Vec::with_capacity(expiry::MAX_KEYS as usize);
        Batch { expirer: self, force, keys, candidates: 0, ended: 0 }
    }

    /// One run over at most [`expiry::MAX_KEYS`] keys; returns how many were ended.
    fn run<K: IntoBytes + Immutable>(&self, keys: &[K], force: bool) -> Result<usize, TableError> {
        let header = expiry::Header { count: keys.len() as u32, force: u32::from(force), pad: [0; 2] };
        let packet = [header.as_bytes(), keys.as_bytes()].concat();
        let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
        let failed = |reason| TableError::Run { table: self.table, program: self.name, reason };
        let result = self.program.test_run(options).map_err(|error| failed(reason(&error)))?;
        match result.return_value as usize {
            ended if ended <= keys.len() => Ok(ended),
            _ => Err(failed(format!("returned {}", result.return_value as i32))),
        }
    }
}

/// Keys on their way to an expiry program.
pub(super) struct Batch<'a, K> {
    expirer: &'a Expirer,
    force: bool,
    keys: Vec<K>,
    candidates: usize,
    ended: usize,
}

impl<K: IntoBytes + Immutable> Batch<'_, K> {
    pub(super) fn add(&mut self, key: K) -> Result<(), TableError> {
        self.keys.push(key);
        self.candidates += 1;
        if self.keys.len() < expiry::MAX_KEYS as usize { Ok(()) } else { self.run() }
    }

    /// Runs over what is left; returns how many were ended in all.
    pub(super) fn finish(mut self) -> Result<usize, TableError> {
        self.run()?;
        Ok(self.ended)
    }

    fn report(self, read: usize) -> Result<Pass, TableError> {
        let candidates = self.candidates;
        Ok(Pass { read, candidates, ended: self.finish()? })
    }

    fn run(&mut self) -> Result<(), TableError> {
        if !self.keys.is_empty() {
            self.ended += self.expirer.run(&self.keys, self.force)?;
            self.keys.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vnet_common::{
        Word,
        conntrack::protocol,
        fdb::{FdbKey, FdbKind},
    };
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn a_flow_is_a_candidate_when_its_own_half_has_been_idle_for_its_time() {
        let mut key = FlowKey::new_zeroed();
        let mut entry = FlowEntry::new_zeroed();
        entry.last_seen = Word::new(1000);
        let cases = [
            (protocol::UDP, 299, false),
            (protocol::UDP, 300, true),
            (protocol::TCP, 240, true),
            (protocol::ICMP, 59, false),
            (protocol::ICMP, 60, true),
        ];
        for (protocol, idle, candidate) in cases {
            key.protocol = protocol;
            let found = flow_may_have_expired(&key, &entry, Some(&Timeouts::RFC), 1000 + idle);
            assert_eq!(found, candidate, "protocol {protocol}, idle {idle}");
        }
        assert!(flow_may_have_expired(&key, &entry, None, 1000), "its network is gone");
        assert!(!flow_may_have_expired(&key, &entry, Some(&Timeouts::RFC), 999), "a stamp ahead of the clock");
    }

    #[test]
    fn only_unused_internal_bindings_are_candidates() {
        let mut key = BindingKey::new_zeroed();
        let entry = BindingEntry::new_zeroed();
        entry.last_used.store(50);
        assert!(!binding_may_have_expired(&key, &entry, 60), "the external side");
        key.network = 2;
        assert!(binding_may_have_expired(&key, &entry, 60));
        assert!(!binding_may_have_expired(&key, &entry, 50), "just now");
        entry.connections.store(1);
        assert!(!binding_may_have_expired(&key, &entry, 60), "in use");
    }

    #[test]
    fn only_learned_fdb_entries_age() {
        let learned = FdbEntry::new(1, FdbKind::Learned, 100);
        assert!(!fdb_may_have_expired(&learned, Some(300), 399));
        assert!(fdb_may_have_expired(&learned, Some(300), 400));
        assert!(fdb_may_have_expired(&learned, None, 100), "its network is gone");
        assert!(!fdb_may_have_expired(&FdbEntry::new(1, FdbKind::Static, 100), Some(300), 9999));
    }

    #[test]
    fn a_full_run_fits_into_a_page_with_what_the_kernel_puts_around_it() {
        // bpf_prog_test_run_skb(): headroom, and skb_shared_info behind.
        let around = 128 + 384;
        let longest = size_of::<FlowKey>().max(size_of::<BindingKey>()).max(size_of::<FdbKey>());
        assert!(size_of::<expiry::Header>() + expiry::MAX_KEYS as usize * longest + around <= 4096);
    }
}
