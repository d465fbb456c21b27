//! Plain memory behind [`Tables`]: for tests, property tests and fuzzing.
//!
//! As in the kernel, an entry that was looked up stays readable after its removal (there RCU, here
//! `Rc`), its words change in place for everybody, and each CPU has working memory of its own. Tests
//! can make tables small, have an insert fail, and let another CPU run between two accesses.

mod pairs;
mod table;

use std::{
    cell::{RefCell, RefMut},
    collections::HashMap,
    rc::Rc,
};

use vnet_common::{
    DropReason, Ip, Mac, Word,
    config::{
        MAX_GATEWAY_ADDRESSES, MAX_NETWORKS, MAX_UPLINKS, NatPolicy, NetworkEntry, NetworkId, Settings, Subnet,
        Timeouts,
    },
    event::ConnectionEvent,
    fdb::{FdbEntry, FdbKey},
    flow::{Connection, MAX_PATHS, PathEntry},
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    nat::{Binding, GuestUse, PeerKey},
    stats::{EventCount, VportStats},
    vport::{MAX_VPORTS, VportEntry, VportId},
};

pub use pairs::{CAPACITY, MockPairs};
pub use table::MockTable;

use self::table::Schedule;
use super::Tables;
use crate::datapath::{ErrorBudget, Work};

/// What only the daemon writes.
#[derive(Clone, Default)]
struct Config {
    settings: Settings,
    vport_by_ifindex: HashMap<u32, VportId>,
    vports: HashMap<VportId, Rc<VportEntry>>,
    networks: HashMap<NetworkId, Rc<NetworkEntry>>,
    members: HashMap<NetworkId, Vec<VportId>>,
    forwards: HashMap<ForwardKey, Rc<ForwardEntry>>,
    locals: Vec<Ip>,
    externals: HashMap<Ip, NetworkId>,
    routed_subnets: Vec<(Ip, u8, NetworkId)>,
}

/// The maps, shared by all CPUs.
struct Shared {
    schedule: Rc<Schedule>,
    fdb: MockTable<FdbKey, FdbEntry>,
    connections: MockPairs<Connection>,
    bindings: MockPairs<Binding>,
    peers: MockTable<PeerKey, u32>,
    fragments: MockTable<FragmentKey, FragmentEntry>,
    held: MockTable<HeldKey, HeldFragment>,
    paths: RefCell<HashMap<u32, Rc<PathEntry>>>,
    guests: RefCell<HashMap<VportId, Rc<GuestUse>>>,
    config: RefCell<Config>,
    error_budgets: RefCell<HashMap<VportId, Rc<ErrorBudget>>>,
    stats: RefCell<HashMap<VportId, VportStats>>,
    events: RefCell<HashMap<u32, u64>>,
    reports: RefCell<Vec<ConnectionEvent>>,
}

/// The tables as one CPU sees them.
pub struct MockTables {
    shared: Rc<Shared>,
    work: RefCell<Work>,
}

impl Default for MockTables {
    fn default() -> Self {
        let schedule = Rc::default();
        let shared = Shared {
            fdb: MockTable::new(&schedule),
            connections: MockPairs::new(&schedule),
            bindings: MockPairs::new(&schedule),
            peers: MockTable::new(&schedule),
            fragments: MockTable::new(&schedule),
            held: MockTable::new(&schedule),
            paths: RefCell::default(),
            guests: RefCell::default(),
            schedule,
            config: RefCell::default(),
            error_budgets: RefCell::default(),
            stats: RefCell::default(),
            events: RefCell::default(),
            reports: RefCell::default(),
        };
        Self { shared: Rc::new(shared), work: RefCell::new(Work::empty()) }
    }
}

impl MockTables {
    /// Tables of the same content, which share nothing with these.
    pub fn copy(&self) -> Self {
        let own = &self.shared;
        let schedule = Rc::default();
        let mut config = own.config.borrow().clone();
        for network in config.networks.values_mut() {
            *network = Rc::new(NetworkEntry::clone(network));
        }
        let copy = Shared {
            fdb: own.fdb.copy(&schedule),
            connections: own.connections.copy(&schedule),
            bindings: own.bindings.copy(&schedule),
            peers: own.peers.copy(&schedule),
            fragments: own.fragments.copy(&schedule),
            held: own.held.copy(&schedule),
            paths: RefCell::new(deep_copy(&own.paths.borrow())),
            guests: RefCell::new(deep_copy(&own.guests.borrow())),
            error_budgets: RefCell::new(deep_copy(&own.error_budgets.borrow())),
            schedule,
            config: RefCell::new(config),
            stats: own.stats.clone(),
            events: own.events.clone(),
            reports: own.reports.clone(),
        };
        Self { shared: Rc::new(copy), work: RefCell::new(Work::empty()) }
    }

    /// The same tables for another CPU.
    pub fn other_cpu(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), work: RefCell::new(Work::empty()) }
    }

    /// Has `act` happen once, after `others` more accesses and before the next.
    pub fn interrupt_after(&self, others: u64, act: impl FnOnce() + 'static) {
        self.shared.schedule.interrupt_after(others, act);
    }

    /// Forgets an act whose time has not come.
    pub fn cancel_interruption(&self) {
        self.shared.schedule.cancel();
    }

    /// Accesses so far to the tables that the datapath fills.
    pub fn accesses(&self) -> u64 {
        self.shared.schedule.accesses()
    }

    /// Sets a vport, and the way from its device to it.
    pub fn set_vport(&self, id: VportId, vport: VportEntry) {
        let mut config = self.shared.config.borrow_mut();
        config.vport_by_ifindex.retain(|_, other| *other != id);
        if vport.ifindex != 0 {
            config.vport_by_ifindex.insert(vport.ifindex, id);
        }
        config.vports.insert(id, Rc::new(vport));
    }

    pub fn set_network(&self, id: NetworkId, network: NetworkEntry) {
        self.shared.config.borrow_mut().networks.insert(id, Rc::new(network));
    }

    pub fn set_members(&self, network: NetworkId, vports: Vec<VportId>) {
        self.shared.config.borrow_mut().members.insert(network, vports);
    }

    pub fn set_forward(&self, key: ForwardKey, forward: ForwardEntry) {
        self.shared.config.borrow_mut().forwards.insert(key, Rc::new(forward));
    }

    pub fn remove_forward(&self, key: &ForwardKey) {
        self.shared.config.borrow_mut().forwards.remove(key);
    }

    pub fn add_local(&self, address: Ip) {
        self.shared.config.borrow_mut().locals.push(address);
    }

    /// An external address of a network's pool.
    pub fn add_external(&self, address: Ip, network: NetworkId) {
        self.shared.config.borrow_mut().externals.insert(address, network);
    }

    /// `length` counts over the 128 bits of [`Ip`].
    pub fn add_routed_subnet(&self, prefix: Ip, length: u8, network: NetworkId) {
        self.shared.config.borrow_mut().routed_subnets.push((prefix, length, network));
    }

    /// A vport's counters.
    pub fn stats(&self, vport: VportId) -> VportStats {
        self.shared.stats.borrow().get(&vport).copied().unwrap_or(NO_STATS)
    }

    /// What a guest uses.
    pub fn guest_use(&self, vport: VportId) -> Rc<GuestUse> {
        Rc::clone(self.shared.guests.borrow_mut().entry(vport).or_default())
    }

    /// Guests that use something, or have.
    pub fn guest_uses(&self) -> Vec<(VportId, Rc<GuestUse>)> {
        self.shared.guests.borrow().iter().map(|(vport, used)| (*vport, Rc::clone(used))).collect()
    }

    /// Slots of `PATHS` that were ever used.
    pub fn paths(&self) -> Vec<(u32, Rc<PathEntry>)> {
        let paths = self.shared.paths.borrow();
        let used = paths.iter().filter(|(_, entry)| entry.used.load() != 0);
        used.map(|(slot, entry)| (*slot, Rc::clone(entry))).collect()
    }

    pub fn set_settings(&self, settings: Settings) {
        self.shared.config.borrow_mut().settings = settings;
    }

    pub fn event(&self, event: EventCount) -> u64 {
        self.shared.events.borrow().get(&(event as u32)).copied().unwrap_or(0)
    }

    /// Takes what followers of connections would have been told.
    pub fn take_reports(&self) -> Vec<ConnectionEvent> {
        self.shared.reports.take()
    }

    /// Sets all counters back to zero.
    pub fn reset_counters(&self) {
        self.shared.stats.take();
        self.shared.events.take();
    }

    fn count(&self, vport: VportId, change: impl FnOnce(&mut VportStats)) {
        // Slots of an array: others are not counted.
        if vport < MAX_VPORTS {
            change(self.shared.stats.borrow_mut().entry(vport).or_insert(NO_STATS));
        }
    }
}

const NO_STATS: VportStats =
    VportStats { rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0, drops: [0; DropReason::SLOTS] };

fn deep_copy<V: Clone>(entries: &HashMap<u32, Rc<V>>) -> HashMap<u32, Rc<V>> {
    entries.iter().map(|(key, value)| (*key, Rc::new(V::clone(value)))).collect()
}

/// A free slot of the array, as the kernel zeroes it.
fn free_network() -> NetworkEntry {
    NetworkEntry {
        mode: 0,
        pad: 0,
        gateway_mac: Mac::ZERO,
        gateway_vport: 0,
        subnets: [Subnet::default(); MAX_GATEWAY_ADDRESSES],
        uplinks: [0; MAX_UPLINKS],
        nat: NatPolicy::new(0, 0),
        timeouts: Timeouts { udp: 0, tcp_established: 0, tcp_transitory: 0, icmp: 0, fragment: 0, cool_down: 0 },
        ageing: 0,
        generation: Word::new(0),
    }
}

impl Tables for MockTables {
    type Fdb = MockTable<FdbKey, FdbEntry>;
    type Connections = MockPairs<Connection>;
    type Bindings = MockPairs<Binding>;
    type Peers = MockTable<PeerKey, u32>;
    type Fragments = MockTable<FragmentKey, FragmentEntry>;
    type Held = MockTable<HeldKey, HeldFragment>;
    type Config<'a, V: 'static> = Rc<V>;
    type WorkRef<'a> = RefMut<'a, Work>;

    fn fdb(&self) -> &Self::Fdb {
        &self.shared.fdb
    }

    fn connections(&self) -> &Self::Connections {
        &self.shared.connections
    }

    fn bindings(&self) -> &Self::Bindings {
        &self.shared.bindings
    }

    fn peers(&self) -> &Self::Peers {
        &self.shared.peers
    }

    fn fragments(&self) -> &Self::Fragments {
        &self.shared.fragments
    }

    fn held(&self) -> &Self::Held {
        &self.shared.held
    }

    fn settings(&self) -> Option<Rc<Settings>> {
        Some(Rc::new(self.shared.config.borrow().settings))
    }

    fn path(&self, slot: u32) -> Option<Rc<PathEntry>> {
        (slot < MAX_PATHS).then(|| Rc::clone(self.shared.paths.borrow_mut().entry(slot).or_default()))
    }

    fn guest(&self, vport: VportId) -> Option<Rc<GuestUse>> {
        (vport < MAX_VPORTS).then(|| self.guest_use(vport))
    }

    fn vport_by_ifindex(&self, ifindex: u32) -> Option<VportId> {
        self.shared.config.borrow().vport_by_ifindex.get(&ifindex).copied()
    }

    fn vport(&self, id: VportId) -> Option<Rc<VportEntry>> {
        let set = self.shared.config.borrow().vports.get(&id).map(Rc::clone);
        set.or_else(|| (id < MAX_VPORTS).then(Rc::default))
    }

    fn network(&self, id: NetworkId) -> Option<Rc<NetworkEntry>> {
        let set = self.shared.config.borrow().networks.get(&id).map(Rc::clone);
        set.or_else(|| (u32::from(id) < MAX_NETWORKS).then(|| Rc::new(free_network())))
    }

    fn for_each_member(&self, network: NetworkId, reach: impl FnMut(VportId)) {
        let members = self.shared.config.borrow().members.get(&network).cloned();
        members.unwrap_or_default().into_iter().for_each(reach);
    }

    fn forward(&self, key: &ForwardKey) -> Option<Rc<ForwardEntry>> {
        self.shared.config.borrow().forwards.get(key).map(Rc::clone)
    }

    fn is_local(&self, address: &Ip) -> bool {
        self.shared.config.borrow().locals.contains(address)
    }

    fn external_network(&self, address: &Ip) -> Option<NetworkId> {
        self.shared.config.borrow().externals.get(address).copied()
    }

    fn routed_network(&self, address: &Ip) -> Option<NetworkId> {
        let config = self.shared.config.borrow();
        let holding = config.routed_subnets.iter().filter(|(prefix, length, _)| address.in_prefix(prefix, *length));
        holding.max_by_key(|(_, length, _)| *length).map(|(_, _, network)| *network)
    }

    fn error_budget(&self, vport: VportId) -> Option<Rc<ErrorBudget>> {
        (vport < MAX_VPORTS).then(|| Rc::clone(self.shared.error_budgets.borrow_mut().entry(vport).or_default()))
    }

    fn repeat(&self, count: u32, step: impl FnMut(u32) -> bool) {
        // Stops at the first false.
        let _ = (0..count).all(step);
    }

    fn work(&self) -> Option<RefMut<'_, Work>> {
        self.work.try_borrow_mut().ok()
    }

    fn count_received(&self, vport: VportId, bytes: u32) {
        self.count(vport, |stats| {
            stats.rx_frames = stats.rx_frames.wrapping_add(1);
            stats.rx_bytes = stats.rx_bytes.wrapping_add(u64::from(bytes));
        });
    }

    fn count_sent(&self, vport: VportId, bytes: u32) {
        self.count(vport, |stats| {
            stats.tx_frames = stats.tx_frames.wrapping_add(1);
            stats.tx_bytes = stats.tx_bytes.wrapping_add(u64::from(bytes));
        });
    }

    fn count_drop(&self, vport: VportId, reason: DropReason) {
        self.count(vport, |stats| {
            if let Some(count) = stats.drops.get_mut(reason as usize) {
                *count = count.wrapping_add(1);
            }
        });
    }

    fn count_event(&self, event: EventCount) {
        let mut events = self.shared.events.borrow_mut();
        let count = events.entry(event as u32).or_insert(0);
        *count = count.wrapping_add(1);
    }

    fn report(&self, event: &ConnectionEvent) {
        self.shared.reports.borrow_mut().push(*event);
    }
}
