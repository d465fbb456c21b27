//! A table of pairs in memory, with room, refusals and interruptions to order.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

use vnet_common::{
    Word,
    index::{self, Bucket, Found, KeySide, Pool, ring_index},
};

use super::table::Schedule;
use crate::tables::pairs::{self, Pairs, Record};

/// Records of a table, record 0 included.
pub const CAPACITY: u32 = 4096;

/// Any will do; tests come out the same every time.
const SEED: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d];

/// The slots of an array that were ever touched; the others are zero. Most tests use few of them.
type Array<V> = RefCell<BTreeMap<u32, Rc<V>>>;

/// Records with two keys, as the datapath and the daemon see them.
pub struct MockPairs<R> {
    records: Array<R>,
    buckets: Array<Bucket>,
    pool: Pool,
    ring: Array<Word>,
    /// Live records that there is room for.
    room: Cell<usize>,
    /// How many inserts go well before one is refused.
    refused_insert: Cell<Option<usize>>,
    schedule: Rc<Schedule>,
}

impl<R: Record + Clone + Default> MockPairs<R> {
    pub(super) fn new(schedule: &Rc<Schedule>) -> Self {
        Self {
            records: Array::default(),
            buckets: Array::default(),
            pool: Pool::default(),
            ring: Array::default(),
            room: Cell::new(usize::MAX),
            refused_insert: Cell::new(None),
            schedule: Rc::clone(schedule),
        }
    }

    /// A table of the same content, which shares nothing with this one.
    pub(super) fn copy(&self, schedule: &Rc<Schedule>) -> Self {
        Self {
            records: deep_copy(&self.records),
            buckets: deep_copy(&self.buckets),
            pool: self.pool.clone(),
            ring: deep_copy(&self.ring),
            room: self.room.clone(),
            refused_insert: Cell::new(None),
            schedule: Rc::clone(schedule),
        }
    }

    /// Leaves room for that many records in all.
    pub fn set_capacity(&self, room: usize) {
        self.room.set(room);
    }

    /// Has one insert fail for want of room, after `others` that do not.
    pub fn refuse_insert_after(&self, others: usize) {
        self.refused_insert.set(Some(others));
    }

    /// Live records.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record under a key, as a look-up finds it.
    pub fn get(&self, key: &R::Key) -> Option<Rc<R>> {
        let found = self.find(key);
        if found.is_nothing() { None } else { self.at(found.index()) }
    }

    /// As [`pairs::find`], without counting as an access.
    pub fn find(&self, key: &R::Key) -> Found {
        self.schedule.pause(|| pairs::find(self, key))
    }

    pub fn at(&self, index: u32) -> Option<Rc<R>> {
        slot(&self.records, index, CAPACITY)
    }

    /// Live records with their numbers.
    pub fn entries(&self) -> Vec<(u32, Rc<R>)> {
        let records = self.records.borrow();
        let live = records.iter().filter(|(_, record)| record.life().load() != 0);
        live.map(|(index, record)| (*index, Rc::clone(record))).collect()
    }

    /// Slots in use: two for each live record, if all is well.
    pub fn slots(&self) -> usize {
        self.buckets.borrow().values().flat_map(|bucket| &bucket.slots).filter(|slot| slot.load() != 0).count()
    }

    /// Checks that every record is either live, with both keys leading to it, or free, once. `Err` says which
    /// is not.
    pub fn check(&self) -> Result<(), String> {
        let waiting = self.waiting();
        let mut seen: HashSet<u32> = waiting.iter().copied().collect();
        if seen.len() != waiting.len() {
            return Err(format!("a record was given back twice: {waiting:?}"));
        }
        for (index, record) in self.entries() {
            if !seen.insert(index) {
                return Err(format!("record {index} lives, and is free"));
            }
            for side in [KeySide::First, KeySide::Second] {
                let found = self.find(&record.key(side));
                if (found.index(), found.side()) != (index, side) {
                    return Err(format!("the {side:?} key of record {index} leads to {found:?}"));
                }
            }
        }
        let used = self.pool.fresh.load() as usize;
        if seen.len() != used {
            return Err(format!("{used} records were taken, {} are live or waiting", seen.len()));
        }
        match (self.slots(), self.len()) {
            (slots, live) if slots == live.saturating_mul(2) => Ok(()),
            (slots, live) => Err(format!("{slots} slots for {live} records")),
        }
    }

    /// Records that were given back, in the order in which they will be used again.
    pub fn waiting(&self) -> Vec<u32> {
        let (head, tail) = (self.pool.head.load(), self.pool.tail.load());
        let places = (0..tail.wrapping_sub(head)).map(|place| head.wrapping_add(place));
        let ring = self.ring.borrow();
        let entry = |place: u32| ring.get(&(place & CAPACITY.wrapping_sub(1))).map_or(0, |entry| entry.load());
        places.filter_map(|place| ring_index(entry(place), place, CAPACITY)).collect()
    }

    /// Begins the ring there: tests may come close to a lap's end, or to the wrap of its places.
    pub fn begin_ring_at(&self, place: u32) {
        self.pool.head.store(place);
        self.pool.tail.store(place);
    }

    /// Records that live, or that a CPU has just taken.
    fn taken(&self) -> usize {
        (self.pool.fresh.load() as usize).saturating_sub(self.waiting().len())
    }

    fn has_room(&self) -> bool {
        match self.refused_insert.get() {
            None => self.room.get() == usize::MAX || self.taken() < self.room.get(),
            Some(0) => {
                self.refused_insert.set(None);
                false
            }
            Some(others) => {
                self.refused_insert.set(others.checked_sub(1));
                true
            }
        }
    }
}

impl<R: Record + Clone + Default> Pairs for MockPairs<R> {
    type Record = R;
    type Ref<'a>
        = Rc<R>
    where
        Self: 'a;
    type BucketRef<'a>
        = Rc<Bucket>
    where
        Self: 'a;
    type PoolRef<'a>
        = &'a Pool
    where
        Self: 'a;
    type PlaceRef<'a>
        = Rc<Word>
    where
        Self: 'a;

    fn hash(&self, words: [u64; 3]) -> u64 {
        index::hash(words, &SEED)
    }

    fn capacity(&self) -> u32 {
        CAPACITY
    }

    fn record(&self, index: u32) -> Option<Rc<R>> {
        self.schedule.step();
        self.at(index)
    }

    fn write(&self, index: u32, record: &R) {
        self.schedule.step();
        // Another one in its place: who still reads the old one goes on reading that.
        self.records.borrow_mut().insert(index, Rc::new(record.clone()));
    }

    fn bucket(&self, number: u32) -> Option<Rc<Bucket>> {
        self.schedule.step();
        slot(&self.buckets, number, CAPACITY / 2)
    }

    fn pool(&self) -> Option<&Pool> {
        self.schedule.step();
        Some(&self.pool)
    }

    fn free(&self) -> Option<&Pool> {
        self.schedule.step();
        self.has_room().then_some(&self.pool)
    }

    fn ring(&self, place: u32) -> Option<Rc<Word>> {
        self.schedule.step();
        slot(&self.ring, place, CAPACITY)
    }
}

fn slot<V: Default>(array: &Array<V>, number: u32, size: u32) -> Option<Rc<V>> {
    (number < size).then(|| Rc::clone(array.borrow_mut().entry(number).or_default()))
}

fn deep_copy<V: Clone>(array: &Array<V>) -> Array<V> {
    RefCell::new(array.borrow().iter().map(|(number, value)| (*number, Rc::new(V::clone(value)))).collect())
}
