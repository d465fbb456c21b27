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
#[path = "datapath/errors.rs"]
mod errors;
#[path = "datapath/expiry.rs"]
mod expiry;
#[path = "datapath/filtering.rs"]
mod filtering;
#[path = "datapath/fragments.rs"]
mod fragments;
#[path = "datapath/guard.rs"]
mod guard;
#[path = "datapath/hairpin.rs"]
mod hairpin;
#[path = "datapath/inbound.rs"]
mod inbound;
#[path = "datapath/invariants.rs"]
mod invariants;
#[path = "datapath/learning.rs"]
mod learning;
#[path = "datapath/outbound.rs"]
mod outbound;
#[path = "datapath/pairs.rs"]
mod pairs;
#[path = "datapath/pairs_threads.rs"]
mod pairs_threads;
#[path = "datapath/paths.rs"]
mod paths;
#[path = "datapath/pick_up.rs"]
mod pick_up;
#[path = "datapath/ports.rs"]
mod ports;
#[path = "datapath/properties.rs"]
mod properties;
#[path = "datapath/quotas.rs"]
mod quotas;
#[path = "datapath/races.rs"]
mod races;
#[path = "datapath/refresh.rs"]
mod refresh;
#[path = "datapath/routed.rs"]
mod routed;
#[path = "datapath/sockets.rs"]
mod sockets;
#[path = "datapath/tcp.rs"]
mod tcp;
#[path = "datapath/transport.rs"]
mod transport;
#[path = "datapath/ways.rs"]
mod ways;

/// The same cases in every run; what fails is printed, not kept in a file.
fn deterministic(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(0x766e_6574), ..Config::default() }
}
