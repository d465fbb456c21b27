//! Plain memory behind [`Tables`]: for tests, property tests and fuzzing.
//!
//! As in the kernel, an entry that was looked up stays readable after its removal (there RCU, here
//! `Rc`), its words change in place for everybody, and each CPU has working memory of its own. Tests
//! can make tables small, have an insert fail, and let another CPU run between two accesses.

mod table;

use std::{
    cell::{RefCell, RefMut},
    collections::HashMap,
    rc::Rc,
};

use vnet_common::{
    DropReason, Ip, Mac, Word,
    config::{MAX_GATEWAY_ADDRESSES, MAX_NETWORKS, MAX_UPLINKS, NatPolicy, NetworkEntry, NetworkId, Subnet, Timeouts},
    fdb::{FdbEntry, FdbKey},
    flow::{FlowEntry, FlowKey},
    forward::{ForwardEntry, ForwardKey},
    nat::{BindingEntry, BindingKey},
    stats::{EventCount, VportStats},
    vport::{MAX_VPORTS, VportEntry, VportId},
};

pub use table::MockTable;

use self::table::Schedule;
use super::Tables;
use crate::datapath::Work;

/// What only the daemon writes.
#[derive(Clone, Default)]
struct Config {
    vport_by_ifindex: HashMap<u32, VportId>,
    vports: HashMap<VportId, Rc<VportEntry>>,
    networks: HashMap<NetworkId, Rc<NetworkEntry>>,
    members: HashMap<NetworkId, Vec<VportId>>,
    forwards: HashMap<ForwardKey, Rc<ForwardEntry>>,
    locals: Vec<Ip>,
    routed_subnets: Vec<(Ip, u8, NetworkId)>,
}

/// The maps, shared by all CPUs.
struct Shared {
    schedule: Rc<Schedule>,
    fdb: MockTable<FdbKey, FdbEntry>,
    flows: MockTable<FlowKey, FlowEntry>,
    bindings: MockTable<BindingKey, BindingEntry>,
    config: RefCell<Config>,
    stats: RefCell<HashMap<VportId, VportStats>>,
    events: RefCell<HashMap<u32, u64>>,
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
            flows: MockTable::new(&schedule),
            bindings: MockTable::new(&schedule),
            schedule,
            config: RefCell::default(),
            stats: RefCell::default(),
            events: RefCell::default(),
        };
        Self { shared: Rc::new(shared), work: RefCell::new(Work::empty()) }
    }
}

impl MockTables {
    /// Tables of the same content, which share nothing with these.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        copy.shared.fdb.fill_from(&self.shared.fdb);
        copy.shared.flows.fill_from(&self.shared.flows);
        copy.shared.bindings.fill_from(&self.shared.bindings);
        let mut config = self.shared.config.borrow().clone();
        for network in config.networks.values_mut() {
            *network = Rc::new(NetworkEntry::clone(network));
        }
        copy.shared.config.replace(config);
        copy.shared.stats.replace(self.shared.stats.borrow().clone());
        copy.shared.events.replace(self.shared.events.borrow().clone());
        copy
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

    /// `length` counts over the 128 bits of [`Ip`].
    pub fn add_routed_subnet(&self, prefix: Ip, length: u8, network: NetworkId) {
        self.shared.config.borrow_mut().routed_subnets.push((prefix, length, network));
    }

    /// A vport's counters.
    pub fn stats(&self, vport: VportId) -> VportStats {
        self.shared.stats.borrow().get(&vport).copied().unwrap_or(NO_STATS)
    }

    pub fn event(&self, event: EventCount) -> u64 {
        self.shared.events.borrow().get(&(event as u32)).copied().unwrap_or(0)
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
    type Flows = MockTable<FlowKey, FlowEntry>;
    type Bindings = MockTable<BindingKey, BindingEntry>;
    type Config<'a, V: 'static> = Rc<V>;
    type WorkRef<'a> = RefMut<'a, Work>;

    fn fdb(&self) -> &Self::Fdb {
        &self.shared.fdb
    }

    fn flows(&self) -> &Self::Flows {
        &self.shared.flows
    }

    fn bindings(&self) -> &Self::Bindings {
        &self.shared.bindings
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

    fn routed_network(&self, address: &Ip) -> Option<NetworkId> {
        let config = self.shared.config.borrow();
        let holding = config.routed_subnets.iter().filter(|(prefix, length, _)| address.in_prefix(prefix, *length));
        holding.max_by_key(|(_, length, _)| *length).map(|(_, _, network)| *network)
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
}
