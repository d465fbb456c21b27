//! Connections and bindings, chosen, counted and ended.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vnet_tests::{
    daemon::Daemon,
    json, peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    topology::{HOST, OUTSIDE},
    transfer::Talk,
    wait,
};

fn count(vnet: &Daemon, filter: &str) -> Result<u64> {
    json::number(&vnet.json(&format!("conntrack count {filter}"))?, "count")
}

/// What every connection is known by.
fn list(vnet: &Daemon, arguments: &str) -> Result<Vec<String>> {
    let list = vnet.json(&format!("conntrack list {arguments}"))?;
    let rows = json::array(&list, "conntrack list")?.iter();
    Ok(rows.map(|row| format!("{} {}", row["protocol"], row["original"])).collect())
}

/// Two guests: each three UDP conversations (one of them unanswered), a TCP connection that is over and a
/// ping; and one TCP connection through a forward. Eleven in all.
fn busy() -> Result<(Scenario, Reflector)> {
    let scenario = Scenario::nat(2)?;
    let outside = scenario.world.outside();
    let reflector = Reflector::start(outside, OUTSIDE, 3478)?;
    // Silence, not "port unreachable".
    let _silent = udp(outside, OUTSIDE, 9)?;
    for (number, guest) in (1_u16..).zip(scenario.world.guests()) {
        for port in [50_000, 50_001] {
            ask(&udp(guest, guest.address, port)?, (OUTSIDE, 3478), b"x")?;
        }
        udp(guest, guest.address, 50_002)?.send_to(b"x", (OUTSIDE, 9))?;
        Talk::new(guest, outside, OUTSIDE, 5000 + number).from_port(40_000).greet()?;
        let id = (4710 + number).to_string();
        guest.run(&["ping", "-n", "-c", "1", "-e", &id, "-W", "2", &OUTSIDE.to_string()])?;
    }
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 10.77.0.11:80"))?;
    // The host must know its neighbour: only then does it know behind which port the guest is.
    peers::reaches(&scenario.world.host, scenario.world.guest(1).address)?;
    Talk::new(outside, scenario.world.guest(1), HOST, 8080).listen(80).from_port(45_000).greet()?;
    wait::until_true("all stand as they will", wait::SOON, || {
        Ok(count(&scenario.vnet, "")? == 11 && count(&scenario.vnet, "--state time-wait")? == 3)
    })?;
    Ok((scenario, reflector))
}

#[test]
fn each_filter_chooses_its_own() -> Result<()> {
    let (scenario, _reflector) = busy()?;
    let vnet = &scenario.vnet;
    let cases = [
        ("", 11),
        ("--network net1", 11),
        ("--proto udp", 6),
        ("--proto tcp", 3),
        ("--proto icmp", 2),
        ("--proto sctp", 0),
        ("--src 10.77.0.11", 5),
        ("--src 10.77.0.0/24", 10),
        ("--dst 198.51.100.1", 10),
        ("--dst 198.51.100.2/32", 1),
        ("--sport 50000", 2),
        ("--sport 50000-50001", 4),
        ("--sport 4711", 1),
        ("--dport 3478", 4),
        ("--dport 5000-8080", 3),
        ("--dport 4712 --proto icmp", 1),
        ("--outside 198.51.100.2", 11),
        ("--outside 198.51.100.3", 0),
        ("--state replied", 6),
        ("--state unreplied", 2),
        ("--state time-wait", 3),
        ("--state established", 0),
        ("--port g1", 6),
        ("--port g2", 5),
        ("--port up0", 0),
        ("--origin snat", 10),
        ("--origin forward", 1),
        ("--origin mapping", 0),
        ("--idle-over 3600", 0),
        ("--port g1 --proto udp --state unreplied", 1),
    ];
    for (filter, wanted) in cases {
        assert_eq!(count(vnet, filter)?, wanted, "count {filter}");
        assert_eq!(list(vnet, filter)?.len() as u64, wanted, "list {filter}");
    }
    wait::until_true("all have been idle for over a second", wait::SOON, || Ok(count(vnet, "--idle-over 1")? == 11))
}

#[test]
fn the_list_can_be_sorted_and_cut() -> Result<()> {
    let (scenario, _reflector) = busy()?;
    let vnet = &scenario.vnet;
    assert_eq!(list(vnet, "--limit 3")?.len(), 3);
    assert_eq!(list(vnet, "--limit 0")?.len(), 0);
    for (order, field, falls) in [("age", "age", true), ("idle", "idle", true), ("expiry", "expiry", false)] {
        let rows = vnet.json(&format!("conntrack list --sort {order}"))?;
        let values: Vec<u64> =
            json::array(&rows, "list")?.iter().map(|row| json::number(row, field)).collect::<Result<_>>()?;
        let sorted = values.is_sorted_by(|a, b| if falls { a >= b } else { a <= b });
        ensure!(sorted && values.len() == 11, "--sort {order}: {values:?}");
    }
    // Of all by expiry, ICMP's minute is over first.
    let first = vnet.json("conntrack list --sort expiry --limit 2")?;
    ensure!(json::array(&first, "list")?.iter().all(|row| row["protocol"] == "icmp"), "{first}");
    let text = vnet.line("conntrack list --port g2 --proto icmp")?;
    ensure!(text.contains(" g2 ") && text.contains("id 4712") && text.lines().count() == 2, "{text}");
    Ok(())
}

#[test]
fn a_flush_ends_what_its_filters_name_and_nothing_else() -> Result<()> {
    let (scenario, _reflector) = busy()?;
    let vnet = &scenario.vnet;
    for (filter, ended) in [
        ("--sport 50000 --port g1", 1),
        ("--state unreplied", 2),
        ("--origin forward", 1),
        ("--proto icmp --dport 4711", 1),
        ("--dport 5002", 1),
        ("--outside 198.51.100.3", 0),
        ("--src 10.77.0.12", 3),
    ] {
        let mut before = list(vnet, "")?;
        let doomed = list(vnet, filter)?;
        assert_eq!(doomed.len(), ended, "{filter}");
        let answer = vnet.json(&format!("conntrack flush {filter}"))?;
        assert_eq!(json::number(&answer, "count")?, ended as u64, "{filter}");
        before.retain(|one| !doomed.contains(one));
        let mut after = list(vnet, "")?;
        before.sort();
        after.sort();
        assert_eq!(after, before, "{filter}");
    }
    let refused = vnet.vnet(&["conntrack", "flush"])?;
    ensure!(refused.status == 1 && refused.stderr.contains("--all"), "{refused}");
    ensure!(refused.stderr.trim_end().lines().count() == 1, "{refused}");
    let refused = vnet.vnet(&["conntrack", "flush", "--all", "--proto", "udp"])?;
    ensure!(refused.status == 1 && refused.stderr.contains("--all"), "{refused}");
    assert_eq!(count(vnet, "")?, 2);
    vnet.line("conntrack flush --all")?;
    assert_eq!(count(vnet, "")?, 0);
    Ok(())
}

/// Groups by name.
fn groups(vnet: &Daemon, arguments: &str) -> Result<BTreeMap<String, u64>> {
    let groups = vnet.json(&format!("conntrack count {arguments}"))?;
    let rows = json::array(&groups, "groups")?.iter();
    rows.map(|row| Ok((json::string(row, "name")?.to_owned(), json::number(row, "count")?))).collect()
}

#[test]
fn connections_are_counted_by_what_they_have_in_common() -> Result<()> {
    let (scenario, _reflector) = busy()?;
    let vnet = &scenario.vnet;
    let wanted = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(groups(vnet, "--by state")?, wanted(&[("replied", 6), ("unreplied", 2), ("time-wait", 3)]));
    assert_eq!(groups(vnet, "--by proto")?, wanted(&[("udp", 6), ("tcp", 3), ("icmp", 2)]));
    assert_eq!(groups(vnet, "--by network")?, wanted(&[(NETWORK, 11)]));
    assert_eq!(groups(vnet, "--by guest")?, wanted(&[("g1", 6), ("g2", 5)]));
    assert_eq!(groups(vnet, "--by guest --proto icmp --sport 4711")?, wanted(&[("g1", 1)]));

    let all = vnet.json("conntrack count --by guest")?;
    let usage = &json::find(&all, "name", "g1")?["usage"];
    let wanted =
        json!({"network": NETWORK, "connections": 6, "connections_quota": 32_768, "ports": 5, "ports_quota": 8192});
    assert_eq!(*usage, wanted);
    // Connections gone, their ports cool down.
    vnet.line("conntrack flush --all")?;
    let all = vnet.json("conntrack count --by guest")?;
    let held = |name| -> Result<Value> { Ok(json::find(&all, "name", name)?["usage"]["ports"].clone()) };
    assert_eq!((held("g1")?, held("g2")?), (json!(5), json!(5)));
    let text = vnet.line("conntrack count --by guest")?;
    ensure!(text.starts_with("GUEST") && text.lines().count() == 3, "{text}");
    Ok(())
}

#[test]
fn bindings_say_who_keeps_which_outside_port() -> Result<()> {
    let (scenario, _reflector) = busy()?;
    let vnet = &scenario.vnet;
    let bindings = |filter: &str| -> Result<Vec<Value>> {
        Ok(json::array(&vnet.json(&format!("conntrack bindings {filter}"))?, "bindings")?.clone())
    };
    let cases = [
        ("", 10),
        ("--proto udp", 6),
        ("--proto tcp --src 10.77.0.12", 1),
        ("--src 10.77.0.0/24 --network net1", 10),
        ("--outside 198.51.100.2", 10),
        ("--outside 198.51.100.9", 0),
    ];
    for (filter, wanted) in cases {
        assert_eq!(bindings(filter)?.len(), wanted, "{filter}");
    }
    let kept = |port: u16| -> Result<Value> {
        let all = bindings("--src 10.77.0.11")?;
        let found = all.iter().find(|row| row["inside"]["port"] == port);
        Ok(found.cloned().unwrap_or_default())
    };
    let row = kept(50_000)?;
    assert_eq!(row["outside"], json!({"address": HOST.to_string(), "port": 50_000}), "{row}");
    assert_eq!((&row["connections"], &row["cooling"], &row["port"]), (&json!(1), &json!(false), &json!("g1")));
    vnet.line("conntrack flush --sport 50000")?;
    let row = kept(50_000)?;
    assert_eq!((&row["connections"], &row["cooling"]), (&json!(0), &json!(true)));
    ensure!((1..=120).contains(&json::number(&row, "free_in")?), "{row}");
    let ping = bindings("--proto icmp --src 10.77.0.12")?;
    assert_eq!(ping[0]["inside"], json!({"address": "10.77.0.12", "id": 4712}));
    let text = vnet.line("conntrack bindings")?;
    ensure!(text.contains("cooling down") && text.contains("in use"), "{text}");
    Ok(())
}

#[test]
fn bad_words_are_refused_in_one_line_that_says_what_is_taken() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let cases = [
        ("list --sport http", "8000-8010"),
        ("list --dport 90-80", "8000-8010"),
        ("count --outside 10.0.0.0/8", "192.0.2.1"),
        ("list --state banana", "half-closed"),
        ("list --port g9", "g9"),
        ("list --idle-over 5m", "--idle-over"),
        ("list --limit some", "--limit"),
        ("flush --src 10.0.0.0/33", "192.168.122.0/24"),
        ("bindings --src banana", "192.168.122.0/24"),
    ];
    for (line, hint) in cases {
        let words: Vec<&str> = ["conntrack"].into_iter().chain(line.split_whitespace()).collect();
        let output = scenario.vnet.vnet(&words)?;
        ensure!(output.status == 1 && output.stderr.contains(hint), "{line}: {output}");
        ensure!(output.stderr.trim_end().lines().count() == 1, "{line}: {output}");
    }
    for line in ["list --sort banana", "list --proto gre", "list --origin banana", "count --by banana"] {
        let words: Vec<&str> = ["conntrack"].into_iter().chain(line.split_whitespace()).collect();
        ensure!(scenario.vnet.vnet(&words)?.status == 2, "{line}");
    }
    Ok(())
}
