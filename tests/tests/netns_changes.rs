//! The world changes under running connections, and the switch follows.

use anyhow::{Result, ensure};
use vnet_tests::{
    attachments::tc_programs,
    frame::Mac,
    peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    stream::Stream,
    topology::{HOST, INTERNET, OUTSIDE, UPLINK, plug},
    transfer::Talk,
    wait,
};

#[test]
fn a_guest_that_moves_to_another_port_keeps_its_connections() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
    host.ip(&format!(
        "link add g9 type veth peer name eth1 address {} netns {}\nlink set g9 up\n",
        guest.mac,
        guest.path()
    ))?;
    scenario.vnet.line(&format!("port add {NETWORK} g9"))?;
    let own = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    let forwarded = Stream::start(outside, guest, (HOST, 8080), 80)?;
    own.advance(5)?;
    forwarded.advance(5)?;
    // As after a live migration: the same addresses at another port.
    guest.ip(&format!(
        "addr del {0}/24 dev eth0\nlink set eth0 down\nlink set eth1 up\naddr add {0}/24 dev eth1\n\
         route add default via 10.77.0.1\n",
        guest.address
    ))?;
    own.advance(20)?;
    forwarded.advance(20)?;
    peers::reaches(scenario.world.guest(2), guest.address)?;
    own.stop()?;
    forwarded.stop()?;
    Ok(())
}

#[test]
fn a_router_that_changes_its_mac_address_is_followed() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    stream.advance(5)?;
    outside.ip(&format!("link set eth0 address {}\n", Mac([2, 0, 0, 0, 0x99, 7])))?;
    // A failover announces itself; here the host asks.
    host.ip(&format!("neigh flush dev {UPLINK}"))?;
    peers::reaches(host, OUTSIDE)?;
    stream.advance(20)?;
    peers::reaches(guest, INTERNET)?;
    stream.stop()?;
    Ok(())
}

#[test]
fn an_uplink_that_flaps_keeps_its_connections() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    stream.advance(5)?;
    // The cable is pulled at the far end: address and route stay with the host.
    outside.ip("link set eth0 down")?;
    wait::until_true("the uplink has no carrier", wait::SOON, || {
        Ok(scenario.world.host.run(&["ip", "link", "show", UPLINK])?.contains("NO-CARRIER"))
    })?;
    peers::does_not_reach(guest, OUTSIDE)?;
    outside.ip("link set eth0 up")?;
    stream.advance(20)?;
    stream.stop()?;
    Ok(())
}

#[test]
fn a_guests_link_that_flaps_keeps_its_connections() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    stream.advance(5)?;
    scenario.world.host.ip("link set g1 down\nlink set g1 up\n")?;
    stream.advance(20)?;
    stream.stop()?;
    Ok(())
}

#[test]
fn a_port_in_use_moves_on_to_the_uplinks_new_address() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    let _reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    let socket = udp(guest, guest.address, 50_000)?;
    assert_eq!(*ask(&socket, (OUTSIDE, 3478), b"before")?.ip(), HOST);
    // In this order: a primary address takes its secondaries along when it goes.
    host.ip(&format!("addr del {HOST}/24 dev {UPLINK}\naddr add 198.51.100.7/24 dev {UPLINK}\n"))?;
    // The very socket that had the old address.
    wait::until("the socket shows the new address", wait::SOON, || {
        Ok(match ask(&socket, (OUTSIDE, 3478), b"after") {
            Ok(seen) if seen.ip().to_string() == "198.51.100.7" => Ok(()),
            Ok(seen) => Err(seen.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    })
}

/// Container runtimes make the pair first and move the guest's end afterwards; frames take another way out
/// before and after.
#[test]
fn a_veth_whose_other_end_moves_to_its_guest_later_is_followed() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    host.ip("link add g9 type veth peer name late\nlink set g9 up\nlink set late up\n")?;
    scenario.vnet.line(&format!("port add {NETWORK} g9"))?;
    host.ip(&format!("link set late netns {}", guest.path()))?;
    guest.ip(&format!(
        "addr del {0}/24 dev eth0\nlink set eth0 down\nlink set late up\naddr add {0}/24 dev late\n\
         route add default via 10.77.0.1\n",
        guest.address
    ))?;
    wait::until_true("the outside is reached through the late end", wait::SOON, || {
        Ok(peers::pings(guest, OUTSIDE, 1)? == 1)
    })?;
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    stream.advance(20)?;
    stream.stop()?;
    Ok(())
}

#[test]
fn an_uplink_device_made_anew_is_taken_again() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    peers::reaches(guest, OUTSIDE)?;
    host.ip(&format!("link del {UPLINK}"))?;
    plug(host, UPLINK, outside, Mac([2, 0, 0, 0, 0x99, 8]))?;
    outside.ip(&format!("addr add {OUTSIDE}/24 dev eth0"))?;
    host.ip(&format!("addr add {HOST}/24 dev {UPLINK}\nroute add default via {OUTSIDE}\n"))?;
    wait::until_true("the outside is back", wait::SOON, || Ok(peers::pings(guest, INTERNET, 1)? == 1))?;
    assert_eq!(*Talk::new(guest, outside, OUTSIDE, 5000).greet()?.ip(), HOST);
    Ok(())
}

#[test]
fn a_default_route_that_goes_takes_the_outside_along_and_brings_it_back() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    peers::reaches(guest, INTERNET)?;
    host.ip("route del default")?;
    wait::until_true("no route, no internet", wait::SOON, || Ok(peers::pings(guest, INTERNET, 1)? == 0))?;
    peers::reaches(guest, OUTSIDE)?;
    ensure!(scenario.vnet.drops("g1", "no-route")? > 0, "not counted as no-route");
    host.ip(&format!("route add default via {OUTSIDE}\n"))?;
    wait::until_true("the internet is back", wait::SOON, || Ok(peers::pings(guest, INTERNET, 1)? == 1))
}

#[test]
fn restarts_leave_one_program_on_each_hook() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::nat(1)?;
    let hooks = || -> Result<Vec<_>> {
        ["g1", UPLINK, "vn-net1"].iter().map(|device| tc_programs(&world.host, device)).collect()
    };
    let before = hooks()?;
    ensure!(before.iter().all(|(ingress, egress)| ingress.len() + egress.len() == 1), "{before:?}");
    for _ in 0..3 {
        vnet.kill9()?;
        vnet.start_again()?;
        assert_eq!(hooks()?, before);
    }
    assert_eq!(vnet.terminate()?, Some(0));
    assert_eq!(hooks()?, before, "without a daemon");
    vnet.start_again()?;
    vnet.line(&format!("port del {NETWORK} g1"))?;
    assert_eq!(tc_programs(&world.host, "g1")?, (vec![], vec![]));
    Ok(())
}
