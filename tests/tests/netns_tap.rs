//! Guests on taps with a vnet header, as virtual machines have them.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use vnet_tests::{
    capture::Capture,
    checksum::{self, L4},
    frame::{Ipv4, Mac, summary},
    guest_nic::{Carried, GuestNic},
    namespace::Namespace,
    peers,
    scenario::{NETWORK, Scenario},
    tap::Tap,
    topology::{OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::{BULK, Talk},
    vnet_header::{GSO_TCPV4, NEEDS_CSUM, VnetHeader, complete},
};

/// A virtual machine's kernel on tap `NAME` of the host, with an address of its own.
fn machine(scenario: &Scenario, name: &str, address: &str, header_length: usize) -> Result<(Namespace, GuestNic)> {
    let inside = Namespace::new(name)?;
    let nic = GuestNic::plug(&scenario.world.host, name, &inside, header_length)?;
    scenario.vnet.line(&format!("port add {NETWORK} {name}"))?;
    inside.ip(&format!("addr add {address}/24 dev eth0\nroute add default via 10.77.0.1\n"))?;
    Ok((inside, nic))
}

/// Every frame was right, and offloads were really used, in the direction of the bulk.
fn is_sound(carried: &Carried, bulk: bool) -> Result<()> {
    ensure!(carried.faults.is_empty(), "{carried:#?}");
    ensure!(!bulk || carried.gso > 100 && carried.partial >= carried.gso, "no offloads used: {carried:?}");
    Ok(())
}

#[test]
fn a_machine_on_a_tap_and_a_guest_on_a_veth_exchange_bulk_both_ways() -> Result<()> {
    let scenario = Scenario::isolated(1)?;
    let guest = scenario.world.guest(1);
    for header_length in [12, 10] {
        let (vm, nic) = machine(&scenario, "tap0", "10.77.0.50", header_length)?;
        peers::reaches(&vm, guest.address)?;
        Talk::new(&vm, guest, guest.address, 5000).upload(BULK)?;
        Talk::new(&vm, guest, guest.address, 5000).download(BULK)?;
        let (to_guest, from_guest) = nic.unplug()?;
        is_sound(&to_guest, true)?;
        is_sound(&from_guest, true)?;
        scenario.vnet.line(&format!("port del {NETWORK} tap0"))?;
        scenario.world.host.ip("link del tap0")?;
    }
    Ok(())
}

#[test]
fn two_machines_on_taps_exchange_bulk_both_ways() -> Result<()> {
    let scenario = Scenario::isolated(0)?;
    let (a, nic_a) = machine(&scenario, "tap0", "10.77.0.50", 12)?;
    let (b, nic_b) = machine(&scenario, "tap1", "10.77.0.51", 12)?;
    peers::reaches(&a, "10.77.0.51".parse()?)?;
    Talk::new(&a, &b, "10.77.0.51".parse()?, 5000).upload(BULK)?;
    Talk::new(&a, &b, "10.77.0.51".parse()?, 5000).download(BULK)?;
    for nic in [nic_a, nic_b] {
        let (to_guest, from_guest) = nic.unplug()?;
        is_sound(&to_guest, true)?;
        is_sound(&from_guest, true)?;
    }
    Ok(())
}

#[test]
fn a_machine_on_a_tap_reaches_the_outside_through_nat_with_its_offloads() -> Result<()> {
    let topology = Topology::new().uplink();
    let scenario = Scenario::with(topology, &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    let (vm, nic) = machine(&scenario, "tap0", "10.77.0.50", 12)?;
    let outside = scenario.world.outside();
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.50:80"))?;
    peers::reaches(&vm, OUTSIDE)?;
    Talk::new(&vm, outside, OUTSIDE, 5000).upload(BULK)?;
    Talk::new(&vm, outside, OUTSIDE, 5000).download(BULK)?;
    let host = vnet_tests::topology::HOST;
    Talk::new(outside, &vm, host, 8080).listen(80).upload(BULK)?;
    Talk::new(&scenario.world.host, &vm, "10.77.0.50".parse()?, 5001).upload(BULK)?;
    let (to_guest, from_guest) = nic.unplug()?;
    is_sound(&to_guest, true)?;
    is_sound(&from_guest, true)
}

/// A TCP segment as a guest's driver hands it over: the checksum field holds the pseudo-header's sum.
fn partial_segment(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Ipv4 {
    let whole = Ipv4::tcp(from, to, 0x18, payload);
    let pseudo = checksum::sum(&[&checksum::pseudo_header(&whole.packet(), whole.payload.len())]);
    whole.spoil(16, &pseudo.to_be_bytes())
}

#[test]
fn hand_made_partial_and_gso_frames_come_through_whole_or_rightly_cut() -> Result<()> {
    let scenario = Scenario::with(Topology::new().guests(1).quiet(), "--mode isolated")?;
    let guest = scenario.world.guest(1);
    let host = &scenario.world.host;
    let (a, b) = (Tap::open(host, "tap0", 12)?, Tap::open(host, "tap1", 12)?);
    scenario.vnet.line(&format!("port add {NETWORK} tap0"))?;
    scenario.vnet.line(&format!("port add {NETWORK} tap1"))?;
    let wire = Capture::open(guest, "eth0")?;
    let mac_a = Mac([2, 0, 0, 0, 0xaa, 1]);
    let mac_b = Mac([2, 0, 0, 0, 0xaa, 2]);
    let from = SocketAddrV4::new("10.77.0.50".parse()?, 4000);
    let header = VnetHeader { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..VnetHeader::default() };
    // tap → tap, the second one not known yet and then known: flooded and unicast.
    let announce = vnet_tests::capture::marker(mac_b, 1);
    for known in [false, true] {
        let to = SocketAddrV4::new("10.77.0.51".parse()?, 5000);
        for (payload, gso) in [(vec![1; 100], 0), (vec![2; 1401], 0), ((0..9000).map(|at| at as u8).collect(), 1448)] {
            let frame = partial_segment(from, to, &payload).frame(mac_b, mac_a);
            let gso_type = if gso > 0 { GSO_TCPV4 } else { 0 };
            a.write(&VnetHeader { gso_type, gso_size: gso, hdr_len: if gso > 0 { 54 } else { 0 }, ..header }, &frame)?;
            receives(&b, &payload, from, to)?;
        }
        if !known {
            b.write(&VnetHeader::default(), &announce)?;
            a.wait_for("tap1's announcement", |frame| frame.bytes == announce)?;
        }
    }
    // tap → veth.
    let to = SocketAddrV4::new(guest.address, 5000);
    let small = partial_segment(from, to, b"for the veth guest");
    a.write(&header, &small.frame(guest.mac, mac_a))?;
    let seen = wire.wait_for("the segment", |packet| {
        summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| ip.dst_port == 5000 && !packet.outgoing)
    })?;
    let state = checksum::judge(&seen.bytes).map_err(anyhow::Error::msg)?;
    ensure!(state == if seen.partial { L4::Partial } else { L4::Full }, "{state:?}, partial: {}", seen.partial);
    // veth → tap.
    let back = Ipv4::tcp(to, from, 0x18, b"for the machine").frame(mac_a, guest.mac);
    wire.send(&back)?;
    let seen = a.wait_for("the answer", |frame| frame.bytes == back)?;
    seen.header.judge(&seen.bytes, 1518)
}

/// The payload arrives whole, in one GSO frame or in segments, each with a right checksum once completed.
fn receives(tap: &Tap, payload: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
    let mut received = Vec::new();
    while received.len() < payload.len() {
        let mut frame = tap.wait_for("the segment", |frame| {
            summary(&frame.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| {
                (ip.src, ip.src_port, ip.dst, ip.dst_port) == (*from.ip(), from.port(), *to.ip(), to.port())
            })
        })?;
        frame.header.judge(&frame.bytes, 1518)?;
        if frame.header.is_gso() {
            assert_eq!(frame.header.gso_type & 0x7f, GSO_TCPV4);
        }
        complete(&frame.header, &mut frame.bytes)?;
        assert_eq!(checksum::judge(&frame.bytes), Ok(L4::Full));
        received.extend_from_slice(&frame.bytes[54..]);
    }
    ensure!(received == payload, "{} bytes came, {} were sent, or they differ", received.len(), payload.len());
    Ok(())
}
