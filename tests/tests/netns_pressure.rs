//! Room runs short: what can be spared goes, what is established stays.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use vnet_tests::{
    daemon::Daemon,
    follower::Follower,
    json,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    stream::Stream,
    topology::{Guest, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::Talk,
    wait,
};

/// The daemon's smallest table.
const SMALL: &str = "1024";
/// How soon room must be made: passes of the daemon, and two seconds until a record is used again.
const SECONDS: Duration = Duration::from_secs(15);

/// [`Scenario::nat`] with two guests and small tables.
fn small() -> Result<Scenario> {
    let world = Topology::new().guests(2).uplink().build()?;
    let vnet = Daemon::start_with(&world, &[("VNET_MAX_CONNECTIONS", SMALL)])?;
    vnet.line(&format!("network add {NETWORK} --mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    for guest in world.guests() {
        vnet.line(&format!("port add {NETWORK} {}", guest.port))?;
    }
    Ok(Scenario { vnet, world })
}

/// Sends a datagram each to `count` addresses where nobody answers, from one socket.
fn flood(guest: &Guest, count: u16) -> Result<()> {
    let socket = udp(guest, guest.address, 50_000)?;
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        socket.send_to(b"x", (Ipv4Addr::new(203, 0, high + 120, low), 9))?;
    }
    Ok(())
}

fn event(vnet: &Daemon, name: &str) -> Result<u64> {
    json::number(&vnet.json("stats")?["events"], name)
}

fn used(vnet: &Daemon, table: &str) -> Result<u64> {
    json::number(json::find(&vnet.json("stats")?["tables"], "name", table)?, "used")
}

#[test]
fn a_table_full_of_unanswered_connections_makes_room_and_ends_nothing_established() -> Result<()> {
    let scenario = small()?;
    let (vnet, outside) = (&scenario.vnet, scenario.world.outside());
    let (greedy, other) = (scenario.world.guest(1), scenario.world.guest(2));
    // Silence: datagrams to anywhere else end here.
    outside.ip("route add blackhole 203.0.0.0/16\n")?;
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let stream = Stream::start(other, outside, (OUTSIDE, 5000), 5000)?;
    stream.advance(10)?;
    let socket = udp(other, other.address, 40_000)?;
    ask(&socket, (OUTSIDE, 3478), b"x")?;
    let ends = Follower::start(vnet, "--port g2")?;

    wait::until_true("the table is full", SECONDS, || {
        flood(greedy, 1500)?;
        Ok(vnet.drops("g1", "table-full")? > 0)
    })?;
    let mut port = 41_000;
    wait::until("the other guest opens connections again", SECONDS, || {
        port += 1;
        let fresh = udp(other, other.address, port)?;
        Ok(ask(&fresh, (OUTSIDE, 3478), b"x").map_err(|error| error.to_string()))
    })?;
    Talk::new(other, outside, OUTSIDE, 6000).greet()?;
    // Nobody's answered connection has gone, and the stream never stopped.
    stream.advance(10)?;
    ask(&socket, (OUTSIDE, 3478), b"x")?;
    ensure!(!stream.is_broken(), "the stream broke");
    let spared = event(vnet, "connections-spared")?;
    ensure!(spared > 0 && event(vnet, "connections-expired")? == 0, "{spared} spared");
    let ended = ends.events()?.into_iter().filter(|event| event["event"] == "end").collect::<Vec<_>>();
    ensure!(ended.iter().all(|event| event["state"] == "unreplied"), "{ended:?}");
    wait::until_true("the table is below 15/16", SECONDS, || Ok(used(vnet, "connections")? <= 960))?;
    let listed = json::number(&vnet.json("conntrack count --idle-over 0")?, "count")?;
    ensure!(listed <= used(vnet, "connections")?, "{listed} listed");
    stream.stop().map(drop)
}

#[test]
fn a_table_full_of_cooling_ports_makes_room() -> Result<()> {
    let scenario = small()?;
    let (vnet, outside) = (&scenario.vnet, scenario.world.outside());
    let (greedy, other) = (scenario.world.guest(1), scenario.world.guest(2));
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let stream = Stream::start(other, outside, (OUTSIDE, 5000), 5000)?;
    stream.advance(10)?;
    // A port each, whose connection is over: they cool down for two minutes.
    let mut port = 10_000;
    let mut most = 0;
    wait::until("more than 15/16 of the ports cool down", SECONDS * 2, || {
        for _ in 0..250 {
            port += 1;
            udp(greedy, greedy.address, port)?.send_to(b"x", (OUTSIDE, 9))?;
        }
        vnet.line("conntrack flush --port g1")?;
        most = most.max(used(vnet, "bindings")?);
        Ok(if most > 960 { Ok(()) } else { Err(format!("{most} bindings")) })
    })?;
    wait::until("ports cool down no longer than there is room", SECONDS, || {
        let now = used(vnet, "bindings")?;
        Ok(if now <= 960 { Ok(()) } else { Err(format!("{now} bindings")) })
    })?;
    ask(&udp(other, other.address, 42_000)?, (OUTSIDE, 3478), b"x")?;
    stream.advance(10)?;
    // No connection had to go for it.
    assert_eq!(event(vnet, "connections-spared")?, 0);
    stream.stop().map(drop)
}

/// How many outside ports a network has: 49152 to 65535.
const RANGE: u16 = 16_384;

#[test]
fn a_range_without_a_free_port_has_some_again_within_seconds() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let (vnet, outside) = (&scenario.vnet, scenario.world.outside());
    let (greedy, other) = (scenario.world.guest(1), scenario.world.guest(2));
    // Else its quota would stop the greedy one half-way.
    vnet.line("network set net1 guest-ports off")?;
    // Silence: what is sent to any other address ends here.
    outside.ip("route add blackhole 203.0.0.0/16\n")?;
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let answered = udp(other, other.address, 40_000)?;
    let seen = ask(&answered, (OUTSIDE, 3478), b"x")?;
    greedy.enter(|| {
        for port in 1..=RANGE + 100 {
            let socket = UdpSocket::bind((greedy.address, 10_000 + port))?;
            socket.send_to(b"x", (Ipv4Addr::new(203, 0, 120, 1), 9))?;
        }
        Ok(())
    })?;
    ensure!(vnet.drops("g1", "ports-exhausted")? > 0, "a port was left");
    let mut port = 41_000;
    wait::until("the other guest finds a port again", SECONDS, || {
        port += 1;
        let fresh = udp(other, other.address, port)?;
        Ok(ask(&fresh, (OUTSIDE, 3478), b"x").map_err(|error| error.to_string()))
    })?;
    // A sixteenth of the range a time, and nothing that was answered.
    let spared = event(vnet, "connections-spared")?;
    ensure!(spared >= u64::from(RANGE / 16) && spared < u64::from(RANGE), "{spared} spared");
    assert_eq!(ask(&answered, (OUTSIDE, 3478), b"x")?, seen);
    Ok(())
}
