//! The datapath on plain memory: frames in, frames and tables out.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used)]

use proptest::test_runner::{Config, RngSeed};

#[path = "datapath/case.rs"]
mod case;
#[path = "datapath/fate.rs"]
mod fate;
#[path = "datapath/frames.rs"]
mod frames;
#[path = "datapath/packets.rs"]
mod packets;
#[path = "datapath/script.rs"]
mod script;
#[path = "datapath/snapshot.rs"]
mod snapshot;
#[path = "datapath/world.rs"]
mod world;

#[path = "datapath/ageing.rs"]
mod ageing;
#[path = "datapath/arp.rs"]
mod arp;
#[path = "datapath/bindings.rs"]
mod bindings;
#[path = "datapath/bridging.rs"]
mod bridging;
#[path = "datapath/checksums.rs"]
mod checksums;
#[path = "datapath/expiry.rs"]
mod expiry;
#[path = "datapath/guard.rs"]
mod guard;
#[path = "datapath/inbound.rs"]
mod inbound;
#[path = "datapath/invariants.rs"]
mod invariants;
#[path = "datapath/learning.rs"]
mod learning;
#[path = "datapath/outbound.rs"]
mod outbound;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/properties.rs"]
mod properties;
#[path = "datapath/races.rs"]
mod races;
#[path = "datapath/routed.rs"]
mod routed;
#[path = "datapath/tcp.rs"]
mod tcp;

/// The same cases in every run; what fails is printed, not kept in a file.
fn deterministic(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(0x766e_6574), ..Config::default() }
}
