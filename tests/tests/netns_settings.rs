//! The settings of a network's translation: read back, kept, and felt at once.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnet_tests::{
    daemon::Daemon,
    json, peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::connect_from,
    topology::{HOST, OUTSIDE},
    transfer::{accept, listen},
    wait,
};

const REFLECTOR: u16 = 3478;

/// Name and value on the command line, name and value in JSON.
fn settings() -> [(&'static str, &'static str, &'static str, Value); 14] {
    [
        ("mapping", "endpoint-dependent", "mapping", json!("endpoint-dependent")),
        ("filtering", "address-port", "filtering", json!("address-port")),
        ("snat-address", "198.51.100.50-198.51.100.59", "snat_address", json!("198.51.100.50-198.51.100.59")),
        ("snat-ports", "20000-29999", "snat_ports", json!("20000-29999")),
        ("inbound-refresh", "on", "inbound_refresh", json!(true)),
        ("udp-timeout", "2m1s", "udp_timeout", json!(121)),
        ("tcp-timeout", "3h", "tcp_timeout", json!(10_800)),
        ("tcp-transitory-timeout", "241", "tcp_transitory_timeout", json!(241)),
        ("icmp-timeout", "61s", "icmp_timeout", json!(61)),
        ("fragment-timeout", "15s", "fragment_timeout", json!(15)),
        ("port-cool-down", "1m", "port_cool_down", json!(60)),
        ("guest-connections", "1000", "guest_connections", json!(1000)),
        ("guest-ports", "off", "guest_ports", json!("off")),
        ("guest-rate", "100", "guest_rate", json!(100)),
    ]
}

fn set(vnet: &Daemon, pairs: &str) -> Result<()> {
    vnet.line(&format!("network set {NETWORK} {pairs}")).map(drop)
}

fn shown(vnet: &Daemon) -> Result<Value> {
    Ok(vnet.json(&format!("network show {NETWORK}"))?["nat"].clone())
}

fn state_file(vnet: &Daemon) -> Result<String> {
    Ok(std::fs::read_to_string(vnet.state_directory().join("state.toml"))?)
}

fn reserved(scenario: &Scenario) -> Result<String> {
    let text = scenario.world.host.run(&["sysctl", "-n", "net.ipv4.ip_local_reserved_ports"])?;
    Ok(text.trim().to_owned())
}

fn udp_connections(vnet: &Daemon) -> Result<u64> {
    json::number(&vnet.json("conntrack count --proto udp")?, "count")
}

#[test]
fn every_setting_is_read_back_and_outlives_the_daemon() -> Result<()> {
    let mut scenario = Scenario::nat(1)?;
    let vnet = &mut scenario.vnet;
    let standard = shown(vnet)?;
    assert_eq!(standard.as_object().map(serde_json::Map::len), Some(settings().len()), "{standard}");
    for (key, value, field, wanted) in settings() {
        set(vnet, &format!("{key} {value}"))?;
        assert_eq!(shown(vnet)?[field], wanted, "{key}");
        ensure!(state_file(vnet)?.contains(&format!("{field} = ")), "{key} is not kept:\n{}", state_file(vnet)?);
    }
    let text = vnet.line(&format!("network show {NETWORK}"))?;
    let row = text.lines().find(|line| line.starts_with("udp-timeout")).context("no row of udp-timeout")?;
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["udp-timeout", "2m1s", "5m"]);

    let all = shown(vnet)?;
    vnet.kill9()?;
    vnet.start_again()?;
    assert_eq!(shown(vnet)?, all);

    let back: String = settings().map(|(key, ..)| format!("{key} default ")).concat();
    set(vnet, &back)?;
    assert_eq!(shown(vnet)?, standard);
    ensure!(!state_file(vnet)?.contains("nat]"), "{}", state_file(vnet)?);
    peers::reaches(scenario.world.guest(1), OUTSIDE)
}

#[test]
fn the_api_changes_settings_in_json() -> Result<()> {
    let scenario = Scenario::nat(0)?;
    let vnet = &scenario.vnet;
    let socket = vnet.socket();
    let socket = socket.to_str().context("the path is not UTF-8")?;
    let patch = |body: &str| -> Result<Value> {
        let words = ["curl", "-sS", "--max-time", "10", "--unix-socket", socket, "-X", "PATCH"];
        let rest = ["-H", "content-type: application/json", "-d", body, "http://localhost/v1/networks/net1"];
        let page = scenario.world.host.run(&[&words[..], &rest[..]].concat())?;
        serde_json::from_str(&page).with_context(|| page)
    };
    set(vnet, "filtering address-port")?;
    assert_eq!(patch(r#"{"udp_timeout": "5m1s", "guest_rate": 100, "filtering": null}"#)?, json!({}));
    let now = shown(vnet)?;
    assert_eq!((&now["udp_timeout"], &now["guest_rate"]), (&json!(301), &json!(100)));
    assert_eq!(now["filtering"], "address");
    // What is shown can be given back; what is wrong in part changes nothing.
    assert_eq!(patch(&now.to_string())?, json!({}));
    let refused = patch(r#"{"icmp_timeout": 5, "udp_timeout": 0}"#)?;
    ensure!(refused["error"].as_str().is_some_and(|line| line.starts_with("udp-timeout: '0' is not")), "{refused}");
    assert_eq!(shown(vnet)?, now);
    Ok(())
}

#[test]
fn a_short_udp_timeout_ends_what_is_idle_and_nothing_else() -> Result<()> {
    let mut scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, REFLECTOR)?;
    let listener = listen(outside, 5000)?;
    let _client = connect_from(guest, 50_000, std::net::SocketAddrV4::new(OUTSIDE, 5000), wait::SOON)?;
    let (_server, _) = accept(&listener, wait::SOON)?;
    ask(&udp(guest, guest.address, 50_001)?, (OUTSIDE, REFLECTOR), b"x")?;
    assert_eq!(udp_connections(&scenario.vnet)?, 1);

    set(&scenario.vnet, "udp-timeout 2s")?;
    let gone = |vnet: &Daemon| wait::until_true("the connection ends", wait::SOON, || Ok(udp_connections(vnet)? == 0));
    gone(&scenario.vnet)?;
    assert_eq!(scenario.vnet.json("conntrack count --proto tcp")?["count"], 1);
    let warnings = scenario.vnet.json(&format!("network show {NETWORK}"))?["warnings"].to_string();
    ensure!(warnings.contains("udp-timeout 2s is below the 2m of RFC 4787 REQ-5"), "{warnings}");

    // The next daemon keeps to it.
    scenario.vnet.kill9()?;
    scenario.vnet.start_again()?;
    ask(&udp(guest, guest.address, 50_002)?, (OUTSIDE, REFLECTOR), b"x")?;
    gone(&scenario.vnet)
}

#[test]
fn other_ports_are_for_new_connections_and_the_host_leaves_them_alone() -> Result<()> {
    let mut scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, REFLECTOR)?;
    let standing = udp(guest, guest.address, 50_000)?;
    let port = |socket: &std::net::UdpSocket| -> Result<u16> {
        let seen = ask(socket, (OUTSIDE, REFLECTOR), b"x")?;
        ensure!(*seen.ip() == HOST, "{seen}");
        Ok(seen.port())
    };
    assert_eq!((port(&standing)?, reserved(&scenario)?.as_str()), (50_000, "49152-65535"));

    set(&scenario.vnet, "snat-ports 20000-20009")?;
    assert_eq!(port(&standing)?, 50_000, "a standing connection moved");
    let new = port(&udp(guest, guest.address, 50_001)?)?;
    ensure!((20_000..=20_009).contains(&new), "a new connection from port {new}");
    assert_eq!(reserved(&scenario)?, "20000-20009");

    scenario.vnet.kill9()?;
    scenario.vnet.start_again()?;
    assert_eq!((port(&standing)?, reserved(&scenario)?.as_str()), (50_000, "20000-20009"));
    set(&scenario.vnet, "snat-ports default")?;
    assert_eq!(reserved(&scenario)?, "49152-65535");
    // Addresses that the host does not carry need no ports of its own.
    set(&scenario.vnet, "snat-address 198.51.100.50")?;
    assert_eq!(reserved(&scenario)?, "");
    Ok(())
}

#[test]
fn each_guest_shows_one_address_of_a_pool_that_the_outside_finds() -> Result<()> {
    let scenario = Scenario::nat(3)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, REFLECTOR)?;
    set(&scenario.vnet, "snat-address 198.51.100.50-198.51.100.59")?;
    let mut shown = HashSet::new();
    for guest in scenario.world.guests() {
        let mut own = HashSet::new();
        for port in 50_000..50_010 {
            // The answer comes back: the outside has found the address, which no host carries.
            own.insert(*ask(&udp(guest, guest.address, port)?, (OUTSIDE, REFLECTOR), b"x")?.ip());
        }
        ensure!(own.len() == 1, "{} shows {own:?}", guest.port);
        shown.extend(own);
    }
    ensure!(shown.len() == 3 && shown.iter().all(|address| (50..60).contains(&address.octets()[3])), "{shown:?}");
    Ok(())
}

#[test]
fn a_network_begins_with_what_it_is_added_with() -> Result<()> {
    let scenario = Scenario::with(
        vnet_tests::topology::Topology::new().guests(1).uplink(),
        "--mode nat --subnet 10.77.0.0/24 --uplink up0 --snat-ports 20000-20009 --mapping endpoint-dependent \
         --filtering endpoint-independent",
    )?;
    let nat = shown(&scenario.vnet)?;
    assert_eq!((&nat["snat_ports"], &nat["mapping"]), (&json!("20000-20009"), &json!("endpoint-dependent")));
    assert_eq!((&nat["filtering"], &nat["snat_address"]), (&json!("endpoint-independent"), &json!("uplink")));
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, REFLECTOR)?;
    let seen = ask(&udp(guest, guest.address, 50_000)?, (OUTSIDE, REFLECTOR), b"x")?;
    ensure!((20_000..=20_009).contains(&seen.port()), "{seen}");
    scenario.vnet.line(&format!("network del {NETWORK}"))?;
    assert_eq!(reserved(&scenario)?, "");
    Ok(())
}
