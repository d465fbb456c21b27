//! Hairpinning: guests reach each other, and themselves, by the external address (RFC 4787 REQ-9).

use std::{
    io::ErrorKind,
    net::{SocketAddrV4, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::SILENCE,
    topology::{Guest, HOST, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::Talk,
};

const STUN: (std::net::Ipv4Addr, u16) = (OUTSIDE, 3478);

/// Two guests whose mappings let anybody in, and a reflector outside.
fn open_to_all() -> Result<(Scenario, Reflector)> {
    let options = format!("--mode nat --subnet {SUBNET} --uplink {UPLINK} --filtering endpoint-independent");
    let scenario = Scenario::with(Topology::new().guests(2).uplink(), &options)?;
    let reflector = Reflector::start(scenario.world.outside(), STUN.0, STUN.1)?;
    Ok((scenario, reflector))
}

/// A socket of a guest, and its external address.
fn mapped(guest: &Guest, port: u16) -> Result<(UdpSocket, SocketAddrV4)> {
    let socket = udp(guest, guest.address, port)?;
    let seen = ask(&socket, STUN, b"who am I?")?;
    socket.set_read_timeout(Some(SILENCE))?;
    Ok((socket, seen))
}

/// What one socket sends to the other's external address comes from its own external address.
fn reaches(from: &(UdpSocket, SocketAddrV4), to: &(UdpSocket, SocketAddrV4)) -> Result<()> {
    from.0.send_to(b"hairpin", to.1)?;
    let mut buffer = [0; 64];
    let (length, sender) = to.0.recv_from(&mut buffer).with_context(|| format!("{} to {}", from.1, to.1))?;
    ensure!(&buffer[..length] == b"hairpin" && sender == from.1.into(), "{sender} instead of {}", from.1);
    Ok(())
}

#[test]
fn a_guest_reaches_a_sibling_by_its_external_address() -> Result<()> {
    let (scenario, _reflector) = open_to_all()?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    // One inside port at both: the external ports differ.
    let (a, b) = (mapped(a, 50_000)?, mapped(b, 50_000)?);
    ensure!(a.1.ip() == &HOST && b.1.ip() == &HOST && a.1 != b.1, "{} and {}", a.1, b.1);
    for _ in 0..3 {
        reaches(&a, &b)?;
        reaches(&b, &a)?;
    }
    Ok(())
}

#[test]
fn guests_that_call_each_other_meet_under_the_default_filter() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let _reflector = Reflector::start(scenario.world.outside(), STUN.0, STUN.1)?;
    let (a, b) = (mapped(scenario.world.guest(1), 50_000)?, mapped(scenario.world.guest(2), 50_000)?);
    // The first call is refused: b has not sent to that address yet. It opens the way for b's.
    a.0.send_to(b"hairpin", b.1)?;
    let refused = b.0.recv_from(&mut [0; 64]).err().context("b has not called anybody")?;
    ensure!(refused.kind() == ErrorKind::WouldBlock, "{refused}");
    for _ in 0..3 {
        reaches(&b, &a)?;
        reaches(&a, &b)?;
    }
    Ok(())
}

#[test]
fn a_guest_reaches_another_socket_of_its_own_by_the_external_address() -> Result<()> {
    let (scenario, _reflector) = open_to_all()?;
    let guest = scenario.world.guest(1);
    let (a, b) = (mapped(guest, 50_000)?, mapped(guest, 50_001)?);
    reaches(&a, &b)?;
    reaches(&b, &a)
}

#[test]
fn a_forward_is_reached_from_a_sibling_and_from_its_own_guest() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 5000 {}:5000", b.address))?;
    for client in [a, b] {
        // The server sees the external address: else it would answer past the translation.
        let seen = Talk::new(client, b, HOST, 5000).greet()?;
        ensure!(*seen.ip() == HOST, "{} is seen as {seen}", client.port);
    }
    Ok(())
}

#[test]
fn errors_about_hairpinned_packets_reach_the_guest() -> Result<()> {
    let (scenario, _reflector) = open_to_all()?;
    let (closed, external) = mapped(scenario.world.guest(2), 50_000)?;
    drop(closed);
    let (socket, _) = mapped(scenario.world.guest(1), 50_000)?;
    socket.connect(external)?;
    socket.send(b"anybody there?")?;
    // Port unreachable, from the external address.
    let refused = socket.recv(&mut [0; 64]).err().context("somebody answered")?;
    ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
    Ok(())
}
