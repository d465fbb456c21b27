//! Everything that a frame may change, as lines that can be compared and read.

use vnet_common::{
    DropReason,
    config::NetworkId,
    stats::{EventCount, VportStats},
    vport::VportId,
};
use vnet_ebpf::tables::Tables;

use crate::world::{BRIDGE, HOST_ONLY, ISOLATED, NAT, OTHER_NAT, ROUTED, VPORTS, World};

const NETWORKS: [NetworkId; 6] = [NAT, OTHER_NAT, ROUTED, HOST_ONLY, BRIDGE, ISOLATED];

impl World {
    /// Entries of all tables and generations of all networks, but no time stamps of the last packet.
    pub fn tables(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, entry) in self.tables.fdb().entries() {
            let entry = (*entry).clone();
            entry.last_seen.store(0);
            lines.push(format!("fdb {key:?} {entry:?}"));
        }
        for (index, connection) in self.tables.connections().entries() {
            let connection = (*connection).clone();
            connection.last_seen.store(0);
            lines.push(format!("connection {index} {connection:?}"));
        }
        for (index, binding) in self.tables.bindings().entries() {
            lines.push(format!("binding {index} {binding:?}"));
        }
        for (key, _) in self.tables.peers().entries() {
            lines.push(format!("peer {key:?}"));
        }
        for (slot, path) in self.tables.paths() {
            lines.push(format!("path {slot} {path:?}"));
        }
        for (vport, used) in self.tables.guest_uses() {
            let (connections, bindings) = (used.connections.load(), used.bindings.load());
            if connections + bindings != 0 {
                lines.push(format!("guest {vport} has {connections} connections and {bindings} ports"));
            }
        }
        for id in NETWORKS {
            lines.push(format!("network {id} generation {}", self.tables.network(id).unwrap().generation.load()));
        }
        lines.sort();
        lines
    }

    /// All counters that are not zero.
    pub fn counters(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for vport in VPORTS {
            count_vport(vport, &self.stats(vport), &mut lines);
        }
        for (event, name) in EventCount::ALL {
            match self.event(event) {
                0 => {}
                count => lines.push(format!("event {name} {count}")),
            }
        }
        lines.sort();
        lines
    }

    /// Forgets what was counted so far.
    pub fn reset_counters(&self) {
        self.tables.reset_counters();
    }
}

fn count_vport(vport: VportId, stats: &VportStats, lines: &mut Vec<String>) {
    if stats.rx_frames + stats.rx_bytes > 0 {
        lines.push(received(vport, stats.rx_frames, stats.rx_bytes));
    }
    if stats.tx_frames + stats.tx_bytes > 0 {
        lines.push(sent(vport, stats.tx_frames, stats.tx_bytes));
    }
    for reason in DropReason::ALL {
        match stats.drops[*reason as usize] {
            0 => {}
            count => lines.push(dropped(vport, *reason, count)),
        }
    }
}

pub fn received(vport: VportId, frames: u64, bytes: u64) -> String {
    format!("vport {vport} received {frames} frames {bytes} bytes")
}

pub fn sent(vport: VportId, frames: u64, bytes: u64) -> String {
    format!("vport {vport} sent {frames} frames {bytes} bytes")
}

pub fn dropped(vport: VportId, reason: DropReason, count: u64) -> String {
    format!("vport {vport} dropped {} {count}", reason.name())
}

pub fn event(event: EventCount, count: u64) -> String {
    let (_, name) = EventCount::ALL[event as usize];
    format!("event {name} {count}")
}
