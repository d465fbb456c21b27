//! Fragments through the translation, as real kernels make them and put them together.

use std::{cell::Cell, net::SocketAddrV4, time::Duration};

use anyhow::{Context, Result, ensure};
use vnet_common::fragment::MAX_FRAGMENTED;
use vnet_tests::{
    capture::Capture,
    frame::{Ipv4, Mac, be16, summary},
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    topology::{HOST, OUTSIDE},
    wait,
};

/// Longer than three fragments.
const LONG: usize = 5000;

#[test]
fn fragmented_datagrams_pass_both_ways() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    let payload: Vec<u8> = (0..LONG).map(|at| at as u8).collect();
    for guest in scenario.world.guests() {
        let socket = udp(guest, guest.address, 4000)?;
        let small = ask(&socket, (OUTSIDE, 3478), b"whole")?;
        for _ in 0..10 {
            let seen = ask(&socket, (OUTSIDE, 3478), &payload)?;
            ensure!(seen == small, "{seen} in fragments, {small} whole");
        }
    }
    Ok(())
}

#[test]
fn datagrams_that_have_come_whole_take_no_room() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    let guest = scenario.world.guest(1);
    let socket = udp(guest, guest.address, 4000)?;
    let payload = [7; 2000];
    for number in 0..MAX_FRAGMENTED + 100 {
        ask(&socket, (OUTSIDE, 3478), &payload).with_context(|| format!("datagram {number}"))?;
    }
    Ok(())
}

#[test]
fn a_flood_of_fragments_leaves_others_alone() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    let (flooder, other) = (scenario.world.guest(1), scenario.world.guest(2));
    let nic = Capture::open(flooder, "eth0")?;
    let gateway = gateway_mac(&scenario)?;
    let from = SocketAddrV4::new(flooder.address, 4000);
    let whole = Ipv4::udp(from, SocketAddrV4::new(OUTSIDE, 9), &[0; 100]);
    for number in 0..MAX_FRAGMENTED as u16 + 100 {
        // A first one that none follows, and one that none comes before.
        let [first, second] = [whole.piece(0, 40), whole.piece(40, 80)];
        nic.send(&Ipv4 { id: number, ..first }.frame(gateway, flooder.mac))?;
        nic.send(&Ipv4 { id: 0x8000 | number, ..second }.frame(gateway, flooder.mac))?;
    }
    wait::until_true("no room is left to the flood", wait::SOON, || {
        Ok(scenario.vnet.drops(&flooder.port, "fragment-table-full")? > u64::from(MAX_FRAGMENTED))
    })?;
    let socket = udp(other, other.address, 4000)?;
    for _ in 0..10 {
        ask(&socket, (OUTSIDE, 3478), &[7; LONG])?;
    }
    // What the flooder sends in one piece is not concerned either.
    ask(&udp(flooder, flooder.address, 4001)?, (OUTSIDE, 3478), b"whole")?;
    Ok(())
}

/// The link address of the network's gateway.
fn gateway_mac(scenario: &Scenario) -> Result<Mac> {
    let shown = scenario.vnet.json(&format!("network show {NETWORK}"))?;
    shown["gateway"]["mac"].as_str().and_then(Mac::parse).with_context(|| format!("{shown}"))
}

#[test]
fn fragmented_echo_requests_are_answered() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let words = ["ping", "-n", "-q", "-s", "4000", "-c", "10", "-i", "0.02", "-W", "2", "198.51.100.1"];
    let output = scenario.world.guest(1).output(&words, Duration::from_secs(30))?;
    ensure!(output.stdout.contains(" 10 received"), "{output}");
    Ok(())
}

#[test]
fn fragments_of_two_guests_with_one_identification_are_kept_apart() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let gateway = gateway_mac(&scenario)?;
    let wire = Capture::open(outside, "eth0")?;
    let to = SocketAddrV4::new(OUTSIDE, 9);
    let mut external = Vec::new();
    let mut sent = Vec::new();
    for guest in scenario.world.guests() {
        let nic = Capture::open(guest, "eth0")?;
        let from = SocketAddrV4::new(guest.address, 4000);
        // The way to the outside is known before fragments need it.
        nic.send(&Ipv4::udp(from, to, guest.port.as_bytes()).frame(gateway, guest.mac))?;
        let name = guest.port.clone();
        let first = wire.wait_for("the opening", |packet| packet.bytes.ends_with(name.as_bytes()))?;
        external.push(summary(&first.bytes).and_then(|frame| frame.ipv4).context("no packet")?.src_port);
        let text = guest.port.repeat(50);
        sent.push((nic, guest.mac, Ipv4::udp(from, to, text.as_bytes()).fragments(40), text));
    }
    // One fragment of each in turn, all with the identification of the builder.
    for number in 0..sent[0].2.len() {
        for (nic, mac, pieces, _) in &sent {
            nic.send(&pieces[number].frame(gateway, *mac))?;
        }
    }
    let (wanted, seen) = (2 * sent[0].2.len(), Cell::new(0));
    let packets = wire.until("all fragments", |packet| {
        let from_host = summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| ip.src == HOST);
        let fragment = from_host && be16(&packet.bytes, 20).is_some_and(|word| word & 0x3fff != 0);
        seen.set(seen.get() + usize::from(fragment && !packet.outgoing));
        seen.get() == wanted
    })?;
    for (port, (_, _, _, text)) in external.iter().zip(&sent) {
        let whole = Ipv4::udp(SocketAddrV4::new(HOST, *port), to, text.as_bytes()).ttl(63);
        for piece in whole.fragments(40) {
            let expected = piece.packet();
            let came = packets.iter().any(|packet| packet.bytes[14..].starts_with(&expected));
            ensure!(came, "fragment {:04x} of external port {port} did not come out", piece.fragment);
        }
    }
    Ok(())
}
