//! Who is measured against whom.

mod l2;
mod nat;
mod tcp;

use anyhow::Result;
use aya::Ebpf;
use vnet_tests::{daemon::Daemon, topology::World};

use crate::{
    arguments::Scenario,
    lane::Lane,
    method::{Comparison, Contestant, Effort, Part, Plan, Sample, Unit, compare},
};

pub fn measure(scenario: Scenario, core: usize, effort: &Effort) -> Result<Vec<Comparison>> {
    match scenario {
        Scenario::L2 => l2::measure(core, effort),
        Scenario::Nat => nat::measure(core, effort),
        Scenario::TcpNat => tcp::nat(core, effort),
        Scenario::TcpL2 => tcp::l2(core, effort),
    }
}

/// What forwards in a world; it ends with this.
enum Forwarder {
    Vnet(Daemon),
    Program { _ebpf: Ebpf },
    Kernel,
}

/// A world with its forwarder, and a lane through it. Dropped in this order.
struct Path {
    lane: Lane,
    forwarder: Forwarder,
    world: World,
}

/// Who competes, and what the subject's ratio to it should reach: what this project has set itself.
struct Entry {
    name: &'static str,
    part: Part,
    goal: Option<f64>,
}

const VNET: Entry = Entry { name: "vnet", part: Part::Subject, goal: None };
const VNET_AGAIN: Entry = Entry { name: "vnet again (A/A)", part: Part::Control, goal: None };

impl Entry {
    const fn peer(name: &'static str, goal: Option<f64>) -> Self {
        Self { name, part: Part::Peer, goal }
    }

    const fn limit(name: &'static str, goal: Option<f64>) -> Self {
        Self { name, part: Part::Limit, goal }
    }

    fn contestant<'a>(&self, block: impl FnMut() -> Result<Sample> + 'a) -> Contestant<'a> {
        Contestant { name: self.name, part: self.part, goal: self.goal, block: Box::new(block) }
    }
}

/// Compares packet rates.
fn compare_paths(
    (scenario, title): (Scenario, String),
    paths: &mut [(Entry, Path)],
    core: usize,
    effort: &Effort,
) -> Result<Comparison> {
    let frames = effort.frames;
    let contestants = paths.iter_mut().map(|(entry, path)| entry.contestant(move || path.lane.block(frames))).collect();
    let plan =
        Plan { scenario: scenario.name(), title, unit: Unit::FramesPerSecond, rounds: effort.frame_rounds, core };
    compare(plan, contestants)
}
