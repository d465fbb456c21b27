//! The maps, behind a trait.

#[cfg(target_arch = "bpf")]
pub mod bpf;
#[cfg(not(target_arch = "bpf"))]
pub mod mock;

use core::ops::{Deref, DerefMut};

use vnet_common::{
    DropReason, Ip,
    config::{NetworkEntry, NetworkId},
    fdb::{FdbEntry, FdbKey},
    flow::{FlowEntry, FlowKey},
    forward::{ForwardEntry, ForwardKey},
    nat::{BindingEntry, BindingKey},
    stats::EventCount,
    vport::{VportEntry, VportId},
};

use crate::datapath::Work;

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
    type Flows: Table<FlowKey, FlowEntry>;
    type Bindings: Table<BindingKey, BindingEntry>;
    /// An entry of a table that only the daemon writes.
    type Config<'a, V: 'static>: Deref<Target = V>
    where
        Self: 'a;

    type WorkRef<'a>: DerefMut<Target = Work>
    where
        Self: 'a;

    fn fdb(&self) -> &Self::Fdb;
    fn flows(&self) -> &Self::Flows;
    fn bindings(&self) -> &Self::Bindings;

    fn vport_by_ifindex(&self, ifindex: u32) -> Option<VportId>;
    fn vport(&self, id: VportId) -> Option<Self::Config<'_, VportEntry>>;
    fn network(&self, id: NetworkId) -> Option<Self::Config<'_, NetworkEntry>>;
    /// Calls `reach` with every vport that a flooded frame of the network goes to.
    fn for_each_member(&self, network: NetworkId, reach: impl FnMut(VportId));
    fn forward(&self, key: &ForwardKey) -> Option<Self::Config<'_, ForwardEntry>>;
    /// True for an address of the host itself.
    fn is_local(&self, address: &Ip) -> bool;
    /// The routed network whose subnet holds the address.
    fn routed_network(&self, address: &Ip) -> Option<NetworkId>;

    /// Lends the working memory; `None` never happens but the verifier wants it handled.
    fn work(&self) -> Option<Self::WorkRef<'_>>;

    fn count_received(&self, vport: VportId, bytes: u32);
    fn count_sent(&self, vport: VportId, bytes: u32);
    fn count_drop(&self, vport: VportId, reason: DropReason);
    fn count_event(&self, event: EventCount);
}
