//! The NAT as RFC 5780's tests see it: coturn's server outside, its discovery client in a guest.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use vnet_tests::{
    scenario::{NETWORK, Scenario},
    stun::{Discovery, StunServer, discover},
    topology::{HOST, INTERNET, OUTSIDE, SUBNET, Topology, UPLINK},
};

/// A second address of the first guest.
const ALIAS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 111);

/// A guest behind a nat network, and the server outside with its two addresses.
fn behind(options: &str) -> Result<(Scenario, StunServer)> {
    let topology = Topology::new().guests(2).uplink();
    let scenario = Scenario::with(topology, &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK} {options}"))?;
    let server = StunServer::start(scenario.world.outside(), OUTSIDE, INTERNET, scenario.world.directory.path())?;
    Ok((scenario, server))
}

fn discovery(scenario: &Scenario, what: &[&str]) -> Result<Discovery> {
    let guest = scenario.world.guest(1);
    let found = discover(guest, guest.address, OUTSIDE, what)?;
    ensure!(found.seen.iter().all(|seen| *seen.ip() == HOST), "{found:?}");
    Ok(found)
}

#[test]
fn the_mapping_is_endpoint_independent() -> Result<()> {
    let (scenario, _server) = behind("")?;
    let found = discovery(&scenario, &["-m"])?;
    found.says("NAT with Endpoint Independent Mapping!")?;
    ensure!(found.seen.len() >= 2 && found.seen.iter().all(|seen| *seen == found.seen[0]), "{found:?}");
    Ok(())
}

#[test]
fn an_endpoint_dependent_mapping_is_seen_as_such() -> Result<()> {
    let (scenario, _server) = behind("--mapping endpoint-dependent")?;
    discovery(&scenario, &["-m"])?.says("NAT with Address and Port Dependent Mapping!")
}

#[test]
fn the_filtering_is_as_the_network_says() -> Result<()> {
    for (options, kind) in [
        ("", "Address Dependent"),
        ("--filtering endpoint-independent", "Endpoint Independent"),
        ("--filtering address", "Address Dependent"),
        ("--filtering address-port", "Address and Port Dependent"),
    ] {
        let (scenario, _server) = behind(options)?;
        discovery(&scenario, &["-f"])?.says(&format!("NAT with {kind} Filtering!"))?;
    }
    Ok(())
}

#[test]
fn a_mapping_lives_on_while_nothing_is_sent() -> Result<()> {
    let (scenario, _server) = behind("")?;
    let found = discovery(&scenario, &["-t", "-T", "3"])?;
    // The second answer was sent to the first mapping, and came.
    ensure!(found.seen.len() == 2 && found.seen[0] != found.seen[1], "{found:?}");
    Ok(())
}

#[test]
fn a_mapping_ends_when_its_time_is_over() -> Result<()> {
    let (scenario, _server) = behind("")?;
    scenario.vnet.line(&format!("network set {NETWORK} udp-timeout 1s"))?;
    let found = discovery(&scenario, &["-t", "-T", "6"])?;
    ensure!(found.seen.len() == 1, "the second answer came, to a mapping that is over: {found:?}");
    found.says("STUN receive timeout")
}

#[test]
fn two_inside_addresses_with_one_port_get_two_mappings() -> Result<()> {
    let (scenario, _server) = behind("")?;
    scenario.world.guest(1).ip(&format!("addr add {ALIAS}/24 dev eth0\n"))?;
    let found = discovery(&scenario, &["-c", "-A", &ALIAS.to_string()])?;
    ensure!(found.seen.len() == 2 && found.seen[0] != found.seen[1], "{found:?}");
    Ok(())
}

#[test]
fn a_guest_reaches_itself_by_its_external_address() -> Result<()> {
    // The client asks from another port. By default only what its mapping has sent to is let in, and that is the
    // server.
    for (options, conclusion) in
        [("", "STUN receive timeout"), ("--filtering endpoint-independent", "maybe a successful hairpinning")]
    {
        let (scenario, _server) = behind(options)?;
        discovery(&scenario, &["-H"])?.says(conclusion)?;
    }
    Ok(())
}
