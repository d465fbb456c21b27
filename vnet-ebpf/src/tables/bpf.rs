//! BPF maps behind [`Tables`].

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{HashMap, lpm_trie::Key},
};
use vnet_common::{
    DropReason, Ip,
    config::{NetworkEntry, NetworkId},
    fdb::{FdbEntry, FdbKey},
    flow::{FlowEntry, FlowKey},
    forward::{ForwardEntry, ForwardKey},
    nat::{BindingEntry, BindingKey},
    stats::{EventCount, VportStats},
    vport::{VportEntry, VportId},
};

use super::{InsertError, Table, Tables};
use crate::{datapath::Work, maps, verifier};

/// `-EEXIST`.
const EXISTS: i32 = -17;

impl<K, V> Table<K, V> for HashMap<K, V> {
    type Ref<'a>
        = &'a V
    where
        Self: 'a;

    #[inline(always)]
    fn lookup(&self, key: &K) -> Option<&V> {
        // SAFETY: entries live until the program's end (RCU), maps that change are not preallocated,
        // and words that change in place are atomics.
        unsafe { self.get(key) }
    }

    #[inline(always)]
    fn insert(&self, key: &K, value: &V) -> Result<(), InsertError> {
        match HashMap::insert(self, key, value, u64::from(BPF_NOEXIST)) {
            Ok(()) => Ok(()),
            Err(EXISTS) => Err(InsertError::Exists),
            Err(_) => Err(InsertError::Full),
        }
    }

    #[inline(always)]
    fn remove(&self, key: &K) -> bool {
        HashMap::remove(self, key).is_ok()
    }
}

/// The maps of this object.
pub struct BpfTables;

impl BpfTables {
    #[inline(always)]
    fn stats(vport: VportId, change: impl FnOnce(&mut VportStats)) {
        if let Some(stats) = maps::VPORT_STATS.get_ptr_mut(vport) {
            // SAFETY: the entry is this CPU's own; an interrupting program may lose a count, no more.
            change(unsafe { &mut *stats });
        }
    }
}

impl Tables for BpfTables {
    type Fdb = HashMap<FdbKey, FdbEntry>;
    type Flows = HashMap<FlowKey, FlowEntry>;
    type Bindings = HashMap<BindingKey, BindingEntry>;
    type Config<'a, V: 'static> = &'a V;
    type WorkRef<'a> = &'a mut Work;

    #[inline(always)]
    fn fdb(&self) -> &Self::Fdb {
        &maps::FDB
    }

    #[inline(always)]
    fn flows(&self) -> &Self::Flows {
        &maps::FLOWS
    }

    #[inline(always)]
    fn bindings(&self) -> &Self::Bindings {
        &maps::BINDINGS
    }

    #[inline(always)]
    fn vport_by_ifindex(&self, ifindex: u32) -> Option<VportId> {
        // SAFETY: a word, written whole.
        unsafe { maps::VPORT_BY_IFINDEX.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn vport(&self, id: VportId) -> Option<&VportEntry> {
        maps::VPORTS.get(id)
    }

    #[inline(always)]
    fn network(&self, id: NetworkId) -> Option<&NetworkEntry> {
        maps::NETWORKS.get(u32::from(id))
    }

    #[inline(always)]
    fn for_each_member(&self, network: NetworkId, mut reach: impl FnMut(VportId)) {
        // SAFETY: an update puts a new element into place, it never writes into this one.
        let Some(list) = (unsafe { maps::FLOODS.get(u32::from(network)) }) else { return };
        verifier::repeat(list.count, |slot| match list.vports.get(slot as usize) {
            Some(vport) => {
                reach(*vport);
                true
            }
            None => false,
        });
    }

    #[inline(always)]
    fn forward(&self, key: &ForwardKey) -> Option<&ForwardEntry> {
        // SAFETY: as for `for_each_member`.
        unsafe { maps::FORWARDS.get(key) }
    }

    #[inline(always)]
    fn is_local(&self, address: &Ip) -> bool {
        maps::LOCALS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn routed_network(&self, address: &Ip) -> Option<NetworkId> {
        maps::ROUTED_SUBNETS.get(Key::new(128, *address)).map(|network| *network as NetworkId)
    }

    #[inline(always)]
    fn work(&self) -> Option<&mut Work> {
        // SAFETY: this CPU's own. Bottom halves are off at every hook, and the programs that may run
        // inside another one (egress of a device that a copy is flooded to) do not use it. All zero,
        // as the kernel made it, is a value of every field.
        maps::WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }

    #[inline(always)]
    fn count_received(&self, vport: VportId, bytes: u32) {
        Self::stats(vport, |stats| {
            stats.rx_frames = stats.rx_frames.wrapping_add(1);
            stats.rx_bytes = stats.rx_bytes.wrapping_add(u64::from(bytes));
        });
    }

    #[inline(always)]
    fn count_sent(&self, vport: VportId, bytes: u32) {
        Self::stats(vport, |stats| {
            stats.tx_frames = stats.tx_frames.wrapping_add(1);
            stats.tx_bytes = stats.tx_bytes.wrapping_add(u64::from(bytes));
        });
    }

    #[inline(always)]
    fn count_drop(&self, vport: VportId, reason: DropReason) {
        Self::stats(vport, |stats| {
            if let Some(count) = stats.drops.get_mut(verifier::unknown(reason as usize)) {
                *count = count.wrapping_add(1);
            }
        });
    }

    #[inline(always)]
    fn count_event(&self, event: EventCount) {
        if let Some(count) = maps::EVENT_COUNTS.get_ptr_mut(event as u32) {
            // SAFETY: this CPU's own word.
            unsafe { *count = (*count).wrapping_add(1) };
        }
    }
}
