//! A table in memory, with room, refusals and interruptions to order.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher, Hash},
    rc::Rc,
};

use crate::tables::{InsertError, Table};

/// Accesses to the tables that the datapath fills, counted; one of them may be interrupted.
#[derive(Default)]
pub(super) struct Schedule {
    accesses: Cell<u64>,
    interruption: RefCell<Option<Interruption>>,
    is_paused: Cell<bool>,
}

struct Interruption {
    /// The access that it comes before.
    before: u64,
    act: Box<dyn FnOnce()>,
}

impl Schedule {
    pub(super) fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// Has `act` happen once, after `others` more accesses and before the next.
    pub(super) fn interrupt_after(&self, others: u64, act: impl FnOnce() + 'static) {
        let before = self.accesses().saturating_add(others);
        self.interruption.replace(Some(Interruption { before, act: Box::new(act) }));
    }

    pub(super) fn cancel(&self) {
        self.interruption.take();
    }

    /// Has `act` access the tables without being counted or interrupted.
    pub(super) fn pause<R>(&self, act: impl FnOnce() -> R) -> R {
        self.is_paused.set(true);
        let result = act();
        self.is_paused.set(false);
        result
    }

    /// Called before every access.
    pub(super) fn step(&self) {
        if self.is_paused.get() {
            return;
        }
        let access = self.accesses.get();
        self.accesses.set(access.saturating_add(1));
        let due = self.interruption.borrow_mut().take_if(|interruption| interruption.before == access);
        if let Some(interruption) = due {
            (interruption.act)();
        }
    }
}

/// A table that the datapath fills.
pub struct MockTable<K, V> {
    /// Hashed alike in every run, so that dumps come in the same order.
    entries: RefCell<HashMap<K, Rc<V>, BuildHasherDefault<DefaultHasher>>>,
    capacity: Cell<usize>,
    /// How many inserts go well before one is refused.
    refused_insert: Cell<Option<usize>>,
    schedule: Rc<Schedule>,
}

impl<K: Copy + Eq + Hash, V> MockTable<K, V> {
    pub(super) fn new(schedule: &Rc<Schedule>) -> Self {
        Self {
            entries: RefCell::default(),
            capacity: Cell::new(usize::MAX),
            refused_insert: Cell::new(None),
            schedule: Rc::clone(schedule),
        }
    }

    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.set(capacity);
    }

    /// Has one insert fail for want of room, after `others` that do not.
    pub fn refuse_insert_after(&self, others: usize) {
        self.refused_insert.set(Some(others));
    }

    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As the daemon reads.
    pub fn get(&self, key: &K) -> Option<Rc<V>> {
        self.entries.borrow().get(key).map(Rc::clone)
    }

    /// As the daemon writes: whatever stands there.
    pub fn put(&self, key: K, value: V) {
        self.entries.borrow_mut().insert(key, Rc::new(value));
    }

    /// As the daemon deletes.
    pub fn delete(&self, key: &K) -> bool {
        self.entries.borrow_mut().remove(key).is_some()
    }

    /// As the daemon dumps, in no order.
    pub fn entries(&self) -> Vec<(K, Rc<V>)> {
        self.entries.borrow().iter().map(|(key, value)| (*key, Rc::clone(value))).collect()
    }

    /// A table of the same content and room, which shares nothing with this one.
    pub(super) fn copy(&self, schedule: &Rc<Schedule>) -> Self
    where
        V: Clone,
    {
        let copy = Self::new(schedule);
        for (key, value) in self.entries() {
            copy.put(key, V::clone(&value));
        }
        copy.capacity.set(self.capacity.get());
        copy
    }

    fn is_refused(&self) -> bool {
        match self.refused_insert.get() {
            None => false,
            Some(0) => {
                self.refused_insert.set(None);
                true
            }
            Some(others) => {
                self.refused_insert.set(others.checked_sub(1));
                false
            }
        }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Table<K, V> for MockTable<K, V> {
    type Ref<'a>
        = Rc<V>
    where
        Self: 'a;

    fn lookup(&self, key: &K) -> Option<Rc<V>> {
        self.schedule.step();
        self.get(key)
    }

    fn insert(&self, key: &K, value: &V) -> Result<(), InsertError> {
        self.schedule.step();
        let is_refused = self.is_refused();
        let mut entries = self.entries.borrow_mut();
        if entries.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if is_refused || entries.len() >= self.capacity.get() {
            return Err(InsertError::Full);
        }
        entries.insert(*key, Rc::new(value.clone()));
        Ok(())
    }

    fn remove(&self, key: &K) -> bool {
        self.schedule.step();
        self.delete(key)
    }
}
