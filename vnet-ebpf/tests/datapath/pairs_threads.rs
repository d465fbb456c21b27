//! The table of pairs under real threads, and where its buckets run over.

use std::{
    collections::HashSet,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use vnet_common::{
    DoubleWord, Word,
    index::{self, BUCKET_SLOTS, Bucket, Found, KeySide, Pool, buckets_of},
};
use vnet_ebpf::tables::pairs::{self, Inserted, Pairs, Record};

const SEED: [u64; 4] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321, 0x1357_9bdf_0246_8ace, 0xdead_beef_cafe_f00d];
const THREADS: usize = 4;

/// A record that threads can share: two keys, and its life.
#[derive(Default)]
struct Pair {
    keys: [DoubleWord; 2],
    life: Word,
    ended: Word,
}

impl Pair {
    fn new(first: u64, second: u64) -> Self {
        Self { keys: [DoubleWord::new(first), DoubleWord::new(second)], life: Word::new(1), ended: Word::new(0) }
    }
}

impl Record for Pair {
    type Key = u64;

    fn words(key: &u64) -> [u64; 3] {
        [*key, 0, 0]
    }

    fn is(&self, side: KeySide, key: &u64) -> bool {
        self.keys[side as usize].load() == *key && self.life.load() != 0
    }

    fn key(&self, side: KeySide) -> u64 {
        self.keys[side as usize].load()
    }

    fn life(&self) -> &Word {
        &self.life
    }

    fn ended(&self) -> &Word {
        &self.ended
    }
}

/// Arrays as the kernel has them.
struct Shared {
    records: Vec<Pair>,
    buckets: Vec<Bucket>,
    pool: Pool,
    ring: Vec<Word>,
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self {
            records: (0..capacity).map(|_| Pair::default()).collect(),
            buckets: vec![Bucket::default(); capacity / 2],
            pool: Pool::default(),
            ring: vec![Word::default(); capacity],
        }
    }

    fn slots(&self) -> usize {
        self.buckets.iter().flat_map(|bucket| &bucket.slots).filter(|slot| slot.load() != 0).count()
    }

    fn live(&self) -> usize {
        self.records.iter().filter(|record| record.life.load() != 0).count()
    }

    /// As expiry does.
    fn end(&self, index: u32, now: u32) {
        self.records[index as usize].life.store(0);
        pairs::remove(self, index, now);
    }
}

impl Pairs for Shared {
    type Record = Pair;
    type Ref<'a> = &'a Pair;
    type BucketRef<'a> = &'a Bucket;
    type PoolRef<'a> = &'a Pool;
    type PlaceRef<'a> = &'a Word;

    fn hash(&self, words: [u64; 3]) -> u64 {
        index::hash(words, &SEED)
    }

    fn capacity(&self) -> u32 {
        self.records.len() as u32
    }

    fn record(&self, index: u32) -> Option<&Pair> {
        self.records.get(index as usize)
    }

    fn write(&self, index: u32, record: &Pair) {
        let place = &self.records[index as usize];
        for (place, key) in place.keys.iter().zip(&record.keys) {
            place.store(key.load());
        }
        place.ended.store(record.ended.load());
        place.life.store(record.life.load());
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize)
    }

    fn pool(&self) -> Option<&Pool> {
        Some(&self.pool)
    }

    fn ring(&self, place: u32) -> Option<&Word> {
        self.ring.get(place as usize)
    }
}

/// Small random numbers, another row for each seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs `act` in all threads at once, over and over; each round is two seconds after the one before.
fn rounds(count: u32, act: impl Fn(usize, u32) + Sync, between: impl Fn(u32)) {
    for now in (1..=count).map(|round| 1000 + 2 * round) {
        let barrier = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (act, barrier) = (&act, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    act(thread, now);
                });
            }
        });
        between(now);
    }
}

#[test]
fn each_key_that_all_threads_want_at_once_gets_one_winner() {
    const KEYS: u64 = 256;
    let shared = Shared::new(4096);
    let winners: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    let act = |thread: usize, now: u32| {
        for number in 0..KEYS {
            // A third share both keys, a third the first, a third the second one.
            let own = |side: u64| 1_000_000 + (number * 8 + thread as u64) * 2 + side;
            let (first, second) = match number % 3 {
                0 => (number * 2, number * 2 + 1),
                1 => (number * 2, own(1)),
                _ => (own(0), number * 2 + 1),
            };
            let inserted = pairs::insert(&shared, &Pair::new(first, second), now);
            assert_ne!(inserted, Inserted::FULL);
            if inserted.index().is_some() {
                winners[number as usize].fetch_add(1, SeqCst);
            }
        }
    };
    rounds(60, act, |now| {
        for (number, count) in winners.iter().enumerate() {
            assert_eq!(count.swap(0, SeqCst), 1, "winners of key {number}");
        }
        assert_eq!((shared.live(), shared.slots()), (KEYS as usize, 2 * KEYS as usize));
        for index in 0..shared.capacity() {
            if shared.records[index as usize].life.load() != 0 {
                shared.end(index, now);
            }
        }
        assert_eq!((shared.live(), shared.slots()), (0, 0));
    });
}

#[test]
fn keys_that_come_and_go_in_all_threads_have_one_owner_at_a_time() {
    const KEYS: u64 = 24;
    let shared = Shared::new(16_384);
    let owners: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    let act = |thread: usize, now: u32| {
        let mut dice = Dice(u64::from(now) * 31 + thread as u64 + 1);
        let mut own: Vec<(u32, [u64; 2])> = Vec::new();
        for _ in 0..2500 {
            // Keys of either side come from the same few: they meet crosswise too.
            let keys = [dice.below(KEYS), dice.below(KEYS)];
            let inserted = pairs::insert(&shared, &Pair::new(keys[0], keys[1]), now);
            if let Some(index) = inserted.index() {
                for key in keys {
                    assert_eq!(owners[key as usize].fetch_add(1, SeqCst), 0, "a second owner of {key}");
                }
                own.push((index, keys));
            }
            let found = pairs::find(&shared, &dice.below(KEYS));
            assert!(found == Found::NOTHING || found.index() < shared.capacity());
            if own.len() > 3 || (inserted == Inserted::EXISTS && !own.is_empty()) {
                let (index, keys) = own.swap_remove(dice.below(own.len() as u64) as usize);
                assert_eq!(pairs::find(&shared, &keys[0]).index(), index, "it is found while it lives");
                assert_eq!(pairs::find(&shared, &keys[1]).index(), index, "it is found while it lives");
                for key in keys {
                    owners[key as usize].store(0, SeqCst);
                }
                shared.end(index, now);
            }
        }
        for (index, keys) in own {
            for key in keys {
                owners[key as usize].store(0, SeqCst);
            }
            shared.end(index, now);
        }
    };
    rounds(12, act, |_| assert_eq!((shared.live(), shared.slots()), (0, 0)));
    // Every record was given back once.
    let now = 10_000;
    let taken: HashSet<u32> = (1..shared.capacity())
        .filter_map(|_| Some(pairs::take_record(&shared, now)).filter(|index| *index != 0))
        .collect();
    assert_eq!(taken.len(), shared.capacity() as usize - 1);
    assert_eq!(pairs::take_record(&shared, now), 0);
}

#[test]
fn buckets_that_run_over_refuse_and_leave_nothing() {
    let shared = Shared::new(256);
    let buckets = |key: u64| {
        let mut both = buckets_of(shared.hash([key, 0, 0]), 128);
        both.sort_unstable();
        both
    };
    let mut crowd = (0..).filter(|key| buckets(*key) == buckets(0));
    let mut elsewhere = (1 << 40..).filter(|key| buckets(*key) != buckets(0));
    let room = 2 * BUCKET_SLOTS;
    let standing: Vec<u64> = crowd.by_ref().take(room).collect();
    for key in &standing {
        let inserted = pairs::insert(&shared, &Pair::new(*key, elsewhere.next().unwrap()), 1000);
        assert!(inserted.index().is_some(), "{inserted:?}");
    }
    let (live, slots) = (shared.live(), shared.slots());
    for _ in 0..10 {
        let (one_more, other) = (crowd.next().unwrap(), elsewhere.next().unwrap());
        for (first, second) in [(one_more, other), (other, one_more)] {
            assert_eq!(pairs::insert(&shared, &Pair::new(first, second), 1000), Inserted::FULL);
            assert_eq!((shared.live(), shared.slots()), (live, slots));
            assert_eq!(pairs::find(&shared, &other), Found::NOTHING);
        }
    }
    for key in &standing {
        assert_ne!(pairs::find(&shared, key), Found::NOTHING);
    }
}

#[test]
fn a_key_is_taken_in_whichever_of_its_buckets_it_stands() {
    let shared = Shared::new(256);
    let both = |key: u64| buckets_of(shared.hash([key, 0, 0]), 128);
    // The same two buckets, in the same order: later ones go to the second.
    let crowd: Vec<u64> = (0..).filter(|key| both(*key) == both(0)).take(2 * BUCKET_SLOTS).collect();
    for standing in &crowd {
        let shared = Shared::new(256);
        let mut others = Vec::new();
        for key in &crowd {
            let index = pairs::insert(&shared, &Pair::new(*key, key + (1 << 40)), 1000).index().unwrap();
            if key != standing {
                others.push(index);
            }
        }
        // Now there is room in the first bucket.
        others.into_iter().for_each(|index| shared.end(index, 1000));
        assert_ne!(pairs::find(&shared, standing), Found::NOTHING);
        for pair in [Pair::new(*standing, 1 << 50), Pair::new(1 << 50, *standing)] {
            assert_eq!(pairs::insert(&shared, &pair, 1000), Inserted::EXISTS, "{standing}");
        }
        assert_eq!((shared.live(), shared.slots()), (1, 2));
    }
}
