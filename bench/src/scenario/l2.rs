//! Frames from one guest to another, through a MAC table.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use vnet_common::bench::program;
use vnet_tests::{
    daemon::Daemon,
    json,
    peers::reaches,
    scenario::NETWORK,
    topology::{Topology, World},
};

use super::{Entry, Forwarder, Path, VNET, VNET_AGAIN, compare_paths};
use crate::{
    arguments::Scenario,
    lane::Lane,
    method::{Comparison, Effort},
    peers,
    sink::Sink,
    source::{Source, Traffic, Varying},
    wiring,
};

/// Of the frames; a bridge does not look at them, but all scenarios send alike.
const FLOWS: u16 = 10_000;
const FIRST_PORT: u16 = 50_000;
/// RFC 863, discard.
const TO_PORT: u16 = 9;

pub(super) fn measure(core: usize, effort: &Effort) -> Result<Vec<Comparison>> {
    let mut paths = vec![
        (VNET, vnet(core)?),
        (VNET_AGAIN, vnet(core)?),
        (Entry::peer("linux-bridge", None), linux_bridge(core)?),
        (Entry::limit("constant TC redirect", Some(0.9)), constant(program::REDIRECT, core)?),
        (Entry::limit("constant TC redirect_peer", None), constant(program::REDIRECT_PEER, core)?),
    ];
    let title = "60-byte UDP from guest to guest, learned L2 at TC".to_owned();
    Ok(vec![compare_paths((Scenario::L2, title), &mut paths, core, effort)?])
}

fn vnet(core: usize) -> Result<Path> {
    path(core, |world| {
        let vnet = Daemon::start(world)?;
        vnet.line(&format!("network add {NETWORK} --mode isolated"))?;
        for guest in world.guests() {
            vnet.line(&format!("port add {NETWORK} {}", guest.port))?;
        }
        reaches(world.guest(2), world.guest(1).address)?;
        let learned = vnet.json(&format!("fdb list {NETWORK}"))?;
        for guest in world.guests() {
            let entry = json::find(&learned, "mac", &guest.mac.to_string())?;
            ensure!(json::string(entry, "port")? == guest.port, "learned at the wrong port: {entry}");
        }
        Ok(Forwarder::Vnet(vnet))
    })
    .context("vnet")
}

fn linux_bridge(core: usize) -> Result<Path> {
    path(core, |world| {
        let [from, to] = [1, 2].map(|number| world.guest(number));
        peers::linux_bridge(&world.host, &[&from.port, &to.port])?;
        reaches(to, from.address)?;
        peers::static_fdb_entry(&world.host, to.mac, &to.port)?;
        Ok(Forwarder::Kernel)
    })
    .context("linux-bridge")
}

fn constant(program: &str, core: usize) -> Result<Path> {
    path(core, |world| {
        let [from, to] = [1, 2].map(|number| &world.guest(number).port);
        Ok(Forwarder::Program { _ebpf: peers::constant(program, &world.host, from, to)? })
    })
    .with_context(|| program.to_owned())
}

/// Two guests, what forwards between them, and a lane from the first to the second.
fn path(core: usize, forwarder: impl FnOnce(&World) -> Result<Forwarder>) -> Result<Path> {
    let world = Topology::new().guests(2).quiet().build()?;
    let forwarder = forwarder(&world)?;
    let [from, to] = [1, 2].map(|number| world.guest(number));
    wiring::accept_redirected(&world.host, &from.port)?;
    let traffic = Traffic {
        from: (from.mac, SocketAddrV4::new(from.address, FIRST_PORT)),
        to: (to.mac, SocketAddrV4::new(to.address, TO_PORT)),
        varying: Varying::SourcePort,
        flows: FLOWS,
    };
    let lane =
        Lane { sink: Sink::new(to, "eth0", Some(from.address))?, source: Source::new(from, "eth0", &traffic, core)? };
    Ok(Path { lane, forwarder, world })
}
