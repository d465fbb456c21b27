//! Connections followed live.

use std::{
    io::{Read, Write},
    net::SocketAddrV4,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use serde_json::json;
use vnet_common::{ABI_VERSION, config::Settings, names::map};
use vnet_tests::{
    follower::Follower,
    process::Process,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::{SILENCE, connect_from},
    topology::{HOST, OUTSIDE},
    transfer::{accept, listen},
    wait,
};
use zerocopy::FromBytes;

/// Whether the datapath writes events now.
fn is_reporting(scenario: &Scenario) -> Result<bool> {
    let path = scenario.world.directory.path().join("bpf").join(format!("v{ABI_VERSION}")).join(map::SETTINGS);
    scenario.world.host.enter_mounts(|| {
        let map = Map::from_map_data(MapData::from_pin(&path)?)?;
        let settings: Array<_, [u8; size_of::<Settings>()]> = Array::try_from(map)?;
        let settings = settings.get(&0, 0)?;
        Ok(Settings::read_from_bytes(&settings).ok().context("settings of another size")?.report_connections != 0)
    })
}

/// One question and answer over UDP.
fn udp_exchange(scenario: &Scenario, guest: usize, port: u16) -> Result<()> {
    let guest = scenario.world.guest(guest);
    ask(&udp(guest, guest.address, port)?, (OUTSIDE, 3478), b"x").map(drop)
}

#[test]
fn a_udp_connection_is_followed_from_its_first_packet_to_its_end() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    udp_exchange(&scenario, 1, 49_999)?;
    let follower = Follower::start(&scenario.vnet, "")?;
    udp_exchange(&scenario, 1, 50_000)?;
    follower.told(50_000, &["new unreplied", "update replied"])?;
    scenario.vnet.line("conntrack flush --sport 50000")?;
    follower.told(50_000, &["new unreplied", "update replied", "end flushed"])?;
    follower.told(49_999, &[])?;
    let events = follower.events()?;
    let end = events.last().context("no events")?;
    let original = json!({"src": "10.77.0.11", "dst": OUTSIDE.to_string(), "src_port": 50_000, "dst_port": 3478});
    let reply = json!({"src": OUTSIDE.to_string(), "dst": HOST.to_string(), "src_port": 3478, "dst_port": 50_000});
    assert_eq!((&end["original"], &end["reply"]), (&original, &reply));
    assert_eq!((&end["port"], &end["network"], &end["protocol"]), (&json!("g1"), &json!(NETWORK), &json!("udp")));
    Ok(())
}

#[test]
fn a_tcp_connection_is_followed_through_its_states() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let follower = Follower::start(&scenario.vnet, "--proto tcp")?;
    let listener = listen(outside, 5000)?;
    let mut client = connect_from(guest, 50_000, SocketAddrV4::new(OUTSIDE, 5000), SILENCE)?;
    let (mut server, _) = accept(&listener, wait::SOON)?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    let opened = ["new syn-sent", "update syn-received", "update established"];
    follower.told(50_000, &opened)?;
    client.shutdown(std::net::Shutdown::Write)?;
    server.read_to_end(&mut Vec::new())?;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    let closed = [&opened[..], &["update half-closed", "update time-wait"]].concat();
    follower.told(50_000, &closed)?;
    scenario.vnet.line("conntrack flush --state time-wait")?;
    follower.told(50_000, &[&closed[..], &["end flushed"]].concat())
}

#[test]
fn followers_see_what_their_filters_want_and_several_may_follow() -> Result<()> {
    let scenario = Scenario::nat(2)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    let all = Follower::start(&scenario.vnet, "")?;
    let second = Follower::start(&scenario.vnet, "--port g2 --state replied")?;
    for guest in [1, 2] {
        udp_exchange(&scenario, guest, 50_000 + guest as u16)?;
    }
    all.told(50_001, &["new unreplied", "update replied"])?;
    all.told(50_002, &["new unreplied", "update replied"])?;
    second.told(50_002, &["update replied"])?;
    second.told(50_001, &[])?;
    // One goes, the other stays.
    assert_eq!(all.interrupt()?, Some(0));
    udp_exchange(&scenario, 2, 50_003)?;
    second.told(50_003, &["update replied"])
}

#[test]
fn the_datapath_reports_only_while_somebody_follows() -> Result<()> {
    let mut scenario = Scenario::nat(1)?;
    ensure!(!is_reporting(&scenario)?, "nobody follows");
    let (first, second) = (Follower::start(&scenario.vnet, "")?, Follower::start(&scenario.vnet, "--proto tcp")?);
    ensure!(is_reporting(&scenario)?, "two follow");
    assert_eq!(first.interrupt()?, Some(0));
    ensure!(is_reporting(&scenario)?, "one follows");
    // Killed, without a word.
    drop(second);
    wait::until_true("nothing is reported", wait::SOON, || Ok(!is_reporting(&scenario)?))?;

    let mut orphan = Follower::start(&scenario.vnet, "")?;
    ensure!(orphan.is_running()? && is_reporting(&scenario)?, "one follows");
    scenario.vnet.kill9()?;
    let (code, printed) = orphan.ended(wait::SOON)?;
    ensure!(code == Some(1) && printed.contains("daemon has ended"), "{code:?}: {printed}");
    ensure!(is_reporting(&scenario)?, "a dead daemon turns nothing off");
    scenario.vnet.start_again()?;
    ensure!(!is_reporting(&scenario)?, "the next one does");

    let follower = Follower::start(&scenario.vnet, "")?;
    assert_eq!(scenario.vnet.terminate()?, Some(0));
    let (code, _) = follower.ended(wait::SOON)?;
    assert_eq!(code, Some(1));
    ensure!(!is_reporting(&scenario)?, "a daemon that ends in order turns it off itself");
    Ok(())
}

#[test]
fn events_are_lines_for_curl_and_words_for_people() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let _reflector = Reflector::start(scenario.world.outside(), OUTSIDE, 3478)?;
    let socket = scenario.vnet.socket();
    let socket = socket.to_str().context("socket path")?;
    let host = &scenario.world.host;
    let mut curl = host.command("curl");
    curl.args(["-sN", "--unix-socket", socket, "http://vnet/v1/connections/events?proto=udp"]);
    let curl = Process::spawn(curl)?;
    let people = Process::spawn(scenario.vnet.command(&["conntrack", "events"])?)?;
    wait::until_true("the datapath reports", wait::SOON, || is_reporting(&scenario))?;
    let mut port = 50_000;
    wait::until_true("both are told", wait::SOON, || {
        port += 1;
        udp_exchange(&scenario, 1, port)?;
        Ok(curl.stdout()?.contains("\"event\":\"update\"") && people.stdout()?.contains("update  udp   replied"))
    })?;
    // Bad words are refused before anything is followed.
    let refused = scenario.vnet.vnet(&["conntrack", "events", "--state", "banana"])?;
    ensure!(refused.status == 1 && refused.stderr.contains("half-closed"), "{refused}");
    Ok(())
}

#[test]
fn events_beyond_the_buffer_are_counted_as_lost() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let guest = scenario.world.guest(1);
    let follower = Follower::start(&scenario.vnet, "")?;
    // The daemon sleeps, so that nobody empties the buffer: some four thousand events fit into it.
    let daemon = nix::unistd::Pid::from_raw(i32::try_from(scenario.vnet.pid().context("no daemon")?)?);
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP)?;
    let socket = udp(guest, guest.address, 50_000)?;
    let sent = (1..=6000_u16).try_for_each(|port| {
        // An answer that says "nobody listens" stands in the way of one send, not of the next.
        socket
            .send_to(b"x", (OUTSIDE, 10_000 + port))
            .or_else(|_| socket.send_to(b"x", (OUTSIDE, 10_000 + port)))
            .map(drop)
    });
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGCONT)?;
    sent?;
    let lost = |events: &[serde_json::Value]| -> u64 {
        events.iter().filter(|event| event["event"] == "lost").filter_map(|event| event["count"].as_u64()).sum()
    };
    wait::until("every event is told or lost", Duration::from_secs(20), || {
        let events = follower.events()?;
        let (told, lost) = (events.iter().filter(|event| event["event"] == "new").count() as u64, lost(&events));
        Ok(if told + lost == 6000 && lost > 0 { Ok(()) } else { Err(format!("{told} told, {lost} lost")) })
    })?;
    ensure!(Path::new(&scenario.vnet.socket()).exists());
    Ok(())
}
