//! Frames of every kind between guests: cut off, fragmented, IPv6, and ports that are down.

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    capture::{Capture, marker},
    frame::{Ipv4, Mac},
    json, peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    topology::{HOST, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::{BULK, Talk},
    wait,
};

#[test]
fn cut_off_packets_for_the_gateway_are_dropped_and_counted() -> Result<()> {
    let topology = Topology::new().guests(1).uplink().quiet();
    let scenario = Scenario::with(topology, &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    let guest = scenario.world.guest(1);
    let shown = scenario.vnet.json(&format!("network show {NETWORK}"))?;
    let gateway = Mac::parse(json::string(&shown["gateway"], "mac")?).context("no MAC address")?;
    let wire = Capture::open(guest, "eth0")?;
    let whole = Ipv4::udp("10.77.0.11:4000".parse()?, "198.51.100.1:53".parse()?, b"abcd").frame(gateway, guest.mac);
    for length in 15..whole.len() {
        wire.send(&whole[..length])?;
    }
    let expected = whole.len() as u64 - 15;
    wait::until("every cut-off frame is counted", wait::SOON, || {
        let drops = scenario.vnet.port("g1")?["drops"].clone();
        Ok(if drops["truncated-ipv4"] == expected { Ok(()) } else { Err(drops.to_string()) })
    })?;
    // And the whole one goes through.
    let outside = Capture::open(scenario.world.outside(), "eth0")?;
    wire.send(&whole)?;
    outside.wait_for("the whole datagram", |packet| packet.bytes.ends_with(b"abcd"))?;
    Ok(())
}

#[test]
fn fragmented_datagrams_pass_between_guests_and_through_routed_networks() -> Result<()> {
    let topology = Topology::new().guests(2).uplink();
    let scenario = Scenario::with(topology, &format!("--mode routed --subnet {SUBNET} --uplink {UPLINK}"))?;
    let (a, b, outside) = (scenario.world.guest(1), scenario.world.guest(2), scenario.world.outside());
    outside.ip(&format!("route add {SUBNET} via {HOST}\n"))?;
    let payload = vec![0x5a; 20_000];
    let _reflectors = [Reflector::start(b, b.address, 3478)?, Reflector::start(outside, OUTSIDE, 3478)?];
    for target in [b.address, OUTSIDE] {
        let seen = ask(&udp(a, a.address, 4000)?, (target, 3478), &payload)?;
        assert_eq!(*seen.ip(), a.address);
    }
    Ok(())
}

#[test]
fn guests_talk_ipv6_to_each_other() -> Result<()> {
    let scenario = Scenario::isolated(2)?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    a.ip("addr add fd00:77::11/64 dev eth0 nodad")?;
    b.ip("addr add fd00:77::12/64 dev eth0 nodad")?;
    let output = a.run(&["ping", "-6", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "2", "fd00:77::12"])?;
    ensure!(output.contains(" 3 received"), "{output}");
    // Link-local multicast reaches every guest.
    let output = a.run(&["ping", "-6", "-n", "-c", "1", "-W", "2", "ff02::1%eth0"])?;
    ensure!(output.contains(" 1 received"), "{output}");
    Ok(())
}

#[test]
fn a_port_that_is_down_costs_only_itself() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let (host, a, b, c) =
        (&scenario.world.host, scenario.world.guest(1), scenario.world.guest(2), scenario.world.guest(3));
    let (from, third) = (Capture::open(a, "eth0")?, Capture::open(c, "eth0")?);
    host.ip("link set g2 down")?;
    for number in 0..20 {
        from.send(&marker(a.mac, number))?;
        third.wait_for_bytes("the broadcast", &marker(a.mac, number))?;
    }
    peers::does_not_reach(a, b.address)?;
    peers::reaches(a, c.address)?;
    host.ip("link set g2 up")?;
    wait::until_true("guest 2 is back", wait::SOON, || Ok(peers::pings(a, b.address, 1)? == 1))
}

#[test]
fn a_guest_with_a_vlan_of_its_own_reaches_another_with_the_same() -> Result<()> {
    // No VLAN devices are needed: a tagged ping is made by hand, and answered by hand.
    let scenario = Scenario::quiet(2)?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    let (at_a, at_b) = (Capture::open(a, "eth0")?, Capture::open(b, "eth0")?);
    let question = Ipv4::icmp_echo(a.address, b.address, 8, 7, &[0x33; 1400]).frame(b.mac, a.mac);
    let answer = Ipv4::icmp_echo(b.address, a.address, 0, 7, &[0x33; 1400]).frame(a.mac, b.mac);
    for tci in [0x0064, 0x7064] {
        let (question, answer) = (vnet_tests::frame::tagged(tci, &question), vnet_tests::frame::tagged(tci, &answer));
        at_a.send(&question)?;
        at_b.wait_for_bytes("the tagged question", &question)?;
        at_b.send(&answer)?;
        at_a.wait_for_bytes("the tagged answer", &answer)?;
    }
    Ok(())
}

#[test]
fn jumbo_frames_pass_where_every_device_takes_them() -> Result<()> {
    let scenario = Scenario::bare(Topology::new().guests(2))?;
    for guest in scenario.world.guests() {
        scenario.world.host.ip(&format!("link set {} mtu 9000", guest.port))?;
        guest.ip("link set eth0 mtu 9000")?;
    }
    scenario.vnet.line(&format!("network add {NETWORK} --mode isolated"))?;
    for guest in scenario.world.guests() {
        scenario.vnet.line(&format!("port add {NETWORK} {}", guest.port))?;
    }
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    let output =
        a.run(&["ping", "-n", "-q", "-c", "2", "-i", "0.05", "-s", "8972", "-M", "do", "-W", "2", "10.77.0.12"])?;
    ensure!(output.contains(" 2 received"), "{output}");
    Talk::new(a, b, b.address, 5000).upload(BULK)?;
    // One device's MTU changes: the switch follows.
    scenario.world.host.ip("link set g2 mtu 1500")?;
    wait::until_true("long frames are refused", wait::SOON, || {
        a.output(&["ping", "-n", "-q", "-c", "1", "-s", "8972", "-M", "do", "-W", "1", "10.77.0.12"], wait::SOON)?;
        Ok(scenario.vnet.drops("g1", "over-mtu")? > 0)
    })
}
