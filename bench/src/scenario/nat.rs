//! Frames of many established connections from a guest to the outside, source-translated.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, bail, ensure};
use vnet_common::bench::program;
use vnet_tests::{
    daemon::Daemon,
    frame::Mac,
    json,
    scenario::NETWORK,
    topology::{HOST, INTERNET, OUTSIDE, SUBNET, Topology, UPLINK, World},
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

const FLOWS: u16 = 10_000;
/// Every contestant keeps a guest's port where it is free and in its range, so that the way back is
/// known: all lie within vnet's range.
const FIRST_PORT: u16 = 50_000;
/// RFC 863, discard.
const TO_PORT: u16 = 9;
/// Frames for each flow while tables are filled.
const PRIMING: u32 = 4;
/// How often filling is tried: a frame may get lost while a table grows.
const ATTEMPTS: usize = 5;

pub(super) fn measure(core: usize, effort: &Effort) -> Result<Vec<Comparison>> {
    let mut paths = vec![
        (VNET, vnet(core)?),
        (VNET_AGAIN, vnet(core)?),
        (Entry::peer("iptables MASQUERADE", Some(1.5)), netfilter(core, peers::iptables).context("iptables")?),
        (Entry::peer("nft masquerade", None), netfilter(core, peers::nft).context("nft")?),
        (Entry::limit("constant TC redirect", None), redirect(core)?),
    ];
    let title = format!("60-byte UDP of {FLOWS} connections from guest to outside, NAT at TC");
    let comparison = compare_paths((Scenario::Nat, title), &mut paths, core, effort)?;
    for (entry, path) in &paths {
        check_established(path).with_context(|| format!("{}, at the end", entry.name))?;
    }
    Ok(vec![comparison])
}

fn vnet(core: usize) -> Result<Path> {
    let world = world()?;
    let vnet = Daemon::start(&world)?;
    vnet.line(&format!("network add {NETWORK} --mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    // One guest stands for many here: no share of the ports is too large for it.
    vnet.line(&format!("network set {NETWORK} guest-ports off guest-connections off"))?;
    vnet.line(&format!("port add {NETWORK} {}", world.guest(1).port))?;
    let network = vnet.json(&format!("network show {NETWORK}"))?;
    let gateway = network.get("gateway").context("no gateway")?;
    let mac = Mac::parse(json::string(gateway, "mac")?).context("the gateway's MAC address")?;
    let device = json::string(gateway, "device")?.to_owned();
    translating(core, world, Forwarder::Vnet(vnet), &device, mac).context("vnet")
}

fn netfilter(core: usize, configure: fn(&World) -> Result<()>) -> Result<Path> {
    let world = world()?;
    configure(&world)?;
    let limit = peers::conntrack_limit(&world.host)?;
    ensure!(
        limit >= 2 * u64::from(FLOWS),
        "nf_conntrack_max is {limit}: raise it, conntrack is to be judged at its best"
    );
    let device = world.guest(1).port.clone();
    let mac = wiring::mac(&world.host, &device)?;
    translating(core, world, Forwarder::Kernel, &device, mac)
}

fn redirect(core: usize) -> Result<Path> {
    let world = world()?;
    let program = peers::constant(program::REDIRECT, &world.host, &world.guest(1).port, UPLINK)?;
    let mac = wiring::mac(world.outside(), "eth0")?;
    let lane = lane(core, &world, mac, world.guest(1).address)?;
    Ok(Path { lane, forwarder: Forwarder::Program { _ebpf: program }, world })
}

fn world() -> Result<World> {
    let world = Topology::new().guests(1).uplink().quiet().build()?;
    for device in [&world.guest(1).port, UPLINK] {
        wiring::accept_redirected(&world.host, device)?;
    }
    wiring::know(&world.host, UPLINK, OUTSIDE, wiring::mac(world.outside(), "eth0")?)?;
    Ok(world)
}

/// A path whose connections are established. `device` and `gateway`: the guest's gateway.
fn translating(core: usize, world: World, forwarder: Forwarder, device: &str, gateway: Mac) -> Result<Path> {
    let guest = world.guest(1);
    wiring::know(&world.host, device, guest.address, guest.mac)?;
    let lane = lane(core, &world, gateway, HOST)?;
    let mut back = lane_back(core, &world)?;
    let mut path = Path { lane, forwarder, world };
    for _ in 0..ATTEMPTS {
        path.lane.prime(u32::from(FLOWS) * PRIMING)?;
        back.prime(u32::from(FLOWS) * PRIMING).context("answers")?;
        if check_established(&path).is_ok() {
            break;
        }
    }
    check_established(&path)?;
    Ok(path)
}

/// All connections stand.
fn check_established(path: &Path) -> Result<()> {
    let count = match &path.forwarder {
        Forwarder::Vnet(vnet) => json::number(&vnet.json("conntrack count")?, "count")?,
        Forwarder::Kernel => peers::conntrack_count(&path.world.host)?,
        Forwarder::Program { .. } => return Ok(()),
    };
    if count < u64::from(FLOWS) {
        bail!("{count} connections, not {FLOWS}");
    }
    Ok(())
}

/// From the guest to the outside, where `seen_as` is the source.
fn lane(core: usize, world: &World, next_hop: Mac, seen_as: Ipv4Addr) -> Result<Lane> {
    let guest = world.guest(1);
    let traffic = Traffic {
        from: (guest.mac, SocketAddrV4::new(guest.address, FIRST_PORT)),
        to: (next_hop, SocketAddrV4::new(INTERNET, TO_PORT)),
        varying: Varying::SourcePort,
        flows: FLOWS,
    };
    Ok(Lane {
        sink: Sink::new(world.outside(), "eth0", Some(seen_as))?,
        source: Source::new(guest, "eth0", &traffic, core)?,
    })
}

/// The answers: established is what has been answered.
fn lane_back(core: usize, world: &World) -> Result<Lane> {
    let (guest, outside) = (world.guest(1), world.outside());
    let traffic = Traffic {
        from: (wiring::mac(outside, "eth0")?, SocketAddrV4::new(INTERNET, TO_PORT)),
        to: (wiring::mac(&world.host, UPLINK)?, SocketAddrV4::new(HOST, FIRST_PORT)),
        varying: Varying::DestinationPort,
        flows: FLOWS,
    };
    Ok(Lane { sink: Sink::new(guest, "eth0", Some(INTERNET))?, source: Source::new(outside, "eth0", &traffic, core)? })
}
