//! The switch between guests: flooding, learning, VLAN tags, counters.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vnet_tests::{
    capture::{Capture, marker},
    frame::{ETHERTYPE_TEST, Mac, ethernet, tagged},
    json, peers,
    scenario::{NETWORK, Scenario},
    socket::Packet,
    topology::{SUBNET, Topology},
    transfer::{BULK, Talk},
    wait,
};

/// A machine that no guest is.
const STRANGER: Mac = Mac([2, 0, 0, 0, 0xee, 1]);

/// A frame that means nothing to any host.
fn frame(dst: Mac, src: Mac, content: &str) -> Vec<u8> {
    let mut payload = content.as_bytes().to_vec();
    payload.resize(60, 0x2e);
    ethernet(dst, src, ETHERTYPE_TEST, &payload)
}

/// Wires of the guests, in order.
fn wires(scenario: &Scenario) -> Result<Vec<Capture>> {
    scenario.world.guests().iter().map(|guest| Capture::open(guest, "eth0")).collect()
}

fn came_in(packets: &[Packet], frame: &[u8]) -> bool {
    packets.iter().any(|packet| packet.bytes == frame)
}

/// The FDB entry of a MAC address, if there is one.
fn fdb_entry(scenario: &Scenario, mac: Mac, vlan: u16) -> Result<Option<Value>> {
    let list = scenario.vnet.json(&format!("fdb list {NETWORK}"))?;
    let wanted = mac.to_string();
    let mut entries = json::array(&list, "fdb list")?.iter();
    Ok(entries
        .find(|entry| entry["mac"] == wanted.as_str() && entry["vlan"].as_u64().unwrap_or(0) == u64::from(vlan))
        .cloned())
}

#[test]
fn guests_of_an_isolated_network_reach_each_other() -> Result<()> {
    let scenario = Scenario::isolated(3)?;
    for from in scenario.world.guests() {
        for to in scenario.world.guests().iter().filter(|to| to.port != from.port) {
            peers::reaches(from, to.address)?;
        }
    }
    Ok(())
}

#[test]
fn a_transfer_between_guests_arrives_byte_for_byte() -> Result<()> {
    let scenario = Scenario::isolated(2)?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    Talk::new(a, b, b.address, 5000).upload(BULK)?;
    Talk::new(a, b, b.address, 5000).download(BULK)?;
    Ok(())
}

#[test]
fn a_broadcast_reaches_every_guest_but_its_sender() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let macs: Vec<_> = scenario.world.guests().iter().map(|guest| guest.mac).collect();
    let broadcast = marker(macs[0], 1);
    wires[0].send(&broadcast)?;
    wires[1].wait_for_bytes("the broadcast", &broadcast)?;
    wires[2].wait_for_bytes("the broadcast", &broadcast)?;
    wires[1].send(&marker(macs[1], 2))?;
    ensure!(!came_in(&wires[0].before(&marker(macs[1], 2))?, &broadcast), "it came back to its sender");
    Ok(())
}

#[test]
fn an_unknown_unicast_floods_and_a_learned_one_does_not() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let [a, b] = [1, 2].map(|number| scenario.world.guest(number).mac);
    let unknown = frame(STRANGER, a, "for a stranger");
    wires[0].send(&unknown)?;
    wires[1].wait_for_bytes("the flooded frame", &unknown)?;
    wires[2].wait_for_bytes("the flooded frame", &unknown)?;

    wires[2].send(&frame(a, STRANGER, "here is the stranger"))?;
    wires[0].wait_for_bytes("the stranger's word", &frame(a, STRANGER, "here is the stranger"))?;
    let known = frame(STRANGER, b, "for the stranger");
    wires[1].send(&known)?;
    wires[2].wait_for_bytes("the stranger's frame", &known)?;
    wires[1].send(&marker(b, 1))?;
    ensure!(!came_in(&wires[0].before(&marker(b, 1))?, &known), "a learned unicast reached a third guest");
    Ok(())
}

#[test]
fn a_mac_that_moves_is_followed_at_once() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let b = scenario.world.guest(2).mac;
    wires[0].send(&marker(STRANGER, 1))?;
    wires[1].wait_for_bytes("the stranger at guest 1", &marker(STRANGER, 1))?;
    let entry = fdb_entry(&scenario, STRANGER, 0)?.context("not learned")?;
    assert_eq!((&entry["port"], &entry["kind"]), (&Value::from("g1"), &Value::from("learned")));

    wires[2].send(&marker(STRANGER, 2))?;
    wires[1].wait_for_bytes("the stranger at guest 3", &marker(STRANGER, 2))?;
    let to_stranger = frame(STRANGER, b, "after the move");
    wires[1].send(&to_stranger)?;
    wires[2].wait_for_bytes("the frame for the moved stranger", &to_stranger)?;
    wires[1].send(&marker(b, 3))?;
    ensure!(!came_in(&wires[0].before(&marker(b, 3))?, &to_stranger), "the old place still gets its frames");
    assert_eq!(fdb_entry(&scenario, STRANGER, 0)?.context("forgotten")?["port"], "g3");
    Ok(())
}

#[test]
fn a_static_entry_stays_where_it_was_put() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let a = scenario.world.guest(1).mac;
    scenario.vnet.line(&format!("fdb add {NETWORK} {STRANGER} g2"))?;
    let entry = fdb_entry(&scenario, STRANGER, 0)?.context("not there")?;
    assert_eq!((&entry["port"], &entry["kind"]), (&Value::from("g2"), &Value::from("static")));

    // Someone else's use of the address does not move it.
    wires[2].send(&marker(STRANGER, 1))?;
    wires[0].wait_for_bytes("the impostor's broadcast", &marker(STRANGER, 1))?;
    let to_stranger = frame(STRANGER, a, "to the static one");
    wires[0].send(&to_stranger)?;
    wires[1].wait_for_bytes("the frame", &to_stranger)?;
    wires[0].send(&marker(a, 2))?;
    ensure!(!came_in(&wires[2].before(&marker(a, 2))?, &to_stranger), "the impostor got the frame");

    scenario.vnet.line(&format!("fdb flush {NETWORK}"))?;
    ensure!(fdb_entry(&scenario, STRANGER, 0)?.is_some(), "flush took a static entry");
    scenario.vnet.line(&format!("fdb del {NETWORK} {STRANGER}"))?;
    ensure!(fdb_entry(&scenario, STRANGER, 0)?.is_none(), "still there");
    wires[0].send(&to_stranger)?;
    wires[2].wait_for_bytes("the frame, flooded again", &to_stranger)?;
    Ok(())
}

#[test]
fn a_flush_forgets_what_was_learned() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let [a, b] = [1, 2].map(|number| scenario.world.guest(number).mac);
    wires[0].send(&marker(a, 1))?;
    wires[1].wait_for_bytes("guest 1", &marker(a, 1))?;
    ensure!(fdb_entry(&scenario, a, 0)?.is_some(), "not learned");
    scenario.vnet.line(&format!("fdb flush {NETWORK}"))?;
    ensure!(fdb_entry(&scenario, a, 0)?.is_none(), "still there");
    let to_a = frame(a, b, "floods again");
    wires[1].send(&to_a)?;
    wires[2].wait_for_bytes("the flooded frame", &to_a)?;
    Ok(())
}

#[test]
fn tagged_frames_pass_unchanged_with_their_priority() -> Result<()> {
    let scenario = Scenario::quiet(2)?;
    let wires = wires(&scenario)?;
    let [a, b] = [1, 2].map(|number| scenario.world.guest(number).mac);
    // Priority, DEI and VID; the last one is a priority tag.
    for tci in [0x0005, 0x6005, 0xe00a, 0x1ffe, 0xf064, 0xa000] {
        for dst in [Mac::BROADCAST, b] {
            let sent = tagged(tci, &frame(dst, a, &format!("tag {tci:04x}")));
            wires[0].send(&sent)?;
            wires[1].wait_for_bytes(&format!("the frame with tag {tci:04x} to {dst}"), &sent)?;
        }
        wires[1].send(&tagged(tci, &frame(a, b, "back")))?;
        wires[0].wait_for_bytes(&format!("the answer with tag {tci:04x}"), &tagged(tci, &frame(a, b, "back")))?;
    }
    let entry = fdb_entry(&scenario, a, 5)?.context("not learned on VLAN 5")?;
    assert_eq!(entry["port"], "g1");
    Ok(())
}

#[test]
fn a_mac_learned_on_one_vlan_is_unknown_on_another() -> Result<()> {
    let scenario = Scenario::quiet(3)?;
    let wires = wires(&scenario)?;
    let [a, b] = [1, 2].map(|number| scenario.world.guest(number).mac);
    wires[0].send(&tagged(5, &marker(a, 1)))?;
    wires[1].wait_for_bytes("guest 1 on VLAN 5", &tagged(5, &marker(a, 1)))?;
    let elsewhere = tagged(6, &frame(a, b, "on VLAN 6"));
    wires[1].send(&elsewhere)?;
    wires[2].wait_for_bytes("the frame on VLAN 6, flooded", &elsewhere)?;
    // The same VLAN, whatever the priority.
    let known = tagged(0xe005, &frame(a, b, "on VLAN 5"));
    wires[1].send(&known)?;
    wires[0].wait_for_bytes("the frame on VLAN 5", &known)?;
    wires[1].send(&marker(b, 2))?;
    ensure!(!came_in(&wires[2].before(&marker(b, 2))?, &known), "flooded although learned");
    Ok(())
}

#[test]
fn control_frames_are_never_forwarded() -> Result<()> {
    let scenario = Scenario::quiet(2)?;
    let wires = wires(&scenario)?;
    let a = scenario.world.guest(1).mac;
    for last in [0, 2, 0x0f] {
        wires[0].send(&frame(Mac([1, 0x80, 0xc2, 0, 0, last]), a, "control"))?;
    }
    wires[0].send(&frame(Mac([1, 0x80, 0xc2, 0, 0, 0x10]), a, "no control"))?;
    wires[0].send(&marker(a, 1))?;
    let seen = wires[1].before(&marker(a, 1))?;
    ensure!(
        seen.iter().all(|packet| !packet.bytes.starts_with(&[1, 0x80, 0xc2, 0, 0, 0])
            && !packet.bytes.starts_with(&[1, 0x80, 0xc2, 0, 0, 2])
            && !packet.bytes.starts_with(&[1, 0x80, 0xc2, 0, 0, 0x0f])),
        "forwarded"
    );
    ensure!(came_in(&seen, &frame(Mac([1, 0x80, 0xc2, 0, 0, 0x10]), a, "no control")), "…:10 is an ordinary group");
    assert_eq!(scenario.vnet.drops("g1", "link-local-control")?, 3);
    Ok(())
}

#[test]
fn the_port_list_counts_frames_and_bytes() -> Result<()> {
    let scenario = Scenario::quiet(2)?;
    let wires = wires(&scenario)?;
    let [a, b] = [1, 2].map(|number| scenario.world.guest(number).mac);
    let fields = [("rx", "frames"), ("rx", "bytes"), ("tx", "frames"), ("tx", "bytes")];
    let counters = |device: &str| -> Result<Vec<u64>> {
        let port = scenario.vnet.port(device)?;
        fields.iter().map(|(way, unit)| json::number(&port[way], unit)).collect()
    };
    let before = [counters("g1")?, counters("g2")?];
    for number in 0..10 {
        wires[0].send(&marker(a, number))?;
    }
    wires[1].wait_for_bytes("the last frame", &marker(a, 9))?;
    wires[1].send(&frame(a, b, "one back"))?;
    wires[0].wait_for_bytes("the answer", &frame(a, b, "one back"))?;
    let (out, back) = (marker(a, 0).len() as u64, frame(a, b, "").len() as u64);
    let expected = [[10, 10 * out, 1, back], [1, back, 10, 10 * out]];
    for (device, before, expected) in [("g1", &before[0], expected[0]), ("g2", &before[1], expected[1])] {
        let moved: Vec<u64> = counters(device)?.iter().zip(before).map(|(now, then)| now - then).collect();
        assert_eq!(moved, expected, "{device}: {fields:?}");
    }
    Ok(())
}

#[test]
fn the_host_is_out_of_reach_of_an_isolated_network() -> Result<()> {
    let scenario = Scenario::isolated(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    let host_address = "192.0.2.9".parse()?;
    host.ip("addr add 192.0.2.9/32 dev lo\naddr add 10.77.0.1/24 dev g1\n")?;
    // Even a guest that addresses the port's own MAC gets no answer.
    let links: Value = serde_json::from_str(&host.run(&["ip", "-j", "link", "show", "dev", "g1"])?)?;
    let port_mac = json::string(&links[0], "address")?;
    guest.ip(&format!("neigh replace 10.77.0.1 lladdr {port_mac} dev eth0\n"))?;
    peers::does_not_reach(guest, host_address)?;
    peers::does_not_reach(guest, "10.77.0.1".parse()?)?;
    peers::does_not_reach(host, guest.address)
}

#[test]
fn a_port_removed_from_the_network_is_cut_off() -> Result<()> {
    let scenario = Scenario::with(Topology::new().guests(3), &format!("--mode host-only --subnet {SUBNET}"))?;
    let [a, b, c] = [1, 2, 3].map(|number| scenario.world.guest(number));
    peers::reaches(a, b.address)?;
    scenario.vnet.line(&format!("port del {NETWORK} g2"))?;
    peers::does_not_reach(a, b.address)?;
    peers::reaches(a, c.address)?;
    scenario.vnet.line(&format!("port add {NETWORK} g2"))?;
    wait::until_true("guest 2 is back", wait::SOON, || Ok(peers::pings(a, b.address, 1)? == 1))
}
