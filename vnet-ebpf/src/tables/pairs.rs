//! Records that two keys lead to (connections, bindings): both keys or neither, each owned by one record.
//!
//! Records lie in an array; an index of buckets (see [`vnet_common::index`]) leads from either key to them.
//! Nothing is locked. A key is claimed by putting a tentative slot into one of its two buckets and then
//! looking for another of the same key: of two that are tentative the lower record wins, one that is final
//! always does. A record that has ended is given to another connection only after a grace of some seconds,
//! so that nobody still reads it.

use core::ops::Deref;

use vnet_common::{
    Seconds, Word,
    flow::{Connection, Direction, FlowKey, since},
    index::{BUCKET_SLOTS, Bucket, Found, KeySide, Pool, Slot, buckets_of, ring_entry, ring_index},
    nat::{Binding, BindingKey},
};

/// What a table of pairs holds.
pub trait Record {
    type Key: Copy;

    fn words(key: &Self::Key) -> [u64; 3];
    /// True where the record lives and has this key on this side.
    fn is(&self, side: KeySide, key: &Self::Key) -> bool;
    fn key(&self, side: KeySide) -> Self::Key;
    /// 0 while the record is free.
    fn life(&self) -> &Word;
    /// Of a free record: when it ended.
    fn ended(&self) -> &Word;
}

/// The memory behind a table of pairs.
pub trait Pairs: Sized {
    type Record: Record;
    type Ref<'a>: Deref<Target = Self::Record>
    where
        Self: 'a;
    type BucketRef<'a>: Deref<Target = Bucket>
    where
        Self: 'a;
    type PoolRef<'a>: Deref<Target = Pool>
    where
        Self: 'a;
    type PlaceRef<'a>: Deref<Target = Word>
    where
        Self: 'a;

    fn hash(&self, words: [u64; 3]) -> u64;
    /// Records, a power of two; record 0 is never used. 0: the daemon has not made the table ready.
    fn capacity(&self) -> u32;
    fn record(&self, index: u32) -> Option<Self::Ref<'_>>;
    /// Fills a record that this CPU has taken from the pool.
    fn write(&self, index: u32, record: &Self::Record);
    fn bucket(&self, number: u32) -> Option<Self::BucketRef<'_>>;
    fn pool(&self) -> Option<Self::PoolRef<'_>>;
    /// The same, where a record is to be taken: tests may leave no room.
    #[inline(always)]
    fn free(&self) -> Option<Self::PoolRef<'_>> {
        self.pool()
    }
    fn ring(&self, place: u32) -> Option<Self::PlaceRef<'_>>;

    /// [`take_record`], [`claim`] and [`unlink`], which the BPF tables have as functions that the verifier
    /// looks at once, and not at each of the many ways that lead there.
    #[inline(always)]
    fn take(&self, now: Seconds) -> u32 {
        take_record(self, now)
    }
    #[inline(always)]
    fn claim(&self, index: u32, side: KeySide) -> Inserted {
        claim(self, index, side)
    }
    #[inline(always)]
    fn unlink(&self, index: u32, side: KeySide) {
        unlink(self, index, side);
    }
}

/// Seconds until a record that ended may be another one.
const GRACE: Seconds = 2;

/// How often a CPU tries to take a record while others take theirs.
const TRIES: u32 = 16;

/// What became of an insert: the record's number, or why there is none. One word for the verifier's sake.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inserted(pub u32);

impl Inserted {
    /// No record or no slot is free.
    pub const FULL: Self = Self(0);
    /// Another record has one of the keys.
    pub const EXISTS: Self = Self(u32::MAX);

    /// The record's number, if it was inserted.
    #[inline(always)]
    pub fn index(self) -> Option<u32> {
        if self == Self::FULL || self == Self::EXISTS { None } else { Some(self.0) }
    }
}

/// The record with this key. One that is still being inserted is not found: it may be about to lose against
/// another, or against one that stands.
#[inline(never)]
pub fn find<P: Pairs>(pairs: &P, key: &<P::Record as Record>::Key) -> Found {
    look_up(pairs, key, true)
}

/// The same, for who wants the key: one that is being inserted is found, too.
#[inline(never)]
pub fn find_any<P: Pairs>(pairs: &P, key: &<P::Record as Record>::Key) -> Found {
    look_up(pairs, key, false)
}

#[inline(always)]
fn look_up<P: Pairs>(pairs: &P, key: &<P::Record as Record>::Key, must_be_final: bool) -> Found {
    let hash = pairs.hash(P::Record::words(key));
    let [first, second] = buckets_of(hash, bucket_count(pairs));
    let found = find_in(pairs, first, hash, key, must_be_final);
    if found.is_nothing() { find_in(pairs, second, hash, key, must_be_final) } else { found }
}

#[inline(always)]
fn find_in<P: Pairs>(
    pairs: &P,
    bucket: u32,
    hash: u64,
    key: &<P::Record as Record>::Key,
    must_be_final: bool,
) -> Found {
    let Some(bucket) = pairs.bucket(bucket) else { return Found::NOTHING };
    for slot in &bucket.slots {
        let slot = Slot(slot.load());
        let counts = !must_be_final || !slot.is_tentative();
        if counts && slot.has_tag(hash) && leads_to(pairs, slot, key) {
            return slot.found();
        }
    }
    Found::NOTHING
}

#[inline(always)]
fn leads_to<P: Pairs>(pairs: &P, slot: Slot, key: &<P::Record as Record>::Key) -> bool {
    let found = slot.found();
    pairs.record(found.index()).is_some_and(|record| record.is(found.side(), key))
}

/// Inserts a record under both of its keys, or under neither.
#[inline(never)]
pub fn insert<P: Pairs>(pairs: &P, record: &P::Record, now: Seconds) -> Inserted {
    let index = pairs.take(now);
    if index == 0 {
        return Inserted::FULL;
    }
    pairs.write(index, record);
    // The second key first: the reply direction, the external port, is what others compete for.
    let mut result = pairs.claim(index, KeySide::Second);
    if result.index().is_some() {
        result = pairs.claim(index, KeySide::First);
        if result.index().is_none() {
            pairs.unlink(index, KeySide::Second);
        }
    }
    if result.index().is_none() {
        retire(pairs, index, now);
    }
    result
}

/// True where a record's insert is done, and not in the making (or failing): only then may another than the
/// CPU that makes it end it. The first key is the last that is claimed.
#[inline(always)]
pub fn is_inserted<P: Pairs>(pairs: &P, index: u32) -> bool {
    let Some(record) = pairs.record(index) else { return false };
    let hash = pairs.hash(P::Record::words(&record.key(KeySide::First)));
    let slot = Slot::new(hash, index, KeySide::First);
    replace_slot(pairs, buckets_of(hash, bucket_count(pairs)), slot, slot)
}

/// Takes a record whose life is 0 by now out of the index, and gives it back.
#[inline(always)]
pub fn remove<P: Pairs>(pairs: &P, index: u32, now: Seconds) {
    pairs.unlink(index, KeySide::First);
    pairs.unlink(index, KeySide::Second);
    retire(pairs, index, now);
}

/// Takes possession of a key of a record that is filled.
#[inline(always)]
pub fn claim<P: Pairs>(pairs: &P, index: u32, side: KeySide) -> Inserted {
    let Some(record) = pairs.record(index) else { return Inserted::FULL };
    let key = record.key(side);
    let hash = pairs.hash(P::Record::words(&key));
    let buckets = buckets_of(hash, bucket_count(pairs));
    let slot = Slot::new(hash, index, side);
    if !take_slot(pairs, buckets, slot.tentative()) {
        return Inserted::FULL;
    }
    let [first, second] = buckets;
    if is_taken(pairs, first, hash, &key, slot) || is_taken(pairs, second, hash, &key, slot) {
        replace_slot(pairs, buckets, slot.tentative(), Slot::FREE);
        return Inserted::EXISTS;
    }
    if replace_slot(pairs, buckets, slot.tentative(), slot) { Inserted(index) } else { Inserted::EXISTS }
}

/// True where another slot of the bucket leads to the key, and does not give way to `mine`.
#[inline(always)]
fn is_taken<P: Pairs>(pairs: &P, bucket: u32, hash: u64, key: &<P::Record as Record>::Key, mine: Slot) -> bool {
    let Some(bucket) = pairs.bucket(bucket) else { return true };
    for word in &bucket.slots {
        let other = Slot(word.load());
        if !other.has_tag(hash) || other == mine.tentative() || !leads_to(pairs, other, key) {
            continue;
        }
        // One that is not final yet gives way to a record of a lower number. Or it has given up by itself.
        let gives_way =
            other.is_tentative() && mine.found().index() < other.found().index() && word.replace(other.0, Slot::FREE.0);
        // It may have become final meanwhile; or its place is another key's by now.
        if !gives_way && Slot(word.load()).tentative() == other.tentative() {
            return true;
        }
    }
    false
}

/// Puts a slot into a free place: most of the first bucket is filled before the second, so that most
/// look-ups need one, and most of that before the rest of both. False where there is none.
#[inline(never)]
fn take_slot<P: Pairs>(pairs: &P, buckets: [u32; 2], slot: Slot) -> bool {
    let [first, second] = buckets;
    fill(pairs, first, slot, 0, MOST)
        || fill(pairs, second, slot, 0, MOST)
        || fill(pairs, first, slot, MOST, BUCKET_SLOTS)
        || fill(pairs, second, slot, MOST, BUCKET_SLOTS)
}

/// Slots of a bucket that are filled before the other bucket's, and the remaining ones.
const MOST: usize = 6;

#[inline(always)]
fn fill<P: Pairs>(pairs: &P, bucket: u32, slot: Slot, from: usize, to: usize) -> bool {
    let Some(bucket) = pairs.bucket(bucket) else { return false };
    let Some(words) = bucket.slots.get(from..to) else { return false };
    words.iter().any(|word| word.load() == Slot::FREE.0 && word.replace(Slot::FREE.0, slot.0))
}

/// Puts `new` where `old` stands. False where it stands nowhere.
#[inline(never)]
fn replace_slot<P: Pairs>(pairs: &P, buckets: [u32; 2], old: Slot, new: Slot) -> bool {
    let [first, second] = buckets;
    replace_in(pairs, first, old, new) || replace_in(pairs, second, old, new)
}

#[inline(always)]
fn replace_in<P: Pairs>(pairs: &P, bucket: u32, old: Slot, new: Slot) -> bool {
    let Some(bucket) = pairs.bucket(bucket) else { return false };
    bucket.slots.iter().any(|word| word.load() == old.0 && word.replace(old.0, new.0))
}

/// Takes a record's key out of the index.
#[inline(always)]
pub fn unlink<P: Pairs>(pairs: &P, index: u32, side: KeySide) {
    let Some(record) = pairs.record(index) else { return };
    let hash = pairs.hash(P::Record::words(&record.key(side)));
    replace_slot(pairs, buckets_of(hash, bucket_count(pairs)), Slot::new(hash, index, side), Slot::FREE);
}

/// A free record's number, or 0. Used ones first, so that few pages are touched.
#[inline(always)]
pub fn take_record<P: Pairs>(pairs: &P, now: Seconds) -> u32 {
    let capacity = pairs.capacity();
    let Some(pool) = pairs.free() else { return 0 };
    for _ in 0..TRIES {
        let place = pool.head.load();
        if place == pool.tail.load() {
            break;
        }
        let index = waiting(pairs, place, capacity, now);
        if index == 0 {
            break;
        }
        if pool.head.replace(place, place.wrapping_add(1)) {
            return index;
        }
    }
    for _ in 0..TRIES {
        let index = pool.fresh.load().wrapping_add(1);
        if index >= capacity {
            return 0;
        }
        if pool.fresh.replace(index.wrapping_sub(1), index) {
            return index;
        }
    }
    0
}

/// The record at this place of the ring, if its grace is over.
#[inline(always)]
fn waiting<P: Pairs>(pairs: &P, place: u32, capacity: u32, now: Seconds) -> u32 {
    let Some(entry) = pairs.ring(place & capacity.wrapping_sub(1)) else { return 0 };
    let Some(index) = ring_index(entry.load(), place, capacity) else { return 0 };
    let Some(record) = pairs.record(index) else { return 0 };
    if since(record.ended().load(), now) < GRACE { 0 } else { index }
}

/// Gives a record back that no slot leads to.
#[inline(always)]
fn retire<P: Pairs>(pairs: &P, index: u32, now: Seconds) {
    let (Some(record), Some(pool)) = (pairs.record(index), pairs.pool()) else { return };
    record.life().store(0);
    record.ended().store(now);
    let capacity = pairs.capacity();
    let place = pool.tail.add(1);
    if let Some(entry) = pairs.ring(place & capacity.wrapping_sub(1)) {
        entry.store(ring_entry(place, capacity, index));
    }
}

/// Four slots a record, of which two are used: a bucket overflows practically never.
#[inline(always)]
fn bucket_count<P: Pairs>(pairs: &P) -> u32 {
    pairs.capacity() / 2
}

impl Record for Connection {
    type Key = FlowKey;

    #[inline(always)]
    fn words(key: &FlowKey) -> [u64; 3] {
        key.words()
    }

    #[inline(always)]
    fn is(&self, side: KeySide, key: &FlowKey) -> bool {
        self.is(Direction::of(side), key)
    }

    #[inline(always)]
    fn key(&self, side: KeySide) -> FlowKey {
        self.key(Direction::of(side))
    }

    #[inline(always)]
    fn life(&self) -> &Word {
        &self.last_seen
    }

    #[inline(always)]
    fn ended(&self) -> &Word {
        &self.created
    }
}

impl Record for Binding {
    type Key = BindingKey;

    #[inline(always)]
    fn words(key: &BindingKey) -> [u64; 3] {
        key.words()
    }

    #[inline(always)]
    fn is(&self, side: KeySide, key: &BindingKey) -> bool {
        match side {
            KeySide::First => self.is_internal(key),
            KeySide::Second => self.is_external(key),
        }
    }

    #[inline(always)]
    fn key(&self, side: KeySide) -> BindingKey {
        match side {
            KeySide::First => self.internal_key(),
            KeySide::Second => self.external_key(),
        }
    }

    #[inline(always)]
    fn life(&self) -> &Word {
        &self.last_used
    }

    #[inline(always)]
    fn ended(&self) -> &Word {
        &self.created
    }
}
