//! Bindings, for people.

use std::net::IpAddr;

use vnet_common::{
    Seconds,
    config::NetworkId,
    flow::since,
    nat::{Binding as Record, DEAD},
    vport::VportId,
};

use super::{Tables, connections::address};
use crate::datapath::{TableError, clock};

/// One inside address and port, and the outside one that it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// IP protocol number.
    pub protocol: u8,
    pub network: NetworkId,
    /// The guest's vport when it began.
    pub guest_vport: VportId,
    /// Ports are identifiers where the protocol is ICMP.
    pub inside: (IpAddr, u16),
    pub outside: (IpAddr, u16),
    /// Endpoint-dependent mapping: the only remote that it is for.
    pub remote: Option<(IpAddr, u16)>,
    /// Connections that use it.
    pub connections: u32,
    pub age_seconds: Seconds,
    /// Since a connection last began or ended on it.
    pub idle_seconds: Seconds,
    /// Unused: seconds until its outside port may be another's.
    pub cools_for_seconds: Option<Seconds>,
}

impl Binding {
    fn new(record: &Record, cool_down: Seconds, now: Seconds) -> Self {
        // One that is being taken down is used by nobody.
        let connections = match record.connections.load() {
            dead if dead >= DEAD => 0,
            count => count,
        };
        let idle_seconds = since(record.last_used.load(), now);
        Self {
            protocol: record.protocol,
            network: record.network,
            guest_vport: record.guest_vport.into(),
            inside: (address(record.internal), record.internal_port.get()),
            outside: (address(record.external), record.external_port.get()),
            remote: (record.remote != 0).then(|| (address(record.remote), record.remote_port.get())),
            connections,
            age_seconds: since(record.created.load(), now),
            idle_seconds,
            cools_for_seconds: (connections == 0).then(|| cool_down.saturating_sub(idle_seconds)),
        }
    }
}

impl Tables {
    /// The bindings that `wanted` says yes to.
    pub fn bindings(&self, mut wanted: impl FnMut(&Binding) -> bool) -> Result<Vec<Binding>, TableError> {
        let timeouts = self.timeouts()?;
        let now = clock::now();
        let mut rows = Vec::new();
        self.0.bindings.for_each(&self.0.pools, |_, record| {
            let cool_down = timeouts.get(&record.network).map_or(0, |timeouts| timeouts.cool_down);
            let row = Binding::new(&record, cool_down, now);
            if wanted(&row) {
                rows.push(row);
            }
            Ok(())
        })?;
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use vnet_common::Word;

    use super::*;

    #[test]
    fn a_binding_cools_down_from_its_last_use() {
        let record = Record { last_used: Word::new(100), created: Word::new(50), ..Record::default() };
        let cases = [(1, 130, None), (0, 130, Some(90)), (0, 300, Some(0)), (DEAD, 130, Some(90))];
        for (connections, now, cools_for) in cases {
            record.connections.store(connections);
            let row = Binding::new(&record, 120, now);
            assert_eq!((row.cools_for_seconds, row.idle_seconds), (cools_for, now - 100), "{connections} {now}");
        }
    }
}
