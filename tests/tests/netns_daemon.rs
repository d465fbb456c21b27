//! The daemon's comings and goings: traffic outlives it, and nothing is left when a network is deleted.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;
use vnet_tests::{
    attachments::tc_programs,
    capture::{Capture, marker},
    daemon::Daemon,
    frame::Mac,
    json,
    namespace::Namespace,
    peers,
    process::Process,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    snapshot::Snapshot,
    stream::Stream,
    topology::{HOST, INTERNET, OTHER_SUBNET, OUTSIDE, SUBNET, Topology, UPLINK, plug},
    transfer::Talk,
    wait,
};

/// The connections of the table, without their clocks.
fn connections(vnet: &Daemon) -> Result<BTreeSet<String>> {
    let list = vnet.json("conntrack list")?;
    let all = json::array(&list, "conntrack list")?;
    Ok(all.iter().map(|one| format!("{} {} {}", one["protocol"], one["original"], one["reply"])).collect())
}

fn received(vnet: &Daemon, device: &str) -> Result<u64> {
    json::number(&vnet.port(device)?["rx"], "frames")
}

#[test]
fn traffic_goes_on_when_the_daemon_is_killed_and_the_next_one_takes_over() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::nat(2)?;
    let (guest, outside) = (world.guest(1), world.outside());
    vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    let forwarded = Stream::start(outside, guest, (HOST, 8080), 80)?;
    stream.advance(5)?;
    let (before, frames) = (connections(&vnet)?, received(&vnet, "g1")?);
    ensure!(before.len() >= 2, "{before:?}");

    vnet.kill9()?;
    stream.advance(20)?;
    forwarded.advance(20)?;
    // New connections, guests not heard of before, and new clients of the forward.
    for guest in world.guests() {
        peers::reaches(guest, INTERNET)?;
        Talk::new(guest, outside, OUTSIDE, 5000).greet()?;
    }
    peers::reaches(world.guest(1), world.guest(2).address)?;

    vnet.start_again()?;
    stream.advance(20)?;
    forwarded.advance(20)?;
    let after = connections(&vnet)?;
    ensure!(before.is_subset(&after), "lost: {:?}", before.difference(&after).collect::<Vec<_>>());
    let now = received(&vnet, "g1")?;
    ensure!(now > frames, "frames received by g1: {frames} before, {now} after");
    assert_eq!(json::array(&vnet.json("forward list")?, "forwards")?.len(), 1);
    for guest in world.guests() {
        Talk::new(guest, outside, OUTSIDE, 5000).greet()?;
    }
    stream.stop()?;
    forwarded.stop()?;
    Ok(())
}

#[test]
fn bulk_tcp_does_not_notice_a_restart() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::nat(1)?;
    let (guest, outside) = (world.guest(1), world.outside());
    peers::reaches(guest, OUTSIDE)?;
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| peers::iperf3(guest, outside, OUTSIDE, 4, &[]));
        wait::until_true("iperf3 runs", wait::SOON, || Ok(received(&vnet, "g1")? > 1000))?;
        for _ in 0..2 {
            vnet.kill9()?;
            vnet.start_again()?;
        }
        vnet.terminate()?;
        vnet.start_again()?;
        ensure!(!transfer.is_finished(), "iperf3 was over too early");
        let rate = transfer.join().expect("the thread")?;
        ensure!(rate.bits_per_second > 1e9, "{rate:?}");
        Ok(())
    })
}

#[test]
fn a_guest_that_appears_while_no_daemon_runs_is_learned() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::quiet(3)?;
    let wires: Vec<_> = world.guests().iter().map(|guest| Capture::open(guest, "eth0")).collect::<Result<_>>()?;
    vnet.kill9()?;
    let newcomer = Mac([2, 0, 0, 0, 0xee, 1]);
    wires[2].send(&marker(newcomer, 1))?;
    wires[0].wait_for_bytes("the newcomer", &marker(newcomer, 1))?;
    let to_newcomer = vnet_tests::frame::ethernet(newcomer, world.guest(1).mac, 0x88b5, &[1; 60]);
    wires[0].send(&to_newcomer)?;
    wires[2].wait_for_bytes("the frame for the newcomer", &to_newcomer)?;
    wires[0].send(&marker(world.guest(1).mac, 2))?;
    let seen = wires[1].before(&marker(world.guest(1).mac, 2))?;
    ensure!(seen.iter().all(|packet| packet.bytes != to_newcomer), "not learned while the daemon was away");
    vnet.start_again()?;
    ensure!(vnet.json(&format!("fdb list {NETWORK}"))?.to_string().contains(&newcomer.to_string()));
    Ok(())
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_the_traffic_and_finds_its_state_again() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::nat(1)?;
    vnet.line(&format!("forward add {NETWORK} udp 9000-9003 10.77.0.11:7000-7003"))?;
    vnet.line(&format!("fdb add {NETWORK} 02:00:00:00:ee:01 g1"))?;
    let nouns = ["network list", "network show net1", "forward list", "fdb list net1"];
    let state = |vnet: &Daemon| -> Result<Vec<Value>> { nouns[..].iter().map(|noun| vnet.json(noun)).collect() };
    let before = state(&vnet)?;
    let stream = Stream::start(world.guest(1), world.outside(), (OUTSIDE, 5001), 5001)?;
    assert_eq!(vnet.terminate()?, Some(0), "exit code after SIGTERM");
    stream.advance(10)?;
    peers::reaches(world.guest(1), INTERNET)?;
    vnet.start_again()?;
    stream.advance(10)?;
    stream.stop()?;
    let after = state(&vnet)?;
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    for field in ["name", "mode", "gateway", "subnets", "uplinks", "nat"] {
        assert_eq!(before[1][field], after[1][field], "{field}");
    }
    json::find(&after[3], "kind", "static")?;
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() -> Result<()> {
    let Scenario { vnet, world } = Scenario::nat(1)?;
    let refused = Process::spawn(vnet.command(&["daemon"])?)?.output(wait::SOON)?;
    assert_eq!(refused.status, 1, "{refused}");
    let lines: Vec<_> = refused.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1 && lines[0].contains("another"), "{refused}");
    vnet.json("network list")?;
    peers::reaches(world.guest(1), OUTSIDE)
}

#[test]
fn deleting_a_network_undoes_everything() -> Result<()> {
    let topology = Topology::new().guests(2).uplink();
    let Scenario { vnet, world } = Scenario::bare(topology)?;
    let host = &world.host;
    host.sysctl("net/ipv4/ip_local_reserved_ports", "8000-8001,9999")?;
    // The kernel's own answer to the first packets comes first.
    peers::reaches(host, OUTSIDE)?;
    let before = Snapshot::take(host)?;
    for mode in ["bridge", "nat", "routed", "host-only", "isolated"] {
        let mut arguments = String::new();
        if matches!(mode, "nat" | "routed" | "host-only") {
            arguments += &format!(" --subnet {SUBNET}");
        }
        if matches!(mode, "bridge" | "nat" | "routed") {
            arguments += &format!(" --uplink {UPLINK}");
        }
        vnet.line(&format!("network add {NETWORK} --mode {mode}{arguments}"))?;
        vnet.line(&format!("port add {NETWORK} g1"))?;
        vnet.line(&format!("port add {NETWORK} g2"))?;
        if matches!(mode, "nat" | "routed") {
            vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
            peers::reaches(world.guest(1), HOST)?;
        }
        peers::reaches(world.guest(1), world.guest(2).address)?;
        // Its gateway has gone, and the next network's is another machine.
        world.guest(1).ip("neigh flush dev eth0")?;
        let (ingress, _) = tc_programs(host, "g1")?;
        ensure!(ingress == ["port_ingress"], "{mode}: programs on g1: {ingress:?}");
        vnet.line(&format!("network del {NETWORK}"))?;
        let differences = before.differences(&Snapshot::take(host)?);
        ensure!(differences.is_empty(), "{mode}: {differences:#?}");
        ensure!(connections(&vnet)?.is_empty(), "{mode}: connections left");
        assert_eq!(vnet.json("port list")?, serde_json::json!([]), "{mode}");
    }
    Ok(())
}

#[test]
fn deleting_one_network_leaves_the_other_alone() -> Result<()> {
    let topology = Topology::new().guests(1).other_guests(1).uplink();
    let Scenario { vnet, world } = Scenario::bare(topology)?;
    for (name, subnet, port) in [(NETWORK, SUBNET, "g1"), ("net2", OTHER_SUBNET, "g2")] {
        vnet.line(&format!("network add {name} --mode nat --subnet {subnet} --uplink {UPLINK}"))?;
        vnet.line(&format!("port add {name} {port}"))?;
    }
    let stream = Stream::start(world.guest(2), world.outside(), (OUTSIDE, 5001), 5001)?;
    peers::reaches(world.guest(1), OUTSIDE)?;
    vnet.line(&format!("network del {NETWORK}"))?;
    stream.advance(10)?;
    peers::reaches(world.guest(2), INTERNET)?;
    peers::does_not_reach(world.guest(1), OUTSIDE)?;
    stream.stop()?;
    Ok(())
}

#[test]
fn a_guest_device_made_anew_under_the_same_name_is_taken_again() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::nat(2)?;
    let (a, b) = (world.guest(1), world.guest(2));
    peers::reaches(a, OUTSIDE)?;
    let renew = |guest: &Namespace| -> Result<()> {
        world.host.ip("link del g1")?;
        plug(&world.host, "g1", guest, a.mac)?;
        guest.ip(&format!("addr add {}/24 dev eth0\nroute add default via 10.77.0.1\n", a.address))
    };
    let reaches_all = || -> Result<()> {
        wait::until_true("the guest is back", wait::SOON, || {
            // Until the port is taken, the host's kernel answers for the gateway (see `netns_modes`).
            a.ip("neigh flush dev eth0")?;
            Ok(peers::pings(a, OUTSIDE, 1)? == 1)
        })?;
        peers::reaches(b, a.address)?;
        peers::reaches(&world.host, a.address)
    };
    renew(a)?;
    reaches_all()?;
    // And while no daemon is there to see it.
    vnet.kill9()?;
    renew(a)?;
    vnet.start_again()?;
    reaches_all()
}

#[test]
fn a_new_address_of_the_uplink_is_used_at_once() -> Result<()> {
    let Scenario { vnet: _vnet, world } = Scenario::nat(1)?;
    let (host, guest, outside) = (&world.host, world.guest(1), world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let seen = |port: u16| ask(&udp(guest, guest.address, port)?, (OUTSIDE, 3478), b"who am I?");
    assert_eq!(*seen(50_000)?.ip(), HOST);
    host.ip(&format!("addr del {HOST}/24 dev {UPLINK}\naddr add 198.51.100.7/24 dev {UPLINK}\n"))?;
    wait::until("the new address is used", wait::SOON, || {
        Ok(match seen(0) {
            Ok(address) if address.ip().to_string() == "198.51.100.7" => Ok(()),
            Ok(address) => Err(address.to_string()),
            Err(error) => Err(error.to_string()),
        })
    })?;
    host.ip(&format!("route add default via {OUTSIDE}\n"))?;
    wait::until_true("the internet is back", wait::SOON, || Ok(peers::pings(guest, INTERNET, 1)? == 1))
}
