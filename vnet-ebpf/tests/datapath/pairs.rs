//! The table of pairs on its own: filled to the last record, given back, and claimed by two CPUs at once.

use std::{cell::Cell, rc::Rc};

use proptest::prelude::*;
use vnet_common::{
    Be16,
    conntrack::protocol,
    flow::{Connection, Endpoints, FlowKey},
    index::{Found, KeySide},
};
use vnet_ebpf::tables::{
    Tables as _,
    mock::{CAPACITY, MockPairs, MockTables},
    pairs::{self, Inserted},
};

use crate::{deterministic, world::START};

/// Records that can be used: record 0 never is.
const USABLE: usize = CAPACITY as usize - 1;
/// Seconds until a record that ended may be another one.
const GRACE: u32 = 2;

/// Some tuple, another one for each number.
fn ends(number: u64) -> Endpoints {
    Endpoints {
        src: number as u32,
        dst: (number >> 32) as u32,
        src_port: Be16::new(number as u16),
        dst_port: Be16::new(80),
    }
}

fn record(first: u64, second: u64) -> Connection {
    let connection =
        Connection { original: ends(first), reply: ends(second), protocol: protocol::UDP, ..Connection::default() };
    connection.last_seen.store(START);
    connection
}

fn key(number: u64) -> FlowKey {
    FlowKey::new(ends(number), 0, protocol::UDP)
}

/// Inserts a record under two keys.
fn insert(table: &MockPairs<Connection>, (first, second): (u64, u64), now: u32) -> Inserted {
    pairs::insert(table, &record(first, second), now)
}

/// Ends a record, as expiry does.
fn remove(table: &MockPairs<Connection>, index: u32, now: u32) {
    table.at(index).unwrap().last_seen.store(0);
    pairs::remove(table, index, now);
}

fn number_of(inserted: Inserted) -> u32 {
    inserted.index().unwrap_or_else(|| panic!("{inserted:?}"))
}

fn found(table: &MockPairs<Connection>, number: u64) -> (u32, KeySide) {
    let found = table.find(&key(number));
    (found.index(), found.side())
}

proptest! {
    #![proptest_config(deterministic(8))]

    #[test]
    fn every_record_can_be_used_and_is_found_by_both_keys(seed in any::<u64>()) {
        let tables = MockTables::default();
        let table = tables.connections();
        // Two of each pair, neither of another one's.
        let keys = |number: u64| {
            let first = seed.wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (first, !first)
        };
        let inserted: Vec<u32> = (1..=USABLE as u64).map(|number| number_of(insert(table, keys(number), START))).collect();
        for extra in 0..100 {
            prop_assert_eq!(insert(table, keys(100_000 + extra), START), Inserted::FULL);
        }
        for (number, index) in (1..).zip(&inserted) {
            let (first, second) = keys(number);
            prop_assert_eq!(found(table, first), (*index, KeySide::First));
            prop_assert_eq!(found(table, second), (*index, KeySide::Second));
        }
        prop_assert_eq!((table.len(), table.slots()), (USABLE, 2 * USABLE));
        prop_assert_eq!(table.check(), Ok(()));
        // Every second one goes, and makes room when its grace is over.
        for index in inserted.iter().step_by(2) {
            remove(table, *index, START);
        }
        prop_assert_eq!(table.check(), Ok(()));
        prop_assert_eq!(insert(table, keys(200_000), START + GRACE - 1), Inserted::FULL);
        for (number, _) in (200_000..).zip(inserted.iter().step_by(2)) {
            number_of(insert(table, keys(number), START + GRACE));
        }
        prop_assert_eq!(insert(table, keys(300_000), START + GRACE), Inserted::FULL);
        for (number, index) in (1..).zip(&inserted).skip(1).step_by(2) {
            prop_assert_eq!(found(table, keys(number).0), (*index, KeySide::First), "those that stayed");
        }
        prop_assert_eq!(table.check(), Ok(()));
    }
}

#[test]
fn a_freed_record_is_another_only_after_its_grace() {
    let tables = MockTables::default();
    let table = tables.connections();
    let first = number_of(insert(table, (1, 2), START));
    remove(table, first, START);
    assert_eq!(table.find(&key(1)), Found::NOTHING);
    assert_eq!(table.find(&key(2)), Found::NOTHING);
    for now in [START, START + GRACE - 1, START - 1] {
        let other = number_of(insert(table, (1, 2), now));
        assert_ne!(other, first, "{now}: who still reads it must not see another one");
        remove(table, other, now);
    }
    assert_eq!(number_of(insert(table, (1, 2), START + GRACE)), first, "then before one that was never used");
    assert_eq!(table.check(), Ok(()));
}

#[test]
fn the_ring_of_freed_records_goes_round() {
    // Near the end of a lap, of the laps that an entry can tell apart, and of the places' numbers.
    for begin in [0, CAPACITY - 3, 2048 * CAPACITY - 3, u32::MAX - 2] {
        let tables = MockTables::default();
        let table = tables.connections();
        table.begin_ring_at(begin);
        let mut now = START;
        for number in 0..3 * u64::from(CAPACITY) {
            let index = number_of(insert(table, (number, !number), now));
            assert!(index <= 12, "freed ones are used again, not new ones: {index}");
            remove(table, index, now);
            now += u32::from(number % 4 == 0);
        }
        assert_eq!(table.check(), Ok(()), "from {begin}");
        assert_eq!((table.len(), table.slots()), (0, 0));
    }
}

#[test]
fn an_insert_that_fails_at_either_key_leaves_nothing() {
    let tables = MockTables::default();
    let table = tables.connections();
    let standing = number_of(insert(table, (1, 2), START));
    for taken in [(1, 9), (9, 2), (2, 9), (9, 1), (1, 2), (2, 1), (9, 9)] {
        assert_eq!(insert(table, taken, START), Inserted::EXISTS, "{taken:?}");
        assert_eq!((table.len(), table.slots(), table.check()), (1, 2, Ok(())), "{taken:?}");
        assert_eq!(table.find(&key(9)), Found::NOTHING, "{taken:?}");
        assert_eq!(found(table, 1), (standing, KeySide::First));
        assert_eq!(found(table, 2), (standing, KeySide::Second));
    }
    table.refuse_insert_after(0);
    assert_eq!(insert(table, (3, 4), START), Inserted::FULL);
    assert_eq!((table.len(), table.slots(), table.check()), (1, 2, Ok(())));
}

/// Something that a CPU does with the table; `Some`: what came of its insert.
type Act = fn(&MockPairs<Connection>) -> Option<Inserted>;

/// The second act at every moment of the first; `check` gets both results.
fn interleave(
    name: &str,
    prepare: fn(&MockPairs<Connection>),
    (first, second): (Act, Act),
    check: impl Fn(&MockPairs<Connection>, Option<Inserted>, Option<Inserted>),
) {
    for others in 0..1000 {
        let tables = MockTables::default();
        prepare(tables.connections());
        let came_of_it = Rc::new(Cell::new(None));
        let (other, result) = (tables.other_cpu(), Rc::clone(&came_of_it));
        tables.interrupt_after(others, move || result.set(Some(second(other.connections()))));
        let of_first = first(tables.connections());
        tables.cancel_interruption();
        let Some(of_second) = came_of_it.get() else {
            assert!(others > 5, "{name}: there were {others} moments");
            return;
        };
        check(tables.connections(), of_first, of_second);
        assert_eq!(tables.connections().check(), Ok(()), "{name}, before access {others}");
    }
    panic!("{name} has no end");
}

/// Freed records, the higher number first: the CPU that begins later gets the lower one, which wins.
fn lower_number_later(table: &MockPairs<Connection>) {
    for number in 1..=5 {
        insert(table, (100 + number, 200 + number), START - GRACE);
    }
    for index in [5, 2] {
        remove(table, index, START - GRACE);
    }
}

fn nothing(_: &MockPairs<Connection>) {}

fn one_wins(table: &MockPairs<Connection>, first: Option<Inserted>, second: Option<Inserted>) {
    let winners = [first, second].into_iter().flatten().filter(|inserted| inserted.index().is_some()).count();
    assert_eq!(winners, 1, "{first:?} and {second:?}");
    assert!([first, second].contains(&Some(Inserted::EXISTS)), "{first:?} and {second:?}");
    let standing = table.entries().into_iter().filter(|(_, record)| record.original.src < 100).count();
    assert_eq!(standing, 1);
}

#[test]
fn of_two_cpus_that_claim_one_key_one_wins() {
    let cases: [(&str, Act); 5] = [
        ("the same", |table| Some(insert(table, (1, 2), START))),
        ("the same first key", |table| Some(insert(table, (1, 3), START))),
        ("the same second key", |table| Some(insert(table, (4, 2), START))),
        ("the first key as its second", |table| Some(insert(table, (5, 1), START))),
        ("the second key as its first", |table| Some(insert(table, (2, 6), START))),
    ];
    let opens: Act = |table| Some(insert(table, (1, 2), START));
    for prepare in [nothing, lower_number_later] {
        for (name, other) in cases {
            interleave(name, prepare, (opens, other), one_wins);
            interleave(name, prepare, (other, opens), one_wins);
        }
        // Both keys, the other way round: each may take one and find the other taken.
        let mirrored: Act = |table| Some(insert(table, (2, 1), START));
        interleave("mirrored", prepare, (opens, mirrored), |table, first, second| {
            assert!(first == Some(Inserted::EXISTS) || second == Some(Inserted::EXISTS), "{first:?} and {second:?}");
            assert!(table.entries().iter().filter(|(_, record)| record.original.src < 100).count() <= 1);
        });
    }
}

#[test]
fn two_cpus_with_other_keys_both_get_theirs() {
    for prepare in [nothing, lower_number_later] {
        let acts: (Act, Act) = (|table| Some(insert(table, (1, 2), START)), |table| Some(insert(table, (3, 4), START)));
        interleave("two", prepare, acts, |_, first, second| {
            let (first, second) = (first.and_then(Inserted::index), second.and_then(Inserted::index));
            assert!(first.is_some() && second.is_some() && first != second, "{first:?} and {second:?}");
        });
    }
}

#[test]
fn an_end_and_a_beginning_at_once_leave_no_slot_behind() {
    let prepare = |table: &MockPairs<Connection>| {
        insert(table, (1, 2), START);
    };
    let ends: Act = |table| {
        remove(table, 1, START);
        None
    };
    for (name, begins) in [
        ("the same", (|table| Some(insert(table, (1, 2), START))) as Act),
        ("its first key", |table| Some(insert(table, (1, 9), START))),
        ("its second key", |table| Some(insert(table, (9, 2), START))),
    ] {
        // What ends has no key from the first moment on.
        interleave(name, prepare, (ends, begins), |table, _, begun| {
            let is_taken = begun == Some(Inserted::EXISTS);
            assert_eq!(table.len(), usize::from(!is_taken));
        });
        interleave(name, prepare, (begins, ends), |table, begun, _| {
            let is_taken = begun == Some(Inserted::EXISTS);
            assert_eq!(table.len(), usize::from(!is_taken));
        });
    }
}

#[test]
fn a_record_in_the_making_is_not_said_to_be_inserted() {
    let opens: Act = |table| Some(insert(table, (1, 2), START));
    let asks: Act = |table| pairs::is_inserted(table, 1).then_some(Inserted(1));
    interleave("asked within", nothing, (opens, asks), |_, _, asked| {
        assert!(asked.is_none(), "it was not done yet");
    });
}
