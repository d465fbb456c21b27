//! Every map: who writes it, who reads it, what happens when it is full.
//!
//! All but `ERROR_BUDGETS` and `WORK` are pinned by the daemon and outlive it. Names stand in
//! [`vnet_common::names::map`].

use crate::datapath::{ErrorBudget, Work};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use vnet_common::{
    Ip, Word,
    config::{MAX_NETWORKS, NetworkEntry, Settings},
    event::EVENTS_SIZE,
    fdb::{FdbEntry, FdbKey},
    flow::{Connection, MAX_PATHS, PathEntry},
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    index::{Bucket, Pool},
    nat::{Binding, GuestUse, PeerKey},
    socket::Detours,
    stats::{EventCount, VportStats},
    vport::{FloodList, LocalEntry, MAX_VPORTS, VportEntry},
};

/// Records of a table of pairs where nobody has set another size.
const RECORDS: u32 = 4096;

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

/// What concerns the whole switch. Daemon writes.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Connections, one record each. Datapath begins them, daemon ages. Full: new ones are refused with
/// `table-full`; a live one is never evicted. The daemon sets the real size when it loads, here and of
/// the three tables that go with it.
#[map]
pub static CONNECTIONS: Array<Connection> = Array::with_max_entries(RECORDS, BPF_F_MMAPABLE);

/// Either direction's tuple → connection, in buckets.
#[map]
pub static CONNECTION_BUCKETS: Array<Bucket> = Array::with_max_entries(RECORDS / 2, BPF_F_MMAPABLE);

/// Records of ended connections, waiting to be used again.
#[map]
pub static CONNECTION_RING: Array<Word> = Array::with_max_entries(RECORDS, 0);

/// NAT bindings. As `CONNECTIONS`.
#[map]
pub static BINDINGS: Array<Binding> = Array::with_max_entries(RECORDS, BPF_F_MMAPABLE);

/// Internal and external side → binding, in buckets.
#[map]
pub static BINDING_BUCKETS: Array<Bucket> = Array::with_max_entries(RECORDS / 2, BPF_F_MMAPABLE);

/// As `CONNECTION_RING`.
#[map]
pub static BINDING_RING: Array<Word> = Array::with_max_entries(RECORDS, 0);

/// Which records of `CONNECTIONS` (slot 0) and `BINDINGS` (slot 1) are free.
#[map]
pub static POOLS: Array<Pool> = Array::with_max_entries(2, 0);

/// Ways out that connections refer to. Datapath writes; a slot long unused is taken for another. Full:
/// connections decide their way for each packet.
#[map]
pub static PATHS: Array<PathEntry> = Array::with_max_entries(MAX_PATHS, 0);

/// Remotes that a binding's guest has sent to, beyond the first few. Full: the least recently used entry
/// goes, and its remote must be sent to again before it may open connections. No state of a connection.
#[map]
pub static PEERS: LruHashMap<PeerKey, u32> = LruHashMap::with_max_entries(65_536, 0);

/// Fragmented datagrams → ports. Datapath writes, daemon ages. Full (or the port's share is): the datagram is
/// dropped with `fragment-table-full`.
#[map]
pub static FRAGMENTS: HashMap<FragmentKey, FragmentEntry> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Fragments that came before their datagram's first one, whole frames. As `FRAGMENTS`.
#[map]
pub static HELD_FRAGMENTS: HashMap<HeldKey, HeldFragment> = HashMap::with_max_entries(512, BPF_F_NO_PREALLOC);

/// External addresses of pools → network. Daemon writes.
#[map]
pub static EXTERNALS: HashMap<Ip, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// vport → what its guest uses. Datapath writes.
#[map]
pub static GUESTS: Array<GuestUse> = Array::with_max_entries(MAX_VPORTS, 0);

/// vport → counters. Datapath writes, daemon sums and resets.
#[map]
pub static VPORT_STATS: PerCpuArray<VportStats> = PerCpuArray::with_max_entries(MAX_VPORTS, 0);

/// [`EventCount`] → count. Datapath writes.
#[map]
pub static EVENT_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(EventCount::COUNT, 0);

/// Socket of the host → what it asked for. Datapath writes; goes with the socket. No memory: the socket is led
/// to the guest all the same, and shown the guest's address. (Typed by BTF, as the kernel wants it.)
#[btf_map]
pub static DETOURS: SkStorage<Detours> = SkStorage::new();

/// vport → ICMP errors that it may still get this second. Datapath writes; a new daemon's programs begin
/// anew.
#[map]
pub static ERROR_BUDGETS: Array<ErrorBudget> = Array::with_max_entries(MAX_VPORTS, 0);

/// [`vnet_common::event::ConnectionEvent`]s, while somebody follows. Datapath writes, daemon takes. Full: the
/// event is lost, and `events-lost` counts.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_SIZE, 0);

/// Working memory of one CPU; nothing outlives a run of a program.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
