//! The connection table as the user sees it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnet_tests::{
    capture::Capture,
    json, peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::{SILENCE, connect_from},
    topology::{HOST, OUTSIDE},
    transfer::{Talk, accept, listen},
    wait,
};

/// Connections whose original direction comes from a port.
fn from_port(scenario: &Scenario, port: u16) -> Result<Vec<Value>> {
    let list = scenario.vnet.json("conntrack list")?;
    let all = json::array(&list, "conntrack list")?.iter();
    Ok(all.filter(|connection| connection["original"]["src_port"] == port).cloned().collect())
}

fn state(scenario: &Scenario, port: u16) -> Result<String> {
    let found = from_port(scenario, port)?;
    ensure!(found.len() == 1, "{} connections from port {port}: {found:?}", found.len());
    Ok(json::string(&found[0], "state")?.to_owned())
}

fn await_state(scenario: &Scenario, port: u16, wanted: &str) -> Result<()> {
    wait::until(&format!("connection from {port} {wanted}"), wait::SOON, || {
        let now = state(scenario, port)?;
        Ok(if now == wanted { Ok(()) } else { Err(now) })
    })
}

fn count(scenario: &Scenario, filter: &str) -> Result<u64> {
    json::number(&scenario.vnet.json(&format!("conntrack count {filter}"))?, "count")
}

#[test]
fn a_tcp_connection_is_seen_from_its_first_packet_to_its_last() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let listener = listen(outside, 5000)?;
    let to = SocketAddrV4::new(OUTSIDE, 5000);
    let mut client = connect_from(guest, 50_000, to, SILENCE)?;
    let (mut server, _) = accept(&listener, wait::SOON)?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    await_state(&scenario, 50_000, "established")?;
    client.shutdown(std::net::Shutdown::Write)?;
    server.read_to_end(&mut Vec::new())?;
    await_state(&scenario, 50_000, "half-closed")?;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    await_state(&scenario, 50_000, "time-wait")?;

    // Nobody answers: a socket that does not exist at the far end's silent address.
    outside.run(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "5001", "-j", "DROP"])?;
    peers::cannot_connect(guest, OUTSIDE, 5001)?;
    let list = scenario.vnet.json("conntrack list")?;
    let silent = json::array(&list, "list")?.iter().find(|connection| connection["original"]["dst_port"] == 5001);
    assert_eq!(silent.context("not listed")?["state"], "syn-sent");
    // Refused: a RST.
    peers::cannot_connect(guest, OUTSIDE, 5002)?;
    let list = scenario.vnet.json("conntrack list")?;
    let refused = json::array(&list, "list")?.iter().find(|connection| connection["original"]["dst_port"] == 5002);
    assert_eq!(refused.context("not listed")?["state"], "reset");
    Ok(())
}

#[test]
fn udp_and_icmp_are_unreplied_until_the_first_answer() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    // Silence, not "port unreachable".
    let silent = udp(outside, OUTSIDE, 9)?;
    let socket = udp(guest, guest.address, 50_000)?;
    socket.send_to(b"anybody?", (OUTSIDE, 9))?;
    silent.recv_from(&mut [0; 16])?;
    await_state(&scenario, 50_000, "unreplied")?;
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    ask(&udp(guest, guest.address, 50_001)?, (OUTSIDE, 3478), b"anybody?")?;
    await_state(&scenario, 50_001, "replied")?;

    guest.run(&["ping", "-n", "-c", "1", "-e", "4711", "-W", "2", &OUTSIDE.to_string()])?;
    let list = scenario.vnet.json("conntrack list")?;
    let ping = json::find(&list, "protocol", "icmp")?;
    assert_eq!((json::string(ping, "state")?, &ping["original"]["id"]), ("replied", &json!(4711)));
    Ok(())
}

#[test]
fn the_list_shows_both_directions_age_and_expiry() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    ask(&udp(guest, guest.address, 50_000)?, (OUTSIDE, 3478), b"anybody?")?;
    let found = from_port(&scenario, 50_000)?;
    let connection = found.first().context("not listed")?;
    let tuple = |src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16| json!({"src": src.to_string(), "dst": dst.to_string(), "src_port": src_port, "dst_port": dst_port});
    assert_eq!(connection["original"], tuple(guest.address, 50_000, OUTSIDE, 3478));
    assert_eq!(connection["reply"], tuple(OUTSIDE, 3478, HOST, 50_000));
    assert_eq!((&connection["protocol"], &connection["network"]), (&json!("udp"), &json!(NETWORK)));
    let (age, expiry) = (json::number(connection, "age")?, json::number(connection, "expiry")?);
    ensure!(age < 30 && (270..=300).contains(&expiry), "age {age}, expiry {expiry}");
    Ok(())
}

#[test]
fn a_forwarded_connection_stands_as_the_client_made_it() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    Talk::new(outside, guest, HOST, 8080).listen(80).from_port(40_000).greet()?;
    let found = from_port(&scenario, 40_000)?;
    let connection = found.first().context("not listed")?;
    let original = json!({"src": "198.51.100.1", "dst": "198.51.100.2", "src_port": 40_000, "dst_port": 8080});
    let reply = json!({"src": "10.77.0.11", "dst": "198.51.100.1", "src_port": 80, "dst_port": 40_000});
    assert_eq!((&connection["original"], &connection["reply"]), (&original, &reply));
    await_state(&scenario, 40_000, "time-wait")
}

#[test]
fn count_and_flush_follow_their_filters() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    for guest in scenario.world.guests() {
        for port in [50_000, 50_001, 50_002] {
            ask(&udp(guest, guest.address, port)?, (OUTSIDE, 3478), b"x")?;
        }
        Talk::new(guest, outside, OUTSIDE, 5000).greet()?;
    }
    assert_eq!(count(&scenario, "")?, 8);
    assert_eq!(count(&scenario, "--proto udp")?, 6);
    assert_eq!(count(&scenario, "--src 10.77.0.11")?, 4);
    assert_eq!(count(&scenario, "--src 10.77.0.0/24 --proto tcp")?, 2);
    assert_eq!(count(&scenario, &format!("--network {NETWORK} --dst {OUTSIDE}"))?, 8);
    assert_eq!(count(&scenario, "--dst 203.0.113.1")?, 0);

    scenario.vnet.line("conntrack flush --src 10.77.0.11 --proto udp")?;
    assert_eq!((count(&scenario, "")?, count(&scenario, "--src 10.77.0.11")?), (5, 1));
    scenario.vnet.line("conntrack flush --all")?;
    assert_eq!(count(&scenario, "")?, 0);
    assert_eq!(scenario.vnet.json("conntrack list")?, json!([]));
    // And everything opens anew.
    let seen = ask(&udp(scenario.world.guest(2), scenario.world.guest(2).address, 50_000)?, (OUTSIDE, 3478), b"x")?;
    assert_eq!(*seen.ip(), HOST);
    Ok(())
}

#[test]
fn a_flushed_connection_is_over() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let listener = listen(outside, 5000)?;
    let mut client: TcpStream = connect_from(guest, 50_000, SocketAddrV4::new(OUTSIDE, 5000), SILENCE)?;
    let (_server, _) = accept(&listener, wait::SOON)?;
    client.write_all(b"before")?;
    await_state(&scenario, 50_000, "established")?;
    scenario.vnet.line("conntrack flush --all")?;
    let wire = Capture::open(outside, "eth0")?;
    client.write_all(b"after")?;
    wait::until_true("the segment is dropped", wait::SOON, || Ok(scenario.vnet.drops("g1", "no-connection")? > 0))?;
    wire.silent(std::time::Duration::from_millis(300), |frame| {
        frame.ipv4.as_ref().is_some_and(|ip| ip.protocol == 6 && ip.src == guest.address)
    })?;
    assert_eq!(count(&scenario, "")?, 0);
    Ok(())
}
