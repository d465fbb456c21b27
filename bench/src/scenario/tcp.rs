//! Bulk TCP, with the offloads that users have.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use vnet_tests::{
    daemon::Daemon,
    frame::Mac,
    namespace::Namespace,
    peers::iperf3,
    scenario::NETWORK,
    topology::{OUTSIDE, SUBNET, Topology, UPLINK, World, plug},
};

use super::{Entry, Forwarder, VNET, VNET_AGAIN};
use crate::{
    arguments::Scenario,
    cpu,
    method::{Comparison, Contestant, Effort, Plan, Sample, Unit, compare},
    peers,
};

/// A guest, a machine outside, and what is between them. Dropped in this order.
struct Way {
    _forwarder: Forwarder,
    guest: Namespace,
    outside: Namespace,
    address: Ipv4Addr,
    _world: Option<World>,
}

/// Through NAT.
pub(super) fn nat(core: usize, effort: &Effort) -> Result<Vec<Comparison>> {
    let topology = Topology::new().guests(1).uplink().quiet();
    let network = format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}");
    let iptables = |world: &World| peers::iptables(world).map(|()| Forwarder::Kernel);
    let ways = vec![
        (VNET, way(&topology, |world| vnet(world, &network))?),
        (VNET_AGAIN, way(&topology, |world| vnet(world, &network))?),
        (Entry::peer("iptables MASQUERADE", Some(1.0)), way(&topology, iptables)?),
        (Entry::limit("bare veth cable", None), cable()?),
    ];
    both_directions((Scenario::TcpNat, "NAT"), &ways, core, effort)
}

/// Through a bridge with an uplink.
pub(super) fn l2(core: usize, effort: &Effort) -> Result<Vec<Comparison>> {
    let topology = Topology::new().bridged_guests(1).uplink().quiet();
    let network = format!("--mode bridge --uplink {UPLINK}");
    let bridge =
        |world: &World| peers::linux_bridge(&world.host, &[&world.guest(1).port, UPLINK]).map(|()| Forwarder::Kernel);
    let ways = vec![
        (VNET, way(&topology, |world| vnet(world, &network))?),
        (VNET_AGAIN, way(&topology, |world| vnet(world, &network))?),
        (Entry::peer("linux-bridge", Some(1.0)), way(&topology, bridge)?),
        (Entry::limit("bare veth cable", None), cable()?),
    ];
    both_directions((Scenario::TcpL2, "bridge"), &ways, core, effort)
}

fn both_directions(
    (scenario, kind): (Scenario, &str),
    ways: &[(Entry, Way)],
    core: usize,
    effort: &Effort,
) -> Result<Vec<Comparison>> {
    let directions = [("guest → outside", false), ("outside → guest", true)];
    let compare_one = |(direction, reverse)| {
        let contestants: Vec<Contestant<'_>> = ways
            .iter()
            .map(|(entry, way)| entry.contestant(move || way.block(reverse, core, effort.seconds)))
            .collect();
        let plan = Plan {
            scenario: scenario.name(),
            title: format!("one TCP stream {direction}, {kind} at TC, default offloads"),
            unit: Unit::BitsPerSecond,
            rounds: effort.stream_rounds,
            core,
        };
        compare(plan, contestants)
    };
    directions.into_iter().map(compare_one).collect()
}

impl Way {
    /// One transfer; `reverse`: the outside sends. Both ends are on one core, where the scheduler, too,
    /// puts them if left alone: between two, most of the time goes into moving the data from one core's
    /// cache to the other's, and all contestants look alike.
    fn block(&self, reverse: bool, core: usize, seconds: u32) -> Result<Sample> {
        let options: &[&str] = if reverse { &["-R"] } else { &[] };
        let throughput =
            cpu::while_claimed(core, || iperf3(&self.guest, &self.outside, self.address, seconds, options))?;
        Ok(Sample { rate: throughput.bits_per_second, lost: None })
    }
}

fn way(topology: &Topology, forwarder: impl FnOnce(&World) -> Result<Forwarder>) -> Result<Way> {
    let world = topology.clone().build()?;
    let forwarder = forwarder(&world)?;
    let (guest, outside) = (world.guest(1).inside.clone(), world.outside().inside.clone());
    Ok(Way { _forwarder: forwarder, guest, outside, address: OUTSIDE, _world: Some(world) })
}

fn vnet(world: &World, network: &str) -> Result<Forwarder> {
    let vnet = Daemon::start(world)?;
    vnet.line(&format!("network add {NETWORK} {network}"))?;
    vnet.line(&format!("port add {NETWORK} {}", world.guest(1).port)).context("vnet")?;
    Ok(Forwarder::Vnet(vnet))
}

/// Nothing between the two but the cable.
fn cable() -> Result<Way> {
    let [guest, outside] = [Namespace::new("cable-a")?, Namespace::new("cable-b")?];
    plug(&guest, "eth0", &outside, Mac([0x02, 0, 0, 0, 0x99, 1]))?;
    guest.ip("addr add 198.51.100.11/24 dev eth0\n")?;
    outside.ip(&format!("addr add {OUTSIDE}/24 dev eth0\n"))?;
    Ok(Way { _forwarder: Forwarder::Kernel, guest, outside, address: OUTSIDE, _world: None })
}
