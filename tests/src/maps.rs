//! The programs' maps, filled and read without the daemon.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use vnet_common::{
    DropReason, Ip,
    config::NetworkEntry,
    fdb::{FdbEntry, FdbKey},
    flow::{FlowEntry, FlowKey},
    forward::{ForwardEntry, ForwardKey},
    names::map,
    nat::{BindingEntry, BindingKey},
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
    Flows: map::FLOWS, FlowKey => FlowEntry;
    Bindings: map::BINDINGS, BindingKey => BindingEntry;
}

pub fn put_vport(ebpf: &mut Ebpf, id: u32, entry: VportEntry) -> Result<()> {
    let bytes: [u8; size_of::<VportEntry>()] = transmute!(entry);
    let mut vports: Array<_, [u8; size_of::<VportEntry>()]> =
        Array::try_from(ebpf.map_mut(map::VPORTS).context("VPORTS")?)?;
    Ok(vports.set(id, bytes, 0)?)
}

pub fn put_network(ebpf: &mut Ebpf, id: u16, entry: NetworkEntry) -> Result<()> {
    let bytes: [u8; size_of::<NetworkEntry>()] = transmute!(entry);
    let mut networks: Array<_, [u8; size_of::<NetworkEntry>()]> =
        Array::try_from(ebpf.map_mut(map::NETWORKS).context("NETWORKS")?)?;
    Ok(networks.set(u32::from(id), bytes, 0)?)
}

/// `length` counts over the 128 bits of [`Ip`].
pub fn put_routed_subnet(ebpf: &mut Ebpf, address: Ip, length: u32, network: u16) -> Result<()> {
    let address: [u8; 16] = transmute!(address);
    let mut subnets: LpmTrie<_, [u8; 16], u32> =
        LpmTrie::try_from(ebpf.map_mut(map::ROUTED_SUBNETS).context("ROUTED_SUBNETS")?)?;
    Ok(subnets.insert(&Key::new(length, address), u32::from(network), 0)?)
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
