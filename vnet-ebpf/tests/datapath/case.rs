//! Cases as data: a world, a frame, and all that must come of it; each runs at TC and at XDP.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vnet_common::{DropReason, stats::EventCount, vport::VportId};

use crate::{
    snapshot::{dropped, event, received, sent},
    world::{Arrival, Fate, Hook, World},
};

/// Something that is done to a world, or asked of it.
pub type Act = Box<dyn Fn(&World)>;

/// What XDP, which may leave any frame to TC, has to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    /// What TC does, or nothing.
    Either,
    /// What TC does.
    Acts,
    /// Nothing: TC alone can do it right.
    Leaves,
}

pub struct Case {
    name: String,
    prepare: Vec<Act>,
    hook: Hook,
    from: VportId,
    arrival: Arrival,
    expected: Fate,
    accelerator: Accelerator,
    /// Events besides the verdict, each counted once.
    events: Vec<EventCount>,
    checks: Vec<Act>,
}

impl Case {
    pub fn new(name: impl Into<String>, from: VportId, arrival: impl Into<Arrival>, expected: Fate) -> Self {
        Self {
            name: name.into(),
            prepare: Vec::new(),
            hook: Hook::Ingress,
            from,
            arrival: arrival.into(),
            expected,
            accelerator: Accelerator::Either,
            events: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub fn dropped(name: impl Into<String>, from: VportId, arrival: impl Into<Arrival>, reason: DropReason) -> Self {
        Self::new(name, from, arrival, Fate::Dropped(reason))
    }

    /// Changes the world before.
    pub fn given(mut self, prepare: impl Fn(&World) + 'static) -> Self {
        self.prepare.push(Box::new(prepare));
        self
    }

    /// Has a frame pass before (at TC).
    pub fn after(self, from: VportId, arrival: impl Into<Arrival>) -> Self {
        let arrival = arrival.into();
        self.given(move |world| {
            let fate = world.tc(from, arrival.clone());
            assert!(!matches!(fate, Fate::Dropped(_)), "a frame before was dropped: {fate:?}");
        })
    }

    pub fn at(self, hook: Hook) -> Self {
        Self { hook, ..self }
    }

    /// XDP must do it, and not leave it to TC.
    pub fn accelerated(self) -> Self {
        Self { accelerator: Accelerator::Acts, ..self }
    }

    /// XDP must leave it to TC.
    pub fn left_to_tc(self) -> Self {
        Self { accelerator: Accelerator::Leaves, ..self }
    }

    pub fn counts(mut self, event: EventCount) -> Self {
        self.events.push(event);
        self
    }

    /// Checks the world after it (at TC).
    pub fn then(mut self, check: impl Fn(&World) + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    fn world(&self) -> World {
        let world = World::new();
        for prepare in &self.prepare {
            prepare(&world);
        }
        world.reset_counters();
        world.replies.take();
        world
    }

    /// The counters that the expected fate moves, and the ICMP errors that followed: those are judged where
    /// they are the matter (`errors.rs`).
    fn expected_counters(&self, world: &World) -> Vec<String> {
        let length = self.arrival.bytes.len() as u64;
        let mut lines: Vec<String> = self.events.iter().map(|counted| event(*counted, 1)).collect();
        let is_counted = match &self.expected {
            Fate::NotOurs | Fate::PassUp => false,
            // What the host sends out of its own NIC is not received by the switch.
            Fate::ToHost | Fate::FloodedAndToHost(_) => self.hook != Hook::UplinkEgress,
            _ => true,
        };
        if is_counted {
            lines.push(received(self.from, 1, length));
        }
        if let Fate::Dropped(reason) = self.expected {
            lines.push(dropped(self.from, reason, 1));
        }
        let mut frames: BTreeMap<VportId, u64> = BTreeMap::new();
        for vport in self.expected.leaves_by() {
            *frames.entry(vport).or_default() += 1;
        }
        lines.extend(frames.into_iter().map(|(vport, frames)| sent(vport, frames, frames * length)));
        for reply in world.replies.borrow().iter() {
            lines.push(sent(self.from, 1, reply.len() as u64));
            lines.push(event(EventCount::IcmpErrorsSent, 1));
        }
        lines.sort();
        lines
    }

    fn run_at_tc(&self) {
        let world = self.world();
        let fate = world.run::<true>(self.hook, self.from, &self.arrival);
        assert_eq!(fate, self.expected, "fate");
        assert_eq!(world.counters(), self.expected_counters(&world), "counters");
        for check in &self.checks {
            check(&world);
        }
    }

    fn run_at_xdp(&self) {
        let world = self.world();
        let before = world.tables();
        let fate = world.run::<false>(self.hook, self.from, &self.arrival);
        if matches!(fate, Fate::PassUp | Fate::NotOurs) {
            assert!(self.accelerator != Accelerator::Acts, "XDP left it to TC");
            assert_eq!(world.tables(), before, "tables after a frame left to TC");
            assert_eq!(world.counters(), Vec::<String>::new(), "counters after a frame left to TC");
        } else {
            let must_leave = self.accelerator == Accelerator::Leaves || self.arrival.gso_size != 0;
            assert!(!must_leave, "XDP did it: {fate:?}");
            assert_eq!(fate, self.expected, "fate");
            assert_eq!(world.counters(), self.expected_counters(&world), "counters");
        }
    }

    fn run(&self) {
        self.run_at_tc();
        // Marks do not exist there; egress hooks neither.
        if self.hook == Hook::Ingress && !self.arrival.marked {
            self.run_at_xdp();
        }
    }
}

/// Runs all cases and tells of every one that fails.
pub fn run(cases: Vec<Case>) {
    let mut failed = Vec::new();
    for case in cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case.run())) {
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            failed.push(format!("{}: {message}", case.name));
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}
