//! Port forwards: what the outside reaches through them.

use anyhow::{Result, ensure};
use vnet_tests::{
    json, peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::SILENCE,
    stream::Stream,
    topology::{GATEWAY, HOST, INTERNET, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::{BULK, Talk},
    wait,
};

fn forward(scenario: &Scenario, words: &str) -> Result<()> {
    scenario.vnet.line(&format!("forward add {NETWORK} {words}")).map(|_| ())
}

#[test]
fn a_tcp_forward_leads_to_the_guest_and_keeps_the_clients_address() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    peers::cannot_connect(outside, HOST, 8080)?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    let seen = Talk::new(outside, guest, HOST, 8080).listen(80).from_port(40_123).greet()?;
    assert_eq!(seen, std::net::SocketAddrV4::new(OUTSIDE, 40_123));
    Talk::new(outside, guest, HOST, 8080).listen(80).upload(BULK)?;
    Talk::new(outside, guest, HOST, 8080).listen(80).download(BULK)?;
    // The guest's own connections are translated all the same.
    assert_eq!(*Talk::new(guest, outside, OUTSIDE, 5000).greet()?.ip(), HOST);
    Ok(())
}

#[test]
fn a_udp_forward_leads_to_the_guest_and_answers_come_from_where_they_were_asked() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    forward(&scenario, "udp 5353 10.77.0.11:53")?;
    let _reflector = Reflector::start(guest, guest.address, 53)?;
    for address in [OUTSIDE, INTERNET] {
        let socket = udp(outside, address, 40_123)?;
        let seen = ask(&socket, (HOST, 5353), b"question")?;
        assert_eq!(seen, std::net::SocketAddrV4::new(address, 40_123));
    }
    // TCP on the same port is not forwarded.
    peers::cannot_connect(outside, HOST, 5353)
}

#[test]
fn ranges_lead_port_by_port_also_when_shifted() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    forward(&scenario, "tcp 9000-9003 10.77.0.11")?;
    forward(&scenario, "tcp 9100-9103 10.77.0.11:7000-7003")?;
    forward(&scenario, "udp 9200-9202 10.77.0.11:7100-7102")?;
    for offset in 0..4 {
        Talk::new(outside, guest, HOST, 9000 + offset).greet()?;
        Talk::new(outside, guest, HOST, 9100 + offset).listen(7000 + offset).greet()?;
    }
    for offset in 0..3 {
        let _reflector = Reflector::start(guest, guest.address, 7100 + offset)?;
        ask(&udp(outside, OUTSIDE, 0)?, (HOST, 9200 + offset), b"shifted")?;
    }
    for beside in [8999, 9004, 9099, 9104] {
        peers::cannot_connect(outside, HOST, beside)?;
    }
    Ok(())
}

#[test]
fn a_forward_on_one_address_leaves_the_others_alone() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let (host, outside) = (&scenario.world.host, scenario.world.outside());
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    host.ip(&format!("addr add 198.51.100.3/24 dev {UPLINK}\naddr add 198.51.100.4/24 dev {UPLINK}\n"))?;
    forward(&scenario, "tcp 198.51.100.3:8080 10.77.0.11:80")?;
    forward(&scenario, "tcp 198.51.100.4:8080 10.77.0.12:81")?;
    Talk::new(outside, a, "198.51.100.3".parse()?, 8080).listen(80).greet()?;
    Talk::new(outside, b, "198.51.100.4".parse()?, 8080).listen(81).greet()?;
    // The host's own service on the same port of its other address.
    let seen = Talk::new(outside, host, HOST, 8080).greet()?;
    assert_eq!(*seen.ip(), OUTSIDE);
    Ok(())
}

#[test]
fn a_web_page_is_fetched_through_a_forward() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let pages = tempfile::tempdir()?;
    std::fs::write(pages.path().join("index.html"), "hello from the guest\n")?;
    let _server = peers::web_server(scenario.world.guest(1), 80, pages.path())?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    let page = peers::curl(scenario.world.outside(), &format!("http://{HOST}:8080/"))?;
    assert_eq!(page, "hello from the guest\n");
    Ok(())
}

#[test]
fn a_deleted_forward_ends_its_connections_and_no_others() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    forward(&scenario, "tcp 8081 10.77.0.11:81")?;
    forward(&scenario, "tcp 8082 10.77.0.12:82")?;
    forward(&scenario, "tcp 8083 10.77.0.11:83")?;
    let doomed = Stream::start(outside, a, (HOST, 8081), 81)?;
    let others = [
        Stream::start(outside, b, (HOST, 8082), 82)?,
        Stream::start(outside, a, (HOST, 8083), 83)?,
        Stream::start(a, outside, (OUTSIDE, 5000), 5000)?,
    ];
    doomed.advance(3)?;
    scenario.vnet.line(&format!("forward del {NETWORK} tcp 8081"))?;
    wait::until_true("the deleted forward's connection ends", SILENCE * 2, || Ok(doomed.is_broken()))?;
    peers::cannot_connect(outside, HOST, 8081)?;
    for other in others {
        other.advance(5)?;
        other.stop()?;
    }
    let list = scenario.vnet.json("conntrack list")?;
    ensure!(!list.to_string().contains("8081"), "{list}");
    Ok(())
}

#[test]
fn a_forward_wakes_a_guest_that_has_not_spoken_yet() -> Result<()> {
    let topology = Topology::new().guests(1).uplink().quiet();
    let scenario = Scenario::with(topology, &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let table = scenario.vnet.json(&format!("fdb list {NETWORK}"))?;
    ensure!(!table.to_string().contains(&guest.mac.to_string()), "the guest has spoken: {table}");
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "udp 5353 10.77.0.11:53")?;
    Talk::new(outside, guest, HOST, 8080).listen(80).greet()?;
    scenario.vnet.line(&format!("fdb flush {NETWORK}"))?;
    let _reflector = Reflector::start(guest, guest.address, 53)?;
    ask(&udp(outside, OUTSIDE, 0)?, (HOST, 5353), b"anybody?")?;
    Ok(())
}

#[test]
fn many_clients_come_through_one_forward() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    for port in 40_000..40_040 {
        let seen = Talk::new(outside, guest, HOST, 8080).listen(80).from_port(port).greet()?;
        assert_eq!(seen, std::net::SocketAddrV4::new(OUTSIDE, port));
    }
    Ok(())
}

#[test]
fn forwards_are_listed_and_gone_when_deleted() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "udp 9000-9010 10.77.0.11:7000-7010")?;
    let list = scenario.vnet.json(&format!("forward list {NETWORK}"))?;
    assert_eq!(json::array(&list, "forward list")?.len(), 2);
    let tcp = json::find(&list, "protocol", "tcp")?;
    let text = |field| json::string(tcp, field);
    assert_eq!((text("network")?, text("listen")?, text("target")?), (NETWORK, "8080", "10.77.0.11:80"));
    let udp = json::find(&list, "protocol", "udp")?;
    assert_eq!((&udp["listen"], &udp["target"]), (&"9000-9010".into(), &"10.77.0.11:7000-7010".into()));
    scenario.vnet.line(&format!("forward del {NETWORK} udp 9000-9010"))?;
    assert_eq!(json::array(&scenario.vnet.json("forward list")?, "forward list")?.len(), 1);
    Ok(())
}

#[test]
fn a_routed_network_forwards_too() -> Result<()> {
    let topology = Topology::new().guests(1).uplink();
    let scenario = Scenario::with(topology, &format!("--mode routed --subnet {SUBNET} --uplink {UPLINK}"))?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    let seen = Talk::new(outside, guest, HOST, 8080).listen(80).greet()?;
    assert_eq!(*seen.ip(), OUTSIDE);
    peers::reaches(guest, GATEWAY)
}
