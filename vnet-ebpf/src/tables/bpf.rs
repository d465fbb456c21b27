//! BPF maps behind [`Tables`].

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{HashMap, LruHashMap, lpm_trie::Key},
};
use vnet_common::{
    DropReason, Ip, Seconds, Word,
    config::{NetworkEntry, NetworkId, Settings},
    event::ConnectionEvent,
    fdb::{FdbEntry, FdbKey},
    flow::{Connection, PathEntry},
    forward::{ForwardEntry, ForwardKey},
    fragment::{FragmentEntry, FragmentKey, HeldFragment, HeldKey},
    index::{self, Bucket, KeySide, Pool},
    nat::{Binding, GuestUse, PeerKey},
    stats::{EventCount, VportStats},
    vport::{VportEntry, VportId},
};

use super::{
    InsertError, Table, Tables,
    pairs::{self, Inserted, Pairs},
};
use crate::{
    datapath::{ErrorBudget, Work},
    maps, verifier,
};

/// `-EEXIST`.
const EXISTS: i32 = -17;

/// Hash maps behind [`Table`].
macro_rules! tables {
    ($($map:ident),*) => { $(
        impl<K, V> Table<K, V> for $map<K, V> {
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
                match $map::insert(self, key, value, u64::from(BPF_NOEXIST)) {
                    Ok(()) => Ok(()),
                    Err(EXISTS) => Err(InsertError::Exists),
                    Err(_) => Err(InsertError::Full),
                }
            }

            #[inline(always)]
            fn remove(&self, key: &K) -> bool {
                $map::remove(self, key).is_ok()
            }
        }
    )* };
}

tables!(HashMap, LruHashMap);

/// A table of pairs over four maps. (A type without fields each: references to maps may not lie in data, only
/// in code, where the loader puts them in.)
macro_rules! pairs {
    ($($table:ident<$record:ty>: $records:ident, $buckets:ident, $ring:ident, pool $pool:literal, $capacity:ident,
        $take:ident, $claim:ident, $unlink:ident;)*) => { $(
        /// See [`Tables`].
        pub struct $table;

        impl Pairs for $table {
            type Record = $record;
            type Ref<'a> = &'a $record;
            type BucketRef<'a> = &'a Bucket;
            type PoolRef<'a> = &'a Pool;
            type PlaceRef<'a> = &'a Word;

            #[inline(always)]
            fn hash(&self, words: [u64; 3]) -> u64 {
                maps::SETTINGS.get(0).map_or(0, |settings| index::hash(words, &settings.hash_seed))
            }

            #[inline(always)]
            fn capacity(&self) -> u32 {
                maps::SETTINGS.get(0).map_or(0, |settings| settings.$capacity)
            }

            #[inline(always)]
            fn record(&self, index: u32) -> Option<&$record> {
                maps::$records.get(index)
            }

            #[inline(always)]
            fn write(&self, index: u32, record: &$record) {
                if let Some(place) = maps::$records.get_ptr_mut(index) {
                    // SAFETY: the record is this CPU's own until a slot leads to it, and its grace is over, so
                    // nobody still reads the one that stood there. Records are words, without padding.
                    unsafe { core::ptr::copy_nonoverlapping(record, place, 1) };
                }
            }

            #[inline(always)]
            fn bucket(&self, number: u32) -> Option<&Bucket> {
                maps::$buckets.get(number)
            }

            #[inline(always)]
            fn pool(&self) -> Option<&Pool> {
                maps::POOLS.get($pool)
            }

            #[inline(always)]
            fn ring(&self, place: u32) -> Option<&Word> {
                maps::$ring.get(place)
            }

            #[inline(always)]
            fn take(&self, now: Seconds) -> u32 {
                $take(now)
            }

            #[inline(always)]
            fn claim(&self, index: u32, side: KeySide) -> Inserted {
                Inserted($claim(index, side as u32))
            }

            #[inline(always)]
            fn unlink(&self, index: u32, side: KeySide) {
                $unlink(index, side as u32);
            }
        }

        /// See [`Pairs::take`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $take(now: u32) -> u32 {
            pairs::take_record(&$table, now)
        }

        /// See [`Pairs::claim`]; the answer is that of [`Inserted`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(index: u32, side: u32) -> u32 {
            pairs::claim(&$table, index, KeySide::from_u32(side)).0
        }

        /// See [`Pairs::unlink`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $unlink(index: u32, side: u32) -> u32 {
            pairs::unlink(&$table, index, KeySide::from_u32(side));
            0
        }
    )* };
}

pairs! {
    Connections<Connection>: CONNECTIONS, CONNECTION_BUCKETS, CONNECTION_RING, pool 0, connections,
        take_connection, claim_connection, unlink_connection;
    Bindings<Binding>: BINDINGS, BINDING_BUCKETS, BINDING_RING, pool 1, bindings,
        take_binding, claim_binding, unlink_binding;
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
    type Connections = Connections;
    type Bindings = Bindings;
    type Peers = LruHashMap<PeerKey, u32>;
    type Fragments = HashMap<FragmentKey, FragmentEntry>;
    type Held = HashMap<HeldKey, HeldFragment>;
    type Config<'a, V: 'static> = &'a V;
    type WorkRef<'a> = &'a mut Work;

    #[inline(always)]
    fn fdb(&self) -> &Self::Fdb {
        &maps::FDB
    }

    #[inline(always)]
    fn connections(&self) -> &Self::Connections {
        &Connections
    }

    #[inline(always)]
    fn bindings(&self) -> &Self::Bindings {
        &Bindings
    }

    #[inline(always)]
    fn peers(&self) -> &Self::Peers {
        &maps::PEERS
    }

    #[inline(always)]
    fn fragments(&self) -> &Self::Fragments {
        &maps::FRAGMENTS
    }

    #[inline(always)]
    fn held(&self) -> &Self::Held {
        &maps::HELD_FRAGMENTS
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn path(&self, slot: u32) -> Option<&PathEntry> {
        maps::PATHS.get(slot)
    }

    #[inline(always)]
    fn guest(&self, vport: VportId) -> Option<&GuestUse> {
        maps::GUESTS.get(vport)
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
    fn external_network(&self, address: &Ip) -> Option<NetworkId> {
        // SAFETY: a word, written whole.
        unsafe { maps::EXTERNALS.get(address) }.map(|network| *network as NetworkId)
    }

    #[inline(always)]
    fn routed_network(&self, address: &Ip) -> Option<NetworkId> {
        maps::ROUTED_SUBNETS.get(Key::new(128, *address)).map(|network| *network as NetworkId)
    }

    #[inline(always)]
    fn error_budget(&self, vport: VportId) -> Option<&ErrorBudget> {
        maps::ERROR_BUDGETS.get(vport)
    }

    #[inline(always)]
    fn repeat(&self, count: u32, step: impl FnMut(u32) -> bool) {
        verifier::repeat(count, step);
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

    #[inline(always)]
    fn report(&self, event: &ConnectionEvent) {
        if maps::EVENTS.output::<ConnectionEvent>(event, 0).is_err() {
            self.count_event(EventCount::EventsLost);
        }
    }
}
