//! The maps, behind a trait.

#[cfg(target_arch = "bpf")]
pub mod bpf;
#[cfg(not(target_arch = "bpf"))]
pub mod mock;
pub mod pairs;

use core::ops::{Deref, DerefMut};

use vnet_common::{
    DropReason, Ip,
    config::{NetworkEntry, NetworkId, Settings},
    event::ConnectionEvent,
    fdb::{FdbEntry, FdbKey},
    flow::{Connection, PathEntry},
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    nat::{Binding, GuestUse, PeerKey},
    stats::EventCount,
    vport::{VportEntry, VportId},
};

use self::pairs::Pairs;
use crate::datapath::{ErrorBudget, Work};

/// Why an insert-if-absent did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Somebody else's entry stands there.
    Exists,
    /// No room, or no memory.
    Full,
}

/// A table that the datapath itself fills.
pub trait Table<K, V> {
    /// An entry where it lies: words that are shared are atomics in `V`.
    type Ref<'a>: Deref<Target = V>
    where
        Self: 'a;

    fn lookup(&self, key: &K) -> Option<Self::Ref<'_>>;

    /// Inserts where nothing stands; the success is the ownership.
    fn insert(&self, key: &K, value: &V) -> Result<(), InsertError>;

    /// True where something was removed.
    fn remove(&self, key: &K) -> bool;
}

/// All that the datapath knows beside the frame.
pub trait Tables {
    type Fdb: Table<FdbKey, FdbEntry>;
    type Connections: Pairs<Record = Connection>;
    type Bindings: Pairs<Record = Binding>;
    /// What a binding's guest has sent to; the least recently used entry makes room for a new one.
    type Peers: Table<PeerKey, u32>;
    type Fragments: Table<FragmentKey, FragmentEntry>;
    type Held: Table<HeldKey, HeldFragment>;
    /// A slot of an array: written by the daemon, except for its [`Word`](vnet_common::Word)s.
    type Config<'a, V: 'static>: Deref<Target = V>
    where
        Self: 'a;

    type WorkRef<'a>: DerefMut<Target = Work>
    where
        Self: 'a;

    fn fdb(&self) -> &Self::Fdb;
    fn connections(&self) -> &Self::Connections;
    fn bindings(&self) -> &Self::Bindings;
    fn peers(&self) -> &Self::Peers;
    fn fragments(&self) -> &Self::Fragments;
    fn held(&self) -> &Self::Held;

    fn settings(&self) -> Option<Self::Config<'_, Settings>>;
    fn path(&self, slot: u32) -> Option<Self::Config<'_, PathEntry>>;
    /// What the guest behind a vport uses.
    fn guest(&self, vport: VportId) -> Option<Self::Config<'_, GuestUse>>;

    fn vport_by_ifindex(&self, ifindex: u32) -> Option<VportId>;
    fn vport(&self, id: VportId) -> Option<Self::Config<'_, VportEntry>>;
    fn network(&self, id: NetworkId) -> Option<Self::Config<'_, NetworkEntry>>;
    /// Calls `reach` with every vport that a flooded frame of the network goes to.
    fn for_each_member(&self, network: NetworkId, reach: impl FnMut(VportId));
    fn forward(&self, key: &ForwardKey) -> Option<Self::Config<'_, ForwardEntry>>;
    /// True for an address of the host itself.
    fn is_local(&self, address: &Ip) -> bool;
    /// The network whose pool holds an external address.
    fn external_network(&self, address: &Ip) -> Option<NetworkId>;
    /// The routed network whose subnet holds the address.
    fn routed_network(&self, address: &Ip) -> Option<NetworkId>;

    /// How many ICMP errors may still go to a port.
    fn error_budget(&self, vport: VportId) -> Option<Self::Config<'_, ErrorBudget>>;
    /// Calls `step` with 0, 1, … below `count`, until it returns false.
    fn repeat(&self, count: u32, step: impl FnMut(u32) -> bool);

    /// Lends the working memory; `None` never happens but the verifier wants it handled.
    fn work(&self) -> Option<Self::WorkRef<'_>>;

    fn count_received(&self, vport: VportId, bytes: u32);
    fn count_sent(&self, vport: VportId, bytes: u32);
    fn count_drop(&self, vport: VportId, reason: DropReason);
    fn count_event(&self, event: EventCount);
    /// Tells those who follow connections; counts the event as lost where there is no room.
    fn report(&self, event: &ConnectionEvent);
}
