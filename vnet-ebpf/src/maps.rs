//! Every map: who writes it, who reads it, what happens when it is full.
//!
//! All but `WORK` are pinned by the daemon and outlive it. Names stand in
//! [`vnet_common::names::map`].

use crate::datapath::Work;
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray},
};
use vnet_common::{
    Ip,
    config::{MAX_NETWORKS, NetworkEntry},
    fdb::{FdbEntry, FdbKey},
    flow::{FlowEntry, FlowKey},
    forward::{ForwardEntry, ForwardKey},
    nat::{BindingEntry, BindingKey},
    stats::{EventCount, VportStats},
    vport::{FloodList, LocalEntry, MAX_VPORTS, VportEntry},
};

/// ifindex → vport. Daemon writes. One entry a device, so it cannot be full before `VPORTS` is.
#[map]
pub static VPORT_BY_IFINDEX: HashMap<u32, u32> = HashMap::with_max_entries(MAX_VPORTS, 0);

/// vport → device and role. Daemon writes.
#[map]
pub static VPORTS: Array<VportEntry> = Array::with_max_entries(MAX_VPORTS, 0);

/// network → mode, gateway, timers. Daemon writes; the datapath only steps `generation`.
#[map]
pub static NETWORKS: Array<NetworkEntry> = Array::with_max_entries(MAX_NETWORKS, 0);

/// network → flood members. Daemon writes whole lists, readers see the old or the new one.
#[map]
pub static FLOODS: HashMap<u32, FloodList> = HashMap::with_max_entries(MAX_NETWORKS, BPF_F_NO_PREALLOC);

/// (network, VLAN, MAC) → vport. Datapath learns, daemon ages. Full: frames still go (flooded), and
/// `fdb-full` counts.
#[map]
pub static FDB: HashMap<FdbKey, FdbEntry> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The host's own addresses. Daemon writes, from netlink.
#[map]
pub static LOCALS: HashMap<Ip, LocalEntry> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Subnets of routed networks. Daemon writes.
#[map]
pub static ROUTED_SUBNETS: LpmTrie<Ip, u32> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// (address, port, protocol) → guest. Daemon writes; one entry a port.
#[map]
pub static FORWARDS: HashMap<ForwardKey, ForwardEntry> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// One entry a direction of a connection. Datapath inserts both or neither, daemon ages. Full: new
/// connections are refused with `table-full`; a live one is never evicted, so this is no LRU map.
#[map]
pub static FLOWS: HashMap<FlowKey, FlowEntry> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Internal and external sides of NAT bindings. As `FLOWS`.
#[map]
pub static BINDINGS: HashMap<BindingKey, BindingEntry> = HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);

/// vport → counters. Datapath writes, daemon sums and resets.
#[map]
pub static VPORT_STATS: PerCpuArray<VportStats> = PerCpuArray::with_max_entries(MAX_VPORTS, 0);

/// [`EventCount`] → count. Datapath writes.
#[map]
pub static EVENT_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EventCount::COUNT, 0);

/// Working memory of one CPU; nothing outlives a run of a program.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
