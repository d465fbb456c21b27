//! The programs' maps, filled and read without the daemon.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use vnet_common::{
    DropReason, Ip,
    config::{NetworkEntry, Settings},
    fdb::{FdbEntry, FdbKey},
    flow::Connection,
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    index::{Bucket, Pool},
    names::map,
    nat::{Binding, GuestUse},
    stats::{EventCount, VportStats},
    vport::{FloodList, LocalEntry, VportEntry},
};
use zerocopy::{FromZeros, transmute};

/// Declares `put`, `get`, `all` and `clear` for a hash map as a type.
macro_rules! hash_map {
    ($($(#[$doc:meta])* $table:ident: $name:expr, $key:ty => $value:ty;)*) => {$(
        $(#[$doc])*
        pub struct $table;

        impl $table {
            pub fn put(ebpf: &mut Ebpf, key: $key, value: $value) -> Result<()> {
                let key: [u8; size_of::<$key>()] = transmute!(key);
                let value: [u8; size_of::<$value>()] = transmute!(value);
                let mut map: HashMap<_, [u8; size_of::<$key>()], [u8; size_of::<$value>()]> =
                    HashMap::try_from(ebpf.map_mut($name).context($name)?)?;
                map.insert(key, value, 0).context($name)
            }

            pub fn all(ebpf: &Ebpf) -> Result<Vec<($key, $value)>> {
                let map: HashMap<_, [u8; size_of::<$key>()], [u8; size_of::<$value>()]> =
                    HashMap::try_from(ebpf.map($name).context($name)?)?;
                map.iter().map(|row| row.map(|(key, value)| (transmute!(key), transmute!(value))).context($name)).collect()
            }

            pub fn clear(ebpf: &mut Ebpf) -> Result<()> {
                let mut map: HashMap<_, [u8; size_of::<$key>()], [u8; size_of::<$value>()]> =
                    HashMap::try_from(ebpf.map_mut($name).context($name)?)?;
                let keys: Vec<_> = map.keys().collect::<Result<_, _>>()?;
                keys.iter().try_for_each(|key| map.remove(key).context($name))
            }
        }
    )*};
}

hash_map! {
    Ifindexes: map::VPORT_BY_IFINDEX, u32 => u32;
    Floods: map::FLOODS, u32 => FloodList;
    Fdb: map::FDB, FdbKey => FdbEntry;
    Locals: map::LOCALS, Ip => LocalEntry;
    Forwards: map::FORWARDS, ForwardKey => ForwardEntry;
    Fragments: map::FRAGMENTS, FragmentKey => FragmentEntry;
    HeldFragments: map::HELD_FRAGMENTS, HeldKey => HeldFragment;
}

/// Declares `put`, `get` and `length` for an array as a type.
macro_rules! array {
    ($($table:ident: $name:expr, $value:ty;)*) => {$(
        pub struct $table;

        impl $table {
            pub fn put(ebpf: &mut Ebpf, slot: u32, value: $value) -> Result<()> {
                let value: [u8; size_of::<$value>()] = transmute!(value);
                let mut map: Array<_, [u8; size_of::<$value>()]> =
                    Array::try_from(ebpf.map_mut($name).context($name)?)?;
                map.set(slot, value, 0).context($name)
            }

            pub fn get(ebpf: &Ebpf, slot: u32) -> Result<$value> {
                let map: Array<_, [u8; size_of::<$value>()]> = Array::try_from(ebpf.map($name).context($name)?)?;
                Ok(transmute!(map.get(&slot, 0).context($name)?))
            }

            pub fn length(ebpf: &Ebpf) -> Result<u32> {
                let map: Array<_, [u8; size_of::<$value>()]> = Array::try_from(ebpf.map($name).context($name)?)?;
                Ok(map.len())
            }
        }
    )*};
}

array! {
    Vports: map::VPORTS, VportEntry;
    Networks: map::NETWORKS, NetworkEntry;
    SwitchSettings: map::SETTINGS, Settings;
    Guests: map::GUESTS, GuestUse;
    Pools: map::POOLS, Pool;
    ConnectionRecords: map::CONNECTIONS, Connection;
    ConnectionBuckets: map::CONNECTION_BUCKETS, Bucket;
    ConnectionRing: map::CONNECTION_RING, u32;
    BindingRecords: map::BINDINGS, Binding;
    BindingBuckets: map::BINDING_BUCKETS, Bucket;
    BindingRing: map::BINDING_RING, u32;
}

/// Declares `put`, `live`, `slots` and `clear` for a table of pairs as a type.
macro_rules! pair_table {
    ($($table:ident<$record:ty>: $records:ident, $buckets:ident, $ring:ident, pool $pool:literal, $life:ident;)*) => {$(
        pub struct $table;

        impl $table {
            /// Writes over a record that stands; the index is not touched.
            pub fn put(ebpf: &mut Ebpf, index: u32, record: $record) -> Result<()> {
                $records::put(ebpf, index, record)
            }

            /// Live records and their numbers.
            pub fn live(ebpf: &Ebpf) -> Result<Vec<(u32, $record)>> {
                let used = Pools::get(ebpf, $pool)?.fresh.load();
                let records = (1..=used).map(|index| Ok((index, $records::get(ebpf, index)?)));
                records.filter(|row| row.as_ref().map_or(true, |(_, record): &(u32, $record)| record.$life.load() != 0)).collect()
            }

            /// Slots of the index that are in use: two a live record, if all is well.
            pub fn slots(ebpf: &Ebpf) -> Result<usize> {
                let mut used = 0;
                for number in 0..$buckets::length(ebpf)? {
                    used += $buckets::get(ebpf, number)?.slots.iter().filter(|slot| slot.load() != 0).count();
                }
                Ok(used)
            }

            pub fn clear(ebpf: &mut Ebpf) -> Result<()> {
                let used = Pools::get(ebpf, $pool)?.fresh.load();
                if used == 0 {
                    return Ok(());
                }
                (1..=used).try_for_each(|index| $records::put(ebpf, index, Default::default()))?;
                (0..$buckets::length(ebpf)?).try_for_each(|number| $buckets::put(ebpf, number, Default::default()))?;
                (0..$ring::length(ebpf)?).try_for_each(|place| $ring::put(ebpf, place, 0))?;
                Pools::put(ebpf, $pool, Pool::default())
            }
        }
    )*};
}

pair_table! {
    Connections<Connection>: ConnectionRecords, ConnectionBuckets, ConnectionRing, pool 0, last_seen;
    Bindings<Binding>: BindingRecords, BindingBuckets, BindingRing, pool 1, last_used;
}

/// Readies the tables of connections and bindings, as large as they were loaded.
pub fn put_settings(ebpf: &mut Ebpf) -> Result<()> {
    let hash_seed = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d];
    let (connections, bindings) = (ConnectionRecords::length(ebpf)?, BindingRecords::length(ebpf)?);
    SwitchSettings::put(ebpf, 0, Settings { hash_seed, connections, bindings, ..Settings::default() })
}

/// Sizes that make room for one connection or binding less than this power of two.
pub fn pair_sizes(connections: u32, bindings: u32) -> [(&'static str, u32); 6] {
    [
        (map::CONNECTIONS, connections),
        (map::CONNECTION_BUCKETS, connections / 2),
        (map::CONNECTION_RING, connections),
        (map::BINDINGS, bindings),
        (map::BINDING_BUCKETS, bindings / 2),
        (map::BINDING_RING, bindings),
    ]
}

/// `length` counts over the 128 bits of [`Ip`].
pub fn put_routed_subnet(ebpf: &mut Ebpf, address: Ip, length: u32, network: u16) -> Result<()> {
    let address: [u8; 16] = transmute!(address);
    let mut subnets: LpmTrie<_, [u8; 16], u32> =
        LpmTrie::try_from(ebpf.map_mut(map::ROUTED_SUBNETS).context("ROUTED_SUBNETS")?)?;
    Ok(subnets.insert(&Key::new(length, address), u32::from(network), 0)?)
}

/// Lets a port have all its ICMP errors of a second again.
pub fn refill_error_budget(ebpf: &mut Ebpf, id: u32) -> Result<()> {
    let map = ebpf.map_mut("ERROR_BUDGETS").context("ERROR_BUDGETS")?;
    let mut budgets: Array<_, [u8; 8]> = Array::try_from(map)?;
    Ok(budgets.set(id, [0; 8], 0)?)
}

/// A vport's counters over all CPUs.
pub fn stats(ebpf: &Ebpf, id: u32) -> Result<VportStats> {
    let map: PerCpuArray<_, [u8; size_of::<VportStats>()]> =
        PerCpuArray::try_from(ebpf.map(map::VPORT_STATS).context("VPORT_STATS")?)?;
    let mut total = VportStats::new_zeroed();
    for cpu in map.get(&id, 0)?.iter() {
        let bytes: [u8; size_of::<VportStats>()] = *cpu;
        let one: VportStats = transmute!(bytes);
        total.rx_frames += one.rx_frames;
        total.rx_bytes += one.rx_bytes;
        total.tx_frames += one.tx_frames;
        total.tx_bytes += one.tx_bytes;
        total.drops.iter_mut().zip(one.drops).for_each(|(total, one)| *total += one);
    }
    Ok(total)
}

/// How often an event was counted, over all CPUs.
pub fn events(ebpf: &Ebpf, event: EventCount) -> Result<u64> {
    let map: PerCpuArray<_, u64> = PerCpuArray::try_from(ebpf.map(map::EVENT_COUNTS).context("EVENT_COUNTS")?)?;
    Ok(map.get(&(event as u32), 0)?.iter().sum())
}

/// Reasons that were counted, and how often.
pub fn drops(stats: &VportStats) -> Vec<(&'static str, u64)> {
    let counted = DropReason::ALL.iter().map(|reason| (reason.name(), stats.drops[*reason as usize]));
    counted.filter(|(_, count)| *count > 0).collect()
}
