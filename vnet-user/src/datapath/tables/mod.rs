//! Typed access to everything that the datapath and the daemon share. No other part of the daemon
//! touches a map.
//!
//! [`Tables`] is a handle: clones of it share the maps, and all of its methods may be called from
//! several threads. A write that fails says which table it was, and tells a full one apart.

mod bindings;
mod connections;
mod counters;
mod events;
mod fdb;
mod fill;
mod forwards;
mod fragments;
mod guests;
mod hosts;
mod networks;
mod pairs;
mod settings;
pub(super) mod table;
mod vports;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use vnet_common::{
    Ip,
    config::{NetworkEntry, Settings, SubnetKey},
    fdb::{FdbEntry, FdbKey},
    flow::Connection as ConnectionRecord,
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    index::Pool,
    names::map,
    nat::{Binding as BindingRecord, GuestUse},
    stats::VportStats,
    vport::{FloodList, LocalEntry, VportEntry},
};

pub use self::{
    bindings::Binding,
    connections::{Connection, Origin, Tuple},
    events::EventReader,
    fdb::FdbRow,
    fill::TableFill,
    guests::GuestUsage,
    networks::NetworkSettings,
};
use self::{
    pairs::PairTable,
    table::{Counters, Table},
};
use super::{TableError, expiry::Expirers};

/// The datapath's tables.
#[derive(Clone)]
pub struct Tables(pub(super) Arc<Inner>);

pub(super) struct Inner {
    vport_by_ifindex: Table<u32, u32>,
    vports: Table<u32, VportEntry>,
    pub(super) networks: Table<u32, NetworkEntry>,
    floods: Table<u32, FloodList>,
    pub(super) fdb: Table<FdbKey, FdbEntry>,
    locals: Table<Ip, LocalEntry>,
    routed_subnets: Table<SubnetKey, u32>,
    forwards: Table<ForwardKey, ForwardEntry>,
    pub(super) settings: Table<u32, Settings>,
    pub(super) connections: PairTable<ConnectionRecord>,
    pub(super) bindings: PairTable<BindingRecord>,
    pub(super) pools: Table<u32, Pool>,
    pub(super) guests: Table<u32, GuestUse>,
    fragments: Table<FragmentKey, FragmentEntry>,
    held_fragments: Table<HeldKey, HeldFragment>,
    externals: Table<Ip, u32>,
    vport_stats: Counters<VportStats>,
    event_counts: Counters<u64>,
    pub(super) expirers: Expirers,
    /// Where the maps are pinned.
    directory: PathBuf,
    /// Held over every read-change-write of tables that only the daemon writes.
    writing: Mutex<()>,
}

impl Tables {
    /// Opens the maps pinned in `directory`.
    pub(super) fn open(directory: &Path, expirers: Expirers) -> Result<Self, TableError> {
        Ok(Self(Arc::new(Inner {
            vport_by_ifindex: Table::open(directory, map::VPORT_BY_IFINDEX)?,
            vports: Table::open(directory, map::VPORTS)?,
            networks: Table::open(directory, map::NETWORKS)?,
            floods: Table::open(directory, map::FLOODS)?,
            fdb: Table::open(directory, map::FDB)?,
            locals: Table::open(directory, map::LOCALS)?,
            routed_subnets: Table::open(directory, map::ROUTED_SUBNETS)?,
            forwards: Table::open(directory, map::FORWARDS)?,
            settings: Table::open(directory, map::SETTINGS)?,
            connections: PairTable::open(directory, map::CONNECTIONS, 0, |record: &ConnectionRecord| {
                record.last_seen.load() != 0
            })?,
            bindings: PairTable::open(directory, map::BINDINGS, 1, |record: &BindingRecord| {
                record.last_used.load() != 0
            })?,
            pools: Table::open(directory, map::POOLS)?,
            guests: Table::open(directory, map::GUESTS)?,
            fragments: Table::open(directory, map::FRAGMENTS)?,
            held_fragments: Table::open(directory, map::HELD_FRAGMENTS)?,
            externals: Table::open(directory, map::EXTERNALS)?,
            vport_stats: Counters::open(directory, map::VPORT_STATS)?,
            event_counts: Counters::open(directory, map::EVENT_COUNTS)?,
            expirers,
            directory: directory.to_owned(),
            writing: Mutex::new(()),
        })))
    }
}

impl Inner {
    /// Runs a read-change-write with no other one beside it.
    fn writing<T>(&self, change: impl FnOnce() -> T) -> T {
        // The lock guards no data of its own: one poisoned by a panic is as good as any.
        let _guard = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change()
    }
}

/// The slot `number` of an array, or an error where it has none.
fn slot<K, V>(table: &Table<K, V>, number: u32) -> Result<u32, TableError>
where
    K: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
    V: zerocopy::FromBytes + zerocopy::IntoBytes,
{
    // Slot 0 stands for "none" in vports and for the outside in networks.
    if number == 0 || number >= table.capacity() {
        return Err(TableError::NoSlot { table: table.name(), slot: number });
    }
    Ok(number)
}
