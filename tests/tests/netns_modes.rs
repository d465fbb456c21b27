//! routed and host-only networks, and several networks on one host.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    capture::{Capture, marker},
    daemon::Daemon,
    frame::{Ipv4, Mac, summary},
    peers,
    scenario::{NETWORK, Scenario},
    topology::{GATEWAY, HOST, INTERNET, OTHER_GATEWAY, OTHER_SUBNET, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::{BULK, Talk},
    wait,
};

fn routed(guests: usize) -> Result<Scenario> {
    let topology = Topology::new().guests(guests).uplink();
    let scenario = Scenario::with(topology, &format!("--mode routed --subnet {SUBNET} --uplink {UPLINK}"))?;
    scenario.world.outside().ip(&format!("route add {SUBNET} via {HOST}\n"))?;
    Ok(scenario)
}

#[test]
fn routed_guests_and_the_outside_reach_each_other_untranslated() -> Result<()> {
    let scenario = routed(2)?;
    let outside = scenario.world.outside();
    for guest in scenario.world.guests() {
        for target in [GATEWAY, HOST, OUTSIDE, INTERNET] {
            peers::reaches(guest, target)?;
        }
        peers::reaches(outside, guest.address)?;
        let seen = Talk::new(guest, outside, OUTSIDE, 5000).from_port(2000).upload(BULK)?;
        assert_eq!(seen, SocketAddrV4::new(guest.address, 2000));
        let seen = Talk::new(outside, guest, guest.address, 5000).from_port(2001).upload(BULK)?;
        assert_eq!(seen, SocketAddrV4::new(OUTSIDE, 2001));
    }
    Ok(())
}

#[test]
fn routed_packets_lose_one_hop_each_way() -> Result<()> {
    let scenario = routed(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let (inner, outer) = (Capture::open(guest, "eth0")?, Capture::open(outside, "eth0")?);
    peers::reaches(guest, OUTSIDE)?;
    let from = |source: Ipv4Addr| {
        move |packet: &vnet_tests::socket::Packet| {
            summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| ip.src == source && ip.protocol == 1)
        }
    };
    let ttl = |packet: vnet_tests::socket::Packet| {
        summary(&packet.bytes).and_then(|frame| frame.ipv4).map(|ip| ip.ttl).context("no IPv4")
    };
    assert_eq!(ttl(outer.wait_for("the request", from(guest.address))?)?, 63);
    assert_eq!(ttl(inner.wait_for("the reply", from(OUTSIDE))?)?, 63);
    Ok(())
}

#[test]
fn host_only_guests_reach_the_host_and_nothing_beyond() -> Result<()> {
    let topology = Topology::new().guests(2).uplink();
    let scenario = Scenario::with(topology, &format!("--mode host-only --subnet {SUBNET}"))?;
    let (host, outside) = (&scenario.world.host, scenario.world.outside());
    let (a, b) = (scenario.world.guest(1), scenario.world.guest(2));
    outside.ip(&format!("route add {SUBNET} via {HOST}\n"))?;
    peers::reaches(a, b.address)?;
    for target in [GATEWAY, HOST] {
        peers::reaches(a, target)?;
    }
    Talk::new(a, host, GATEWAY, 5000).upload(BULK)?;
    Talk::new(host, a, a.address, 5000).upload(BULK)?;
    for target in [OUTSIDE, INTERNET] {
        peers::does_not_reach(a, target)?;
    }
    peers::does_not_reach(outside, a.address)?;
    peers::cannot_connect(a, OUTSIDE, 5000)?;
    ensure!(scenario.vnet.drops("g1", "outside-refused")? > 0, "the drops are not counted as outside-refused");
    Ok(())
}

/// Two networks of the modes given: guests 1 and 2 on the first, 3 and 4 on the second.
fn two_networks(first: &str, second: &str) -> Result<Scenario> {
    let topology = Topology::new().guests(2).other_guests(2).uplink().quiet();
    let scenario = Scenario::bare(topology)?;
    for (name, mode, subnet, ports) in
        [(NETWORK, first, SUBNET, ["g1", "g2"]), ("net2", second, OTHER_SUBNET, ["g3", "g4"])]
    {
        let more = match mode {
            "nat" | "routed" => format!("--subnet {subnet} --uplink {UPLINK}"),
            "host-only" => format!("--subnet {subnet}"),
            _ => String::new(),
        };
        scenario.vnet.line(&format!("network add {name} --mode {mode} {more}"))?;
        for port in ports {
            scenario.vnet.line(&format!("port add {name} {port}"))?;
        }
    }
    Ok(scenario)
}

/// The gateway's MAC address, where the network has one.
fn gateway(vnet: &Daemon, network: &str) -> Result<Option<Mac>> {
    let shown = vnet.json(&format!("network show {network}"))?;
    Ok(shown["gateway"]["mac"].as_str().and_then(Mac::parse))
}

/// Nothing that guest 1 sends comes out at guest 3, however it is addressed.
fn are_apart(scenario: &Scenario) -> Result<()> {
    let world = &scenario.world;
    let (a, b, c, d) = (world.guest(1), world.guest(2), world.guest(3), world.guest(4));
    let (from, sibling) = (Capture::open(a, "eth0")?, Capture::open(b, "eth0")?);
    let (stranger, other) = (Capture::open(c, "eth0")?, Capture::open(d, "eth0")?);
    from.send(&marker(a.mac, 1))?;
    sibling.wait_for_bytes("the broadcast", &marker(a.mac, 1))?;

    let packet = Ipv4::icmp_echo(a.address, c.address, 8, 7, b"can you hear me?");
    let mut next_hops = vec![c.mac, Mac::BROADCAST, Mac([2, 0, 0, 0, 0xee, 9])];
    next_hops.extend(gateway(&scenario.vnet, NETWORK)?);
    next_hops.extend(gateway(&scenario.vnet, "net2")?);
    for dst in next_hops {
        from.send(&packet.frame(dst, a.mac))?;
    }
    from.send(&marker(a.mac, 2))?;
    sibling.wait_for_bytes("the second broadcast", &marker(a.mac, 2))?;
    peers::does_not_reach(a, c.address)?;
    peers::does_not_reach(c, a.address)?;
    other.send(&marker(d.mac, 3))?;
    for packet in stranger.before(&marker(d.mac, 3))? {
        let found = summary(&packet.bytes).context("no frame")?;
        ensure!(found.src != a.mac && found.ipv4.as_ref().is_none_or(|ip| ip.src != a.address), "{found:?}");
    }
    peers::reaches(a, b.address)?;
    peers::reaches(c, d.address)
}

#[test]
fn two_nat_networks_share_an_uplink_and_are_apart() -> Result<()> {
    let scenario = two_networks("nat", "nat")?;
    for (number, gateway) in [(1, GATEWAY), (2, GATEWAY), (3, OTHER_GATEWAY), (4, OTHER_GATEWAY)] {
        let guest = scenario.world.guest(number);
        peers::reaches(guest, gateway)?;
        peers::reaches(guest, INTERNET)?;
        let seen = Talk::new(guest, scenario.world.outside(), OUTSIDE, 5000).greet()?;
        assert_eq!(*seen.ip(), HOST);
    }
    are_apart(&scenario)
}

#[test]
fn a_nat_and_an_isolated_network_are_apart() -> Result<()> {
    are_apart(&two_networks("nat", "isolated")?)?;
    are_apart(&two_networks("isolated", "nat")?)
}

#[test]
fn a_routed_and_a_host_only_network_are_apart() -> Result<()> {
    are_apart(&two_networks("routed", "host-only")?)?;
    are_apart(&two_networks("host-only", "routed")?)
}

#[test]
fn two_isolated_networks_are_apart() -> Result<()> {
    are_apart(&two_networks("isolated", "isolated")?)
}

#[test]
fn a_guest_that_asked_for_the_gateway_before_its_port_was_added_finds_it_all_the_same() -> Result<()> {
    let scenario = Scenario::bare(Topology::new().guests(1).uplink())?;
    let (vnet, guest) = (&scenario.vnet, scenario.world.guest(1));
    vnet.line(&format!("network add {NETWORK} --mode nat --subnet {SUBNET} --uplink {UPLINK}"))?;
    // The host's kernel answers on any device for any of its addresses: with the port's own MAC address.
    peers::does_not_reach(guest, OUTSIDE)?;
    ensure!(guest.run(&["ip", "neigh"])?.contains("lladdr"), "the host did not answer: this test shows nothing");
    vnet.line(&format!("port add {NETWORK} g1"))?;
    wait::until_true("the guest finds the gateway", wait::SOON, || Ok(peers::pings(guest, OUTSIDE, 1)? == 1))
}
