//! Ending what has been idle for too long, at a price that scales.
//!
//! The daemon reads the tables in batches and picks what may have expired; BPF programs, run over the
//! candidates' numbers some hundreds at a time, look again and delete. So an entry that wakes up in between lives on,
//! and an entry costs a small part of a system call instead of two.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aya::{TestRun, TestRunOptions, programs::SchedClassifier};
use vnet_common::{
    Seconds,
    config::{NetworkId, Timeouts},
    fdb::FdbEntry,
    flow::{Connection, since},
    names::{
        expiry::{self, Mode},
        map, program,
    },
    nat::Binding,
};
use zerocopy::{Immutable, IntoBytes};

use super::{Relief, TableError, Tables, clock, error::reason};

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiryReport {
    pub connections: Pass,
    pub bindings: Pass,
    pub fragments: Pass,
    pub fdb: Pass,
    /// What was ended beside it to make room.
    pub relief: Relief,
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

impl Pass {
    /// Entries that stand after it.
    fn left(&self) -> usize {
        self.read.saturating_sub(self.ended)
    }
}

impl Tables {
    /// One pass over connections, bindings, fragments and the FDB; where room is short, what can be spared goes
    /// too.
    pub fn expire(&self) -> Result<ExpiryReport, TableError> {
        let begun = Instant::now();
        let now = clock::now();
        // In this order: bindings of connections that end now are told to go in the next pass.
        let connections = self.expire_connections(now)?;
        let bindings = self.expire_bindings(now)?;
        let fragments = self.expire_fragments(now)?;
        let fdb = self.expire_fdb(now)?;
        let relief = self.relieve(connections.left(), bindings.left(), now)?;
        Ok(ExpiryReport { connections, bindings, fragments, fdb, relief, took: begun.elapsed() })
    }

    fn expire_connections(&self, now: Seconds) -> Result<Pass, TableError> {
        let timeouts = self.timeouts()?;
        let mut read = 0;
        let mut batch = self.0.expirers.connections.batch(Mode::Expired);
        self.0.connections.for_each(&self.0.pools, |index, connection| {
            read += 1;
            let timeouts = timeouts.get(&connection.home());
            if connection_may_have_expired(&connection, timeouts, now) { batch.add(index) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    fn expire_bindings(&self, now: Seconds) -> Result<Pass, TableError> {
        let timeouts = self.timeouts()?;
        let mut read = 0;
        let mut batch = self.0.expirers.bindings.batch(Mode::Expired);
        self.0.bindings.for_each(&self.0.pools, |index, binding| {
            read += 1;
            let timeouts = timeouts.get(&binding.network);
            if binding_may_have_expired(&binding, timeouts, now) { batch.add(index) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    fn expire_fdb(&self, now: Seconds) -> Result<Pass, TableError> {
        let ageing: HashMap<_, _> = self.networks()?.into_iter().map(|(id, settings)| (id, settings.ageing)).collect();
        let mut read = 0;
        let mut batch = self.0.expirers.fdb.batch(Mode::Expired);
        self.0.fdb.for_each(|key, entry| {
            read += 1;
            let ageing = ageing.get(&key.network).copied();
            if fdb_may_have_expired(&entry, ageing, now) { batch.add(key) } else { Ok(()) }
        })?;
        batch.report(read)
    }

    /// Frees the bindings of a network that no connection uses, at once; returns how many.
    pub fn flush_bindings(&self, network: NetworkId) -> Result<usize, TableError> {
        let mut batch = self.0.expirers.bindings.batch(Mode::Force);
        self.0.bindings.for_each(
            &self.0.pools,
            |index, binding| {
                if binding.network == network { batch.add(index) } else { Ok(()) }
            },
        )?;
        batch.finish()
    }
}

/// Idle for as long as its state allows, or its network is gone.
fn connection_may_have_expired(connection: &Connection, timeouts: Option<&Timeouts>, now: Seconds) -> bool {
    let last_seen = connection.last_seen.load();
    timeouts.is_none_or(|timeouts| connection.is_expired(last_seen, timeouts, now))
}

/// Unused for as long as its port cools down, or its network is gone.
fn binding_may_have_expired(binding: &Binding, timeouts: Option<&Timeouts>, now: Seconds) -> bool {
    let unused = since(binding.last_used.load(), now);
    binding.connections.load() == 0 && timeouts.is_none_or(|timeouts| unused >= timeouts.cool_down)
}

/// Learned, and unseen for the network's ageing time; or its network is gone.
fn fdb_may_have_expired(entry: &FdbEntry, ageing: Option<Seconds>, now: Seconds) -> bool {
    entry.is_expired(now, ageing.unwrap_or(0))
}

/// The programs that end entries.
pub(super) struct Expirers {
    pub(super) connections: Expirer,
    pub(super) bindings: Expirer,
    pub(super) fragments: Expirer,
    pub(super) held: Expirer,
    pub(super) fdb: Expirer,
}

/// One of them, and the table it works on.
pub(super) struct Expirer {
    pub(super) program: SchedClassifier,
    pub(super) name: &'static str,
    pub(super) table: &'static str,
}

impl Expirers {
    /// `load` gives each program by its name.
    pub(super) fn load<E>(mut load: impl FnMut(&'static str) -> Result<SchedClassifier, E>) -> Result<Self, E> {
        let mut expirer = |name, table| load(name).map(|program| Expirer { program, name, table });
        Ok(Self {
            connections: expirer(program::EXPIRE_FLOWS, map::CONNECTIONS)?,
            bindings: expirer(program::EXPIRE_BINDINGS, map::BINDINGS)?,
            fragments: expirer(program::EXPIRE_FRAGMENTS, map::FRAGMENTS)?,
            held: expirer(program::EXPIRE_HELD, map::HELD_FRAGMENTS)?,
            fdb: expirer(program::EXPIRE_FDB, map::FDB)?,
        })
    }
}

impl Expirer {
    /// Collects keys and runs the program over them.
    pub(super) fn batch<K: IntoBytes + Immutable>(&self, mode: Mode) -> Batch<'_, K> {
        let keys = Vec::with_capacity(expiry::most::<K>() as usize);
        Batch { expirer: self, mode, keys, candidates: 0, ended: 0 }
    }

    /// One run over at most [`expiry::most`] keys; returns how many were ended.
    fn run<K: IntoBytes + Immutable>(&self, keys: &[K], mode: Mode) -> Result<usize, TableError> {
        let header = expiry::Header { count: keys.len() as u32, mode: mode as u32, pad: [0; 2] };
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
    mode: Mode,
    keys: Vec<K>,
    candidates: usize,
    ended: usize,
}

impl<K: IntoBytes + Immutable> Batch<'_, K> {
    pub(super) fn add(&mut self, key: K) -> Result<(), TableError> {
        self.keys.push(key);
        self.candidates += 1;
        if self.keys.len() < expiry::most::<K>() as usize { Ok(()) } else { self.run() }
    }

    /// Runs over what is left; returns how many were ended in all.
    pub(super) fn finish(mut self) -> Result<usize, TableError> {
        self.run()?;
        Ok(self.ended)
    }

    pub(super) fn report(self, read: usize) -> Result<Pass, TableError> {
        let candidates = self.candidates;
        Ok(Pass { read, candidates, ended: self.finish()? })
    }

    fn run(&mut self) -> Result<(), TableError> {
        if !self.keys.is_empty() {
            self.ended += self.expirer.run(&self.keys, self.mode)?;
            self.keys.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_common::{
        Word,
        conntrack::protocol,
        fdb::{FdbKey, FdbKind},
    };

    #[test]
    fn a_connection_is_a_candidate_when_it_has_been_idle_for_its_time() {
        let mut connection = Connection { last_seen: Word::new(1000), ..Connection::default() };
        let cases = [
            (protocol::UDP, 299, false),
            (protocol::UDP, 300, true),
            (protocol::TCP, 240, true),
            (protocol::ICMP, 59, false),
            (protocol::ICMP, 60, true),
        ];
        for (protocol, idle, candidate) in cases {
            connection.protocol = protocol;
            let found = connection_may_have_expired(&connection, Some(&Timeouts::RFC), 1000 + idle);
            assert_eq!(found, candidate, "protocol {protocol}, idle {idle}");
        }
        assert!(connection_may_have_expired(&connection, None, 1000), "its network is gone");
        assert!(!connection_may_have_expired(&connection, Some(&Timeouts::RFC), 999), "a stamp ahead of the clock");
    }

    #[test]
    fn only_unused_bindings_whose_port_has_cooled_down_are_candidates() {
        let binding = Binding { last_used: Word::new(50), ..Binding::default() };
        let rfc = Some(&Timeouts::RFC);
        assert!(!binding_may_have_expired(&binding, rfc, 169), "still cooling down");
        assert!(binding_may_have_expired(&binding, rfc, 170));
        assert!(binding_may_have_expired(&binding, None, 50), "its network is gone");
        binding.connections.store(1);
        assert!(!binding_may_have_expired(&binding, rfc, 1000), "in use");
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
        let run = |count: u32, size| size_of::<expiry::Header>() + count as usize * size;
        let longest = run(expiry::most::<u32>(), 4).max(run(expiry::most::<FdbKey>(), size_of::<FdbKey>()));
        assert!(longest + around <= 4096);
    }
}
