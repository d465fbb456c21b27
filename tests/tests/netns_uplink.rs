//! Bridge networks: guests share the uplink's wire, and the host keeps it.

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    capture::{Capture, marker},
    json, peers,
    scenario::{NETWORK, Scenario},
    stream::Stream,
    topology::{HOST, INTERNET, OUTSIDE, UPLINK},
    transfer::{BULK, Talk},
};

#[test]
fn bridged_guests_and_machines_outside_reach_each_other() -> Result<()> {
    let scenario = Scenario::bridge(2)?;
    let outside = scenario.world.outside();
    for guest in scenario.world.guests() {
        peers::reaches(guest, OUTSIDE)?;
        peers::reaches(outside, guest.address)?;
    }
    peers::reaches(scenario.world.guest(1), scenario.world.guest(2).address)
}

#[test]
fn transfers_between_a_bridged_guest_and_the_outside_arrive_byte_for_byte() -> Result<()> {
    let scenario = Scenario::bridge(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    Talk::new(guest, outside, OUTSIDE, 5000).upload(BULK)?;
    let seen = Talk::new(guest, outside, OUTSIDE, 5000).download(BULK)?;
    assert_eq!(*seen.ip(), guest.address, "translated, in a bridge network");
    Talk::new(outside, guest, guest.address, 5000).upload(BULK)?;
    Ok(())
}

#[test]
fn the_uplink_keeps_the_hosts_address_and_routes() -> Result<()> {
    let scenario = Scenario::bridge(1)?;
    let (host, outside) = (&scenario.world.host, scenario.world.outside());
    let addresses = host.run(&["ip", "-4", "addr", "show", "dev", UPLINK])?;
    ensure!(addresses.contains(&HOST.to_string()), "{addresses}");
    ensure!(host.run(&["ip", "route", "show", "default"])?.contains(UPLINK));
    peers::reaches(host, OUTSIDE)?;
    peers::reaches(host, INTERNET)?;
    peers::reaches(outside, HOST)?;
    Talk::new(host, outside, OUTSIDE, 5000).upload(BULK)?;
    Talk::new(outside, host, HOST, 5000).upload(BULK)?;
    Ok(())
}

#[test]
fn the_host_and_a_bridged_guest_reach_each_other() -> Result<()> {
    let scenario = Scenario::bridge(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    peers::reaches(guest, HOST)?;
    peers::reaches(host, guest.address)?;
    Talk::new(host, guest, guest.address, 5000).upload(BULK)?;
    Talk::new(host, guest, guest.address, 5000).download(BULK)?;
    Talk::new(guest, host, HOST, 5000).upload(BULK)?;
    Ok(())
}

#[test]
fn the_hosts_connections_live_through_the_making_and_unmaking_of_a_bridge() -> Result<()> {
    let topology = vnet_tests::topology::Topology::new().bridged_guests(1).uplink();
    let scenario = Scenario::bare(topology)?;
    let (world, vnet) = (&scenario.world, &scenario.vnet);
    let stream = Stream::start(&world.host, world.outside(), (OUTSIDE, 5000), 5000)?;
    stream.advance(5)?;
    vnet.line(&format!("network add {NETWORK} --mode bridge --uplink {UPLINK}"))?;
    vnet.line(&format!("port add {NETWORK} g1"))?;
    stream.advance(5)?;
    peers::reaches(world.guest(1), OUTSIDE)?;
    vnet.line(&format!("network del {NETWORK}"))?;
    stream.advance(5)?;
    stream.stop().context("the host's own connection")?;
    Ok(())
}

#[test]
fn a_broadcast_from_outside_reaches_the_host_and_every_guest() -> Result<()> {
    let scenario = Scenario::bridge(2)?;
    let outside = Capture::open(scenario.world.outside(), "eth0")?;
    let host = Capture::open(&scenario.world.host, UPLINK)?;
    let guests = [1, 2].map(|number| Capture::open(scenario.world.guest(number), "eth0"));
    let from_outside = marker(vnet_tests::frame::Mac([2, 0, 0, 0, 0x99, 1]), 1);
    outside.send(&from_outside)?;
    host.wait_for_bytes("the broadcast", &from_outside)?;
    for guest in guests {
        guest?.wait_for_bytes("the broadcast", &from_outside)?;
    }
    // And one from a guest reaches the outside, the host's stack and the other guest.
    peers::reaches(scenario.world.guest(1), HOST)?;
    let neighbours = scenario.world.host.run(&["ip", "neigh", "show", "dev", UPLINK])?;
    ensure!(neighbours.contains(&scenario.world.guest(1).mac.to_string()), "{neighbours}");
    Ok(())
}

#[test]
fn a_unicast_between_guests_does_not_leave_by_the_uplink() -> Result<()> {
    let scenario = Scenario::bridge(2)?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    peers::reaches(a, b.address)?;
    let outside = Capture::open(scenario.world.outside(), "eth0")?;
    peers::reaches(a, b.address)?;
    Capture::open(a, "eth0")?.send(&marker(a.mac, 1))?;
    let seen = outside.before(&marker(a.mac, 1))?;
    ensure!(
        seen.iter().all(|packet| !packet.bytes.starts_with(&b.mac.0) && !packet.bytes.starts_with(&a.mac.0)),
        "the guests' own talk is on the wire outside"
    );
    Ok(())
}

#[test]
fn a_bridge_networks_ports_are_listed_with_their_roles() -> Result<()> {
    let scenario = Scenario::bridge(1)?;
    let list = scenario.vnet.json(&format!("port list {NETWORK}"))?;
    for (device, role) in [("g1", "guest"), (UPLINK, "uplink")] {
        let port = json::find(&list, "device", device)?;
        assert_eq!((json::string(port, "network")?, json::string(port, "role")?), (NETWORK, role));
    }
    Ok(())
}
