//! nat networks: what guests reach, and what the outside sees of them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4},
    thread,
};

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    capture::Capture,
    frame::{ICMP, Ipv4, Mac, TCP, UDP, summary},
    peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::{SILENCE, connect_from},
    stream::Stream,
    topology::{GATEWAY, HOST, INTERNET, OUTSIDE, UPLINK},
    transfer::{BULK, Talk, accept, listen},
    wait,
};

/// External ports of a nat network unless told otherwise.
const SNAT: std::ops::RangeInclusive<u16> = 49_152..=65_535;

#[test]
fn a_guest_reaches_the_gateway_the_host_and_the_outside() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    for guest in scenario.world.guests() {
        for target in [GATEWAY, HOST, OUTSIDE, INTERNET] {
            peers::reaches(guest, target)?;
        }
    }
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    peers::reaches(a, b.address)?;
    Talk::new(a, b, b.address, 5000).greet()?;
    Ok(())
}

#[test]
fn a_guest_and_the_host_talk_tcp_both_ways() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    for address in [GATEWAY, HOST] {
        let seen = Talk::new(guest, host, address, 5000).upload(BULK)?;
        assert_eq!(*seen.ip(), guest.address, "the host sees the guest itself");
        Talk::new(guest, host, address, 5000).download(BULK)?;
    }
    let seen = Talk::new(host, guest, guest.address, 5000).upload(BULK)?;
    assert_eq!(*seen.ip(), GATEWAY);
    Ok(())
}

#[test]
fn transfers_through_the_translation_arrive_byte_for_byte() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let seen = Talk::new(guest, outside, OUTSIDE, 5000).upload(BULK)?;
    assert_eq!(*seen.ip(), HOST);
    let seen = Talk::new(guest, outside, INTERNET, 5000).download(BULK)?;
    assert_eq!(*seen.ip(), HOST);
    ensure!(SNAT.contains(&seen.port()), "external port {}", seen.port());
    Ok(())
}

#[test]
fn gso_frames_with_partial_checksums_pass_the_translation_whole() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let talk = Talk::new(guest, outside, OUTSIDE, 5000);
    for (receiver, upload) in [(&outside.inside, true), (&guest.inside, false)] {
        let wire = Capture::open(receiver, "eth0")?;
        if upload {
            talk.upload(BULK / 8)?
        } else {
            talk.download(BULK / 8)?
        };
        let seen = wire.drain()?;
        let whole = seen.iter().filter(|packet| packet.bytes.len() > 1514 && packet.partial).count();
        ensure!(whole > 20, "{whole} GSO frames with a partial checksum among {} at {}", seen.len(), receiver.label());
    }
    Ok(())
}

#[test]
fn the_outside_sees_only_the_uplinks_address_and_one_hop() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let wire = Capture::open(outside, "eth0")?;
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    for guest in scenario.world.guests() {
        peers::reaches(guest, OUTSIDE)?;
        Talk::new(guest, outside, OUTSIDE, 5000).greet()?;
        ask(&udp(guest, guest.address, 0)?, (OUTSIDE, 3478), b"who am I?")?;
    }
    peers::reaches(&scenario.world.host, OUTSIDE)?;
    // The host's own ping is the end of the list.
    let mut protocols = Vec::new();
    let seen = wire.until("the host's own packet", |packet| {
        summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| !packet.outgoing && ip.ttl == 64)
    })?;
    for packet in seen.iter().filter(|packet| !packet.outgoing) {
        let Some(ip) = summary(&packet.bytes).and_then(|frame| frame.ipv4) else { continue };
        ensure!((ip.src, ip.dst) == (HOST, OUTSIDE), "{ip:?}");
        ensure!(ip.ttl == 63 || ip.ttl == 64, "{ip:?}");
        protocols.push(ip.protocol);
    }
    for protocol in [ICMP, TCP, UDP] {
        ensure!(protocols.contains(&protocol), "no packet of protocol {protocol} seen");
    }
    Ok(())
}

#[test]
fn two_guests_share_source_ports_without_mixing_up() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let listener = listen(outside, 5000)?;
    let mut clients = Vec::new();
    let mut seen = Vec::new();
    for port in (2000..2010).chain(50_000..50_030) {
        for guest in scenario.world.guests() {
            let mut client = connect_from(guest, port, SocketAddrV4::new(OUTSIDE, 5000), SILENCE)?;
            let (server, peer) = accept(&listener, wait::SOON)?;
            ensure!(peer.ip() == HOST && SNAT.contains(&peer.port()), "{peer}");
            seen.push(peer);
            write!(client, "{:<32}", format!("{} port {port}", guest.port))?;
            clients.push((client, server, format!("{:<32}", format!("{} port {port}", guest.port))));
        }
    }
    let connections = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), connections, "two connections share an external port");
    for (client, server, expected) in &mut clients {
        let mut text = vec![0; 32];
        server.read_exact(&mut text)?;
        server.write_all(&text)?;
        client.read_exact(&mut text)?;
        assert_eq!(String::from_utf8_lossy(&text), *expected);
    }
    Ok(())
}

#[test]
fn two_guests_ping_with_one_identifier_at_the_same_time() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let words = ["ping", "-n", "-q", "-e", "4711", "-c", "20", "-i", "0.02", "-W", "2", "198.51.100.1"];
    thread::scope(|scope| {
        let runs = [1, 2].map(|number| {
            let guest = scenario.world.guest(number);
            scope.spawn(move || guest.output(&words, wait::SOON))
        });
        for run in runs {
            let output = run.join().expect("the thread")?;
            ensure!(output.stdout.contains(" 20 received"), "{output}");
        }
        Ok(())
    })
}

#[test]
fn a_guests_own_port_is_kept_when_it_is_free() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    for port in [49_152, 50_001, 65_535] {
        let seen = Talk::new(a, outside, OUTSIDE, 5000).from_port(port).greet()?;
        assert_eq!(seen, SocketAddrV4::new(HOST, port), "TCP");
        let seen = ask(&udp(a, a.address, port)?, (OUTSIDE, 3478), b"mine")?;
        assert_eq!(seen, SocketAddrV4::new(HOST, port), "UDP");
    }
    // Taken by guest 1: guest 2 gets another one.
    let seen = ask(&udp(b, b.address, 50_001)?, (OUTSIDE, 3478), b"mine, too")?;
    ensure!(seen.port() != 50_001 && SNAT.contains(&seen.port()), "{seen}");
    // Below the range the host's own ports lie.
    let seen = ask(&udp(a, a.address, 5353)?, (OUTSIDE, 3478), b"low")?;
    ensure!(SNAT.contains(&seen.port()), "{seen}");
    Ok(())
}

#[test]
fn one_inside_port_keeps_one_outside_port_for_every_destination() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let _reflectors = [(OUTSIDE, 3478), (OUTSIDE, 3479), (INTERNET, 3478)]
        .map(|(address, port)| Reflector::start(outside, address, port));
    for port in [40_000, 50_000] {
        let mut external = Vec::new();
        for guest in scenario.world.guests() {
            let socket = udp(guest, guest.address, port)?;
            let first = ask(&socket, (OUTSIDE, 3478), b"first")?;
            for other in [(OUTSIDE, 3479), (INTERNET, 3478), (OUTSIDE, 3478)] {
                assert_eq!(ask(&socket, other, b"other")?, first, "{} port {port} towards {other:?}", guest.port);
            }
            external.push(first.port());
        }
        ensure!(external[0] != external[1], "two guests on one external port {external:?}");
    }
    Ok(())
}

#[test]
fn a_udp_datagram_without_checksum_stays_without() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let guest = scenario.world.guest(1);
    // The kernel's own traffic shows who the next hops are.
    peers::reaches(guest, OUTSIDE)?;
    let shown = scenario.vnet.json(&format!("network show {NETWORK}"))?;
    let gateway = shown["gateway"]["mac"].as_str().and_then(Mac::parse).with_context(|| format!("{shown}"))?;
    let wire = Capture::open(scenario.world.outside(), "eth0")?;
    let inside = Capture::open(guest, "eth0")?;
    let (from, to) = (SocketAddrV4::new(guest.address, 51_000), SocketAddrV4::new(OUTSIDE, 9));
    let expected = |source: SocketAddrV4| Ipv4::udp(source, to, b"no checksum").spoil(6, &[0, 0]);
    inside.send(&expected(from).frame(gateway, guest.mac))?;
    let translated = expected(SocketAddrV4::new(HOST, 51_000)).ttl(63).packet();
    wire.wait_for("the datagram", |packet| packet.bytes[14..].starts_with(&translated))?;
    // With one: right after translation.
    inside.send(&Ipv4::udp(from, to, b"with checksum").frame(gateway, guest.mac))?;
    let translated = Ipv4::udp(SocketAddrV4::new(HOST, 51_000), to, b"with checksum").ttl(63).packet();
    wire.wait_for("the datagram with checksum", |packet| packet.bytes[14..].starts_with(&translated))?;
    Ok(())
}

#[test]
fn nothing_unsolicited_gets_in() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    outside.ip(&format!("route add 10.77.0.0/24 via {HOST}\n"))?;
    let _service = listen(guest, 5000)?;
    peers::does_not_reach(outside, guest.address)?;
    peers::cannot_connect(outside, guest.address, 5000)?;
    peers::cannot_connect(outside, HOST, 5000)?;

    // A mapping lets in its own correspondent only.
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let socket = udp(guest, guest.address, 50_000)?;
    let mapped = ask(&socket, (OUTSIDE, 3478), b"open")?;
    udp(outside, INTERNET, 3478)?.send_to(b"unsolicited", mapped)?;
    udp(outside, OUTSIDE, 4444)?.send_to(b"unsolicited", (HOST, 50_001))?;
    // The next datagram to come in is the answer: `ask` would take any other for it.
    ask(&socket, (OUTSIDE, 3478), b"still mine")?;
    Ok(())
}

#[test]
fn the_hosts_own_connections_are_left_alone() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    let guests_own = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    guests_own.advance(5)?;
    let seen = Talk::new(host, outside, OUTSIDE, 5000).upload(BULK)?;
    ensure!(*seen.ip() == HOST && !SNAT.contains(&seen.port()), "the host's own port {seen} is in the SNAT range");
    Talk::new(outside, host, HOST, 5000).upload(BULK)?;
    peers::reaches(host, INTERNET)?;
    peers::reaches(outside, HOST)?;
    guests_own.advance(5)?;
    guests_own.stop()?;
    Ok(())
}

#[test]
fn no_rule_and_no_forwarding_is_set_on_the_host() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let host = &scenario.world.host;
    peers::reaches(scenario.world.guest(1), OUTSIDE)?;
    assert_eq!(host.run(&["nft", "list", "ruleset"])?, "");
    for sysctl in ["net.ipv4.ip_forward", &format!("net.ipv4.conf.{UPLINK}.forwarding"), "net.ipv4.conf.all.forwarding"]
    {
        assert_eq!(host.run(&["sysctl", "-n", sysctl])?.trim(), "0", "{sysctl}");
    }
    Ok(())
}

#[test]
fn a_firewall_that_drops_forwarded_traffic_does_not_reach_guests() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    scenario.world.host.run(&["iptables", "-P", "FORWARD", "DROP"])?;
    peers::reaches(guest, OUTSIDE)?;
    let _: Ipv4Addr = *Talk::new(guest, outside, OUTSIDE, 5000).greet()?.ip();
    Ok(())
}
