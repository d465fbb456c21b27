//! What commands print: the fields that tools rely on, and what people look for.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vnet_tests::{
    frame::Mac,
    json, peers,
    scenario::{NETWORK, Scenario},
    topology::{OUTSIDE, SUBNET, UPLINK},
    transfer::Talk,
};

/// A nat network that has seen some traffic.
fn busy() -> Result<Scenario> {
    let scenario = Scenario::nat(2)?;
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
    peers::reaches(scenario.world.guest(1), OUTSIDE)?;
    Talk::new(scenario.world.guest(1), scenario.world.outside(), OUTSIDE, 5000).greet()?;
    Ok(scenario)
}

fn has_fields(object: &Value, fields: &[&str]) -> Result<()> {
    let missing: Vec<_> = fields.iter().filter(|field| object.get(**field).is_none()).collect();
    ensure!(missing.is_empty(), "{missing:?} are missing in {object}");
    Ok(())
}

#[test]
fn every_list_has_the_fields_that_tools_rely_on() -> Result<()> {
    let scenario = busy()?;
    let vnet = &scenario.vnet;
    let lists: [(&str, &[&str]); 5] = [
        ("network list", &["name", "mode"]),
        ("port list", &["device", "network", "role", "accel", "rx", "tx", "drops"]),
        ("forward list", &["network", "protocol", "listen", "target"]),
        ("fdb list net1", &["mac", "vlan", "port", "kind"]),
        ("conntrack list", &["protocol", "state", "original", "reply", "age", "expiry"]),
    ];
    for (line, fields) in lists {
        let list = vnet.json(line)?;
        let rows = json::array(&list, line)?;
        ensure!(!rows.is_empty(), "{line} is empty");
        rows.iter().try_for_each(|row| has_fields(row, fields).context(line))?;
    }
    let port = vnet.port("g1")?;
    for way in ["rx", "tx"] {
        ensure!(json::number(&port[way], "frames")? > 0 && json::number(&port[way], "bytes")? > 0, "{port}");
    }
    ensure!(port["drops"].is_object(), "{port}");
    ensure!(json::number(&vnet.json("conntrack count")?, "count")? >= 2);
    assert_eq!(vnet.json("port show g1")?["device"], "g1");
    Ok(())
}

#[test]
fn a_network_shows_its_gateway() -> Result<()> {
    let scenario = Scenario::nat(0)?;
    let shown = scenario.vnet.json(&format!("network show {NETWORK}"))?;
    let gateway = &shown["gateway"];
    assert_eq!((&gateway["device"], &gateway["addresses"]), (&json!("vn-net1"), &json!(["10.77.0.1/24"])));
    let mac = json::string(gateway, "mac")?;
    ensure!(Mac::parse(mac).is_some_and(|mac| mac.0[0] & 3 == 2), "{mac} is no locally administered unicast address");
    let device = scenario.world.host.run(&["ip", "addr", "show", "dev", "vn-net1"])?;
    ensure!(device.contains(mac) && device.contains("10.77.0.1/24"), "{device}");
    assert_eq!((&shown["subnets"], &shown["uplinks"]), (&json!([SUBNET]), &json!([UPLINK])));
    Ok(())
}

#[test]
fn a_gateway_of_choice_and_two_subnets_are_answered_for() -> Result<()> {
    let topology = vnet_tests::topology::Topology::new().guests(1).uplink();
    let arguments =
        format!("--mode nat --subnet {SUBNET} --gateway 10.77.0.254 --subnet 10.78.0.0/24 --uplink {UPLINK}");
    let scenario = Scenario::with(topology, &arguments)?;
    let guest = scenario.world.guest(1);
    guest.ip("route replace default via 10.77.0.254\naddr add 10.78.0.11/24 dev eth0\n")?;
    peers::reaches(guest, "10.77.0.254".parse()?)?;
    peers::reaches(guest, "10.78.0.1".parse()?)?;
    peers::reaches(guest, OUTSIDE)?;
    peers::does_not_reach(guest, "10.77.0.1".parse()?)
}

#[test]
fn show_has_the_whole_host_on_one_screen() -> Result<()> {
    let scenario = busy()?;
    let shown = scenario.vnet.line("show")?;
    for word in [NETWORK, "nat", "10.77.0.1", "g1", "g2", UPLINK] {
        ensure!(shown.contains(word), "`{word}` is missing in:\n{shown}");
    }
    json::array(&scenario.vnet.json("show")?, "show")?;
    let lists =
        ["network list", "port list", "forward list", "fdb list net1", "conntrack list", "stats", "port show g1"];
    for line in lists {
        ensure!(!scenario.vnet.line(line)?.trim().is_empty(), "{line} prints nothing");
    }
    Ok(())
}

#[test]
fn stats_add_up_frames_events_and_tables() -> Result<()> {
    let scenario = busy()?;
    let stats = scenario.vnet.json("stats")?;
    ensure!(json::number(&stats["rx"], "frames")? > 0, "{stats}");
    ensure!(json::number(&stats["events"], "connections-created")? >= 2, "{stats}");
    assert_eq!((&stats["networks"], &stats["backend"]), (&json!(1), &json!("tcx")));
    Ok(())
}

#[test]
fn the_api_is_plain_http_over_the_socket() -> Result<()> {
    let scenario = busy()?;
    let socket = scenario.vnet.socket();
    let socket = socket.to_str().context("the path is not UTF-8")?;
    let get = |path: &str| -> Result<Value> {
        let url = format!("http://localhost{path}");
        let page = scenario.world.host.run(&["curl", "-sS", "--max-time", "10", "--unix-socket", socket, &url])?;
        serde_json::from_str(&page).with_context(|| format!("{path}: {page}"))
    };
    assert_eq!(get("/v1/networks")?, scenario.vnet.json("network list")?);
    assert_eq!(get("/v1/forwards")?, scenario.vnet.json("forward list")?);
    ensure!(get("/v1/networks/nosuch")?["error"].as_str().is_some_and(|line| line.contains("nosuch")));
    Ok(())
}
