//! Making room where it is short: what can be spared ends before its time, oldest first.
//!
//! Short are a table that is over 15/16 full, and the external ports of a network in which a guest has just
//! found none. First go bindings that no connection uses and whose ports only cool down, then connections
//! that nobody has answered or that are over. An established connection never goes (RFC 6888 REQ-4); the
//! kernel looks again before it ends anything ([`Mode::Spare`]).

use std::collections::{HashMap, HashSet};

use vnet_common::{
    Seconds,
    config::{NatPolicy, NetworkId},
    conntrack::can_be_spared,
    names::expiry::Mode,
    nat::exhausted_slot,
};

use super::{TableError, Tables};

/// What was ended to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    pub bindings: usize,
    pub connections: usize,
}

impl Relief {
    /// True where room was short, and some was made.
    pub fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// Seconds for which a guest's failed search for a port counts as want: longer than from pass to pass.
const RECENT: Seconds = 4;

/// External ports that cannot run out apart: a network's, by [`exhausted_slot`] of their protocol.
type Range = (NetworkId, usize);

/// Something that may be spared.
struct Candidate {
    since: Seconds,
    index: u32,
    range: Range,
    /// Connections: the binding that it uses; 0: none.
    binding: u32,
}

/// How much is still wanted.
#[derive(Default)]
struct Want {
    bindings: usize,
    connections: usize,
    /// External ports.
    ports: HashMap<Range, usize>,
}

impl Want {
    fn is_nothing(&self) -> bool {
        self.bindings == 0 && self.connections == 0 && self.ports.values().all(|ports| *ports == 0)
    }

    /// True where the binding is wanted; it counts as given then.
    fn takes_binding(&mut self, candidate: &Candidate) -> bool {
        let ports = take(self.ports.get_mut(&candidate.range));
        take(Some(&mut self.bindings)) || ports
    }

    /// The same of a connection.
    fn takes_connection(&mut self, candidate: &Candidate) -> bool {
        let binding = candidate.binding != 0 && self.takes_binding(candidate);
        take(Some(&mut self.connections)) || binding
    }
}

/// Takes one off; false where nothing was wanted.
fn take(want: Option<&mut usize>) -> bool {
    match want {
        Some(want) if *want > 0 => {
            *want -= 1;
            true
        }
        _ => false,
    }
}

impl Tables {
    /// Ends what can be spared, as far as room is short; `connections` and `bindings` are in use now.
    pub(super) fn relieve(&self, connections: usize, bindings: usize, now: Seconds) -> Result<Relief, TableError> {
        let mut want = Want {
            connections: excess(connections, self.0.connections.capacity()),
            bindings: excess(bindings, self.0.bindings.capacity()),
            ports: self.wanted_ports(now)?,
        };
        let mut relief = Relief::default();
        if want.is_nothing() {
            return Ok(relief);
        }
        if want.bindings != 0 || !want.ports.is_empty() {
            let doomed = chosen(self.cooling_bindings()?, |candidate| want.takes_binding(candidate));
            relief.bindings = self.spare_bindings(doomed.iter().map(|candidate| candidate.index))?;
        }
        if want.is_nothing() {
            return Ok(relief);
        }
        let wants_ports = want.bindings != 0 || want.ports.values().any(|ports| *ports != 0);
        let doomed = chosen(self.sparable_connections()?, |candidate| want.takes_connection(candidate));
        let mut ended = self.0.expirers.connections.batch(Mode::Spare);
        doomed.iter().try_for_each(|candidate| ended.add(candidate.index))?;
        relief.connections = ended.finish()?;
        if wants_ports {
            let freed: HashSet<u32> = doomed.iter().map(|candidate| candidate.binding).collect();
            relief.bindings += self.spare_bindings(freed.into_iter().filter(|index| *index != 0))?;
        }
        Ok(relief)
    }

    /// By network and protocol: a sixteenth of the ports where a guest has found none.
    fn wanted_ports(&self, now: Seconds) -> Result<HashMap<Range, usize>, TableError> {
        let exhausted = self.exhausted(RECENT, now)?;
        if exhausted.is_empty() {
            return Ok(HashMap::new());
        }
        let policies: HashMap<NetworkId, NatPolicy> =
            self.networks()?.into_iter().map(|(id, settings)| (id, settings.nat)).collect();
        let networks: HashMap<_, _> = self.vports()?.into_iter().map(|(id, vport)| (id, vport.network)).collect();
        let wanted = exhausted.into_iter().filter_map(|(vport, slot)| {
            let network = *networks.get(&vport)?;
            let policy = policies.get(&network)?;
            let ports = usize::from(policy.last_port.saturating_sub(policy.first_port)) + 1;
            Some(((network, slot), ports.div_ceil(16)))
        });
        Ok(wanted.collect())
    }

    fn cooling_bindings(&self) -> Result<Vec<Candidate>, TableError> {
        let mut found = Vec::new();
        self.0.bindings.for_each(&self.0.pools, |index, binding| {
            if binding.connections.load() == 0 {
                let range = (binding.network, exhausted_slot(binding.protocol));
                found.push(Candidate { since: binding.last_used.load(), index, range, binding: 0 });
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn sparable_connections(&self) -> Result<Vec<Candidate>, TableError> {
        let mut found = Vec::new();
        self.0.connections.for_each(&self.0.pools, |index, connection| {
            if can_be_spared(connection.protocol, connection.seen.load()) {
                let range = (connection.home(), exhausted_slot(connection.protocol));
                let since = connection.last_seen.load();
                found.push(Candidate { since, index, range, binding: connection.binding });
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn spare_bindings(&self, indexes: impl Iterator<Item = u32>) -> Result<usize, TableError> {
        let mut ended = self.0.expirers.bindings.batch(Mode::Spare);
        for index in indexes {
            ended.add(index)?;
        }
        ended.finish()
    }
}

/// Those of the candidates that `takes` wants, asked of the longest unused first.
fn chosen(mut candidates: Vec<Candidate>, takes: impl FnMut(&Candidate) -> bool) -> Vec<Candidate> {
    // The clock has not wrapped between any two of them: none is older than the longest idle time.
    let newest = candidates.iter().map(|candidate| candidate.since).max().unwrap_or(0);
    candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(newest.wrapping_sub(candidate.since)));
    let mut takes = takes;
    candidates.retain(|candidate| takes(candidate));
    candidates
}

/// How many entries must go so that a table over 15/16 full is 7/8 full again.
fn excess(used: usize, capacity: u32) -> usize {
    let capacity = capacity as usize;
    if used > capacity - capacity / 16 { used - (capacity - capacity / 8) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: usize = 1;

    fn candidate(since: Seconds, index: u32, network: NetworkId, binding: u32) -> Candidate {
        Candidate { since, index, range: (network, UDP), binding }
    }

    fn indexes(chosen: &[Candidate]) -> Vec<u32> {
        chosen.iter().map(|candidate| candidate.index).collect()
    }

    #[test]
    fn a_table_is_relieved_from_fifteen_sixteenths_to_seven_eighths() {
        let cases = [(0, 0), (960, 0), (961, 65), (1024, 128)];
        for (used, wanted) in cases {
            assert_eq!(excess(used, 1024), wanted, "{used}");
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_are_wanted() {
        let mut want = Want { bindings: 2, ..Want::default() };
        let candidates = vec![candidate(30, 1, 1, 0), candidate(10, 2, 1, 0), candidate(20, 3, 2, 0)];
        assert_eq!(indexes(&chosen(candidates, |candidate| want.takes_binding(candidate))), [2, 3]);
        assert!(want.is_nothing());
    }

    #[test]
    fn ports_are_freed_in_the_network_that_lacks_them() {
        let mut want = Want { ports: HashMap::from([((2, UDP), 1)]), ..Want::default() };
        let candidates = vec![candidate(10, 1, 1, 0), candidate(30, 2, 2, 0), candidate(20, 3, 2, 0)];
        assert_eq!(indexes(&chosen(candidates, |candidate| want.takes_binding(candidate))), [3]);
    }

    #[test]
    fn a_connection_without_a_binding_frees_no_port() {
        let mut want = Want { ports: HashMap::from([((1, UDP), 2)]), ..Want::default() };
        let candidates = vec![candidate(10, 1, 1, 0), candidate(20, 2, 1, 7)];
        assert_eq!(indexes(&chosen(candidates, |candidate| want.takes_connection(candidate))), [2]);
        let mut want = Want { connections: 1, ..Want::default() };
        let candidates = vec![candidate(10, 1, 1, 0), candidate(20, 2, 1, 7)];
        assert_eq!(indexes(&chosen(candidates, |candidate| want.takes_connection(candidate))), [1]);
    }
}
