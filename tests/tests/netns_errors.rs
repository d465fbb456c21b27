//! Bad input: one clear line, the right exit code, and nothing changed.

use std::net::{TcpListener, UdpSocket};

use anyhow::{Result, ensure};
use serde_json::Value;
use vnet_tests::{
    daemon::Daemon,
    process::{Output, Process},
    scenario::{NETWORK, Scenario},
    seccomp,
    snapshot::Snapshot,
    topology::{SUBNET, Topology, UPLINK},
    wait,
};

/// Refused or failed.
const REFUSED: i32 = 1;
/// The command line itself is wrong.
const USAGE: i32 = 2;

/// What the table's commands meet: `net1` (nat, 10.77.0.0/24, g1, up0, a forward of tcp 8080), `net2`
/// (isolated), g2 and g3 free, g3 in a linux-bridge, host sockets on tcp 7777 and udp 7778.
#[rustfmt::skip]
const CASES: &[(&str, i32, &[&str])] = &[
    // Unknown, taken or unfit devices.
    ("port add net1 nosuch", REFUSED, &["nosuch", "no device"]),
    ("network add net3 --mode nat --subnet 10.9.0.0/24 --uplink nosuch", REFUSED, &["nosuch", "no device"]),
    ("port add net1 g1", REFUSED, &["g1", "already", "net1"]),
    ("port add net2 g1", REFUSED, &["g1", "already", "net1"]),
    ("port add net2 up0", REFUSED, &["up0", "net1"]),
    ("port add net1 g3", REFUSED, &["g3", "br0"]),
    ("port add net1 br0", REFUSED, &["br0", "bridge"]),
    ("network add net3 --mode bridge --uplink g3", REFUSED, &["g3", "br0"]),
    ("port add net1 lo", REFUSED, &["lo"]),
    ("port add net2 vn-net1", REFUSED, &["vn-net1"]),
    ("port add net2 g2 --uplink", REFUSED, &["isolated", "uplink"]),
    ("port add net1 g2 --ip 10.88.0.5", REFUSED, &["10.88.0.5", "outside"]),
    ("port add net1 g2 --ip 10.77.0.1", REFUSED, &["10.77.0.1"]),
    ("port add net1 g2 --mac 01:00:5e:00:00:01", REFUSED, &["01:00:5e:00:00:01"]),
    // Networks that are there, are not there, or are no networks.
    ("network add net1 --mode isolated", REFUSED, &["net1", "exists"]),
    ("network del net3", REFUSED, &["net3", "no network"]),
    ("network show net3", REFUSED, &["net3", "no network"]),
    ("port add net3 g2", REFUSED, &["net3", "no network"]),
    ("port del net1 g2", REFUSED, &["g2", "not a port"]),
    ("port show g2", REFUSED, &["g2", "not a port"]),
    ("fdb list net3", REFUSED, &["net3", "no network"]),
    // Subnets.
    ("network add net3 --mode nat --uplink up0", REFUSED, &["subnet"]),
    ("network add net3 --mode host-only", REFUSED, &["subnet"]),
    ("network add net3 --mode nat --subnet 10.77.0.0/16 --uplink up0", REFUSED, &["10.77.0.0/16", "overlaps", "net1"]),
    ("network add net3 --mode nat --subnet 10.77.0.128/25 --uplink up0", REFUSED, &["overlaps", "net1"]),
    ("network add net3 --mode nat --subnet 198.51.100.0/24 --uplink up0", REFUSED, &["overlaps", "up0"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/24 --subnet 10.9.0.0/25", REFUSED, &["overlaps"]),
    ("network add net3 --mode isolated --subnet 10.9.0.0/24", REFUSED, &["isolated", "subnet"]),
    ("network add net3 --mode isolated --uplink g2", REFUSED, &["isolated", "uplink"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/24 --gateway 10.10.0.1", REFUSED, &["10.10.0.1"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/24 --gateway 10.9.0.255", REFUSED, &["10.9.0.255", "broadcast"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/24 --gateway banana", REFUSED, &["banana"]),
    ("network add net3 --mode host-only --subnet banana", REFUSED, &["banana", "subnet"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/33", REFUSED, &["10.9.0.0/33", "subnet"]),
    ("network add net3 --mode host-only --subnet 10.9.0.7/24", REFUSED, &["10.9.0.7/24", "10.9.0.0/24"]),
    ("network add net3 --mode host-only --subnet 10.9.0.0/31", REFUSED, &["10.9.0.0/31", "small"]),
    ("network add net3 --mode host-only --subnet 224.0.0.0/24", REFUSED, &["224.0.0.0/24"]),
    ("network add net3 --mode host-only --subnet 127.0.0.0/24", REFUSED, &["127.0.0.0/24"]),
    // Names that are not names.
    ("network add a/b --mode isolated", REFUSED, &["a/b", "name"]),
    ("network add ../etc --mode isolated", REFUSED, &["../etc", "name"]),
    ("network add averylongnetworkname --mode isolated", REFUSED, &["averylongnetworkname", "name"]),
    ("network add nét --mode isolated", REFUSED, &["nét", "name"]),
    ("port add net1 a/b", REFUSED, &["a/b", "name"]),
    ("port add net1 averylongdevicename", REFUSED, &["averylongdevicename", "name"]),
    // Forwards.
    ("forward add net1 tcp 8081 10.88.0.11:80", REFUSED, &["10.88.0.11", "outside"]),
    ("forward add net1 tcp 8081 10.77.0.1:80", REFUSED, &["10.77.0.1", "gateway"]),
    ("forward add net1 tcp 8081 10.77.0.255:80", REFUSED, &["10.77.0.255", "broadcast"]),
    ("forward add net1 tcp 8080 10.77.0.12:80", REFUSED, &["8080", "taken", "net1"]),
    ("forward add net1 tcp 8070-8090 10.77.0.12:70-90", REFUSED, &["taken", "8080"]),
    ("forward add net1 tcp 198.51.100.2:8080 10.77.0.12:80", REFUSED, &["8080", "taken"]),
    ("forward add net1 tcp 7777 10.77.0.11:80", REFUSED, &["7777", "taken", "socket"]),
    ("forward add net1 tcp 7770-7780 10.77.0.11:70-80", REFUSED, &["7777", "taken", "socket"]),
    ("forward add net1 udp 7778 10.77.0.11:80", REFUSED, &["7778", "taken", "socket"]),
    ("forward add net1 tcp 50000 10.77.0.11:80", REFUSED, &["50000", "net1"]),
    ("forward add net1 tcp 9000-9010 10.77.0.11:80-81", REFUSED, &["differ", "11", "2"]),
    ("forward add net1 tcp 9010-9000 10.77.0.11", REFUSED, &["9010", "reversed"]),
    ("forward add net1 tcp 0 10.77.0.11", REFUSED, &["0", "port"]),
    ("forward add net1 tcp 70000 10.77.0.11", REFUSED, &["70000", "port"]),
    ("forward add net1 tcp 8081 10.77.0.11:http", REFUSED, &["http", "port"]),
    ("forward add net2 tcp 8081 10.77.0.11", REFUSED, &["net2", "isolated"]),
    ("forward del net1 tcp 8081", REFUSED, &["8081", "no forward"]),
    ("forward del net1 udp 8080", REFUSED, &["8080", "no forward"]),
    // Settings.
    ("network set net3 udp-timeout 5s", REFUSED, &["net3", "no network"]),
    ("network set net1 colour blue", REFUSED, &["colour", "not a setting", "udp-timeout"]),
    ("network set net1 udp-timeout 0", REFUSED, &["udp-timeout", "duration"]),
    ("network set net1 udp-timeout soon", REFUSED, &["soon", "duration"]),
    ("network set net1 icmp-timeout 5s udp-timeout 0s", REFUSED, &["0s", "duration"]),
    ("network set net1 guest-rate 0", REFUSED, &["guest-rate", "limit", "off"]),
    ("network set net1 mapping cone", REFUSED, &["cone", "endpoint-independent"]),
    ("network set net1 snat-ports 80-90", REFUSED, &["80-90", "1024"]),
    ("network set net1 snat-ports 9000-8000", REFUSED, &["reversed"]),
    ("network set net1 snat-ports 8000-9000", REFUSED, &["8080", "forward", "net1"]),
    ("network set net1 snat-ports 7000-7999", REFUSED, &["tcp port 7777", "socket"]),
    ("network set net1 snat-ports 7778-7779", REFUSED, &["udp port 7778", "socket"]),
    ("network set net1 snat-ports 10000-65535", REFUSED, &["leave the host"]),
    ("network set net1 snat-address 10.77.0.9", REFUSED, &["10.77.0.9", "guests", "net1"]),
    ("network set net1 snat-address 198.51.0.0-198.51.100.9", REFUSED, &["256"]),
    ("network set net1 udp-timeout 5s udp-timeout 6s", REFUSED, &["udp-timeout", "twice"]),
    ("network set net2 udp-timeout 5s", REFUSED, &["net2", "isolated", "nat"]),
    ("network add net3 --mode nat --subnet 10.9.0.0/24 --snat-ports 7000-7999", REFUSED, &["tcp port 7777", "socket"]),
    ("network add net3 --mode nat --subnet 10.9.0.0/24 --snat-address 10.9.0.3", REFUSED, &["10.9.0.3", "guests"]),
    ("network add net3 --mode bridge --snat-ports 20000-29999", REFUSED, &["snat-ports", "bridge", "nat"]),
    // FDB.
    ("fdb add net1 zz:00:00:00:00:01 g1", REFUSED, &["zz:00:00:00:00:01", "MAC"]),
    ("fdb add net1 ff:ff:ff:ff:ff:ff g1", REFUSED, &["ff:ff:ff:ff:ff:ff", "multicast"]),
    ("fdb add net1 02:00:00:00:00:01 g2", REFUSED, &["g2", "not a port"]),
    ("fdb add net1 02:00:00:00:ee:01 g1", REFUSED, &["02:00:00:00:ee:01", "already"]),
    ("fdb add net1 02:00:00:00:00:01 g1 --vlan 4095", REFUSED, &["4095", "VLAN"]),
    ("fdb del net1 02:00:00:00:00:09", REFUSED, &["02:00:00:00:00:09", "no entry"]),
    // Connections.
    ("conntrack list --src banana", REFUSED, &["banana"]),
    ("conntrack flush --network net3", REFUSED, &["net3", "no network"]),
    // The command line itself: its usage follows in more lines.
    ("forward add net1 dccp 8081 10.77.0.11", USAGE, &["dccp", "protocol"]),
    ("network add net3 --mode banana", USAGE, &["banana", "--mode"]),
    ("network add net3", USAGE, &["required"]),
    ("network add net3 --mode nat --mapping cone", USAGE, &["cone", "--mapping"]),
    ("network set net1", USAGE, &["required"]),
    ("network set net1 udp-timeout", USAGE, &["values required"]),
    ("network set net1 udp-timeout 5s icmp-timeout", USAGE, &["icmp-timeout", "no value"]),
    ("network frobnicate", USAGE, &["frobnicate"]),
    ("frobnicate", USAGE, &["frobnicate"]),
    ("port add net1", USAGE, &["required"]),
    ("network list --frobnicate", USAGE, &["--frobnicate"]),
];

fn scenario() -> Result<(Scenario, TcpListener, UdpSocket)> {
    let scenario = Scenario::bare(Topology::new().guests(3).uplink().quiet())?;
    let (host, vnet) = (&scenario.world.host, &scenario.vnet);
    host.ip("link add br0 type bridge forward_delay 0\nlink set br0 up\nlink set g3 master br0\n")?;
    wait::until_true("br0 is up", wait::SOON, || Ok(host.run(&["ip", "link", "show", "br0"])?.contains("state UP")))?;
    for line in [
        &format!("network add net1 --mode nat --subnet {SUBNET} --uplink {UPLINK}"),
        "network add net2 --mode isolated",
        "port add net1 g1",
        "forward add net1 tcp 8080 10.77.0.11:80",
        "fdb add net1 02:00:00:00:ee:01 g1",
    ] {
        vnet.line(line)?;
    }
    let sockets = host.enter(|| Ok((TcpListener::bind("0.0.0.0:7777")?, UdpSocket::bind("0.0.0.0:7778")?)))?;
    Ok((scenario, sockets.0, sockets.1))
}

/// Everything that a refused command must leave alone.
fn state(vnet: &Daemon) -> Result<Vec<Value>> {
    let lists = ["network list", "port list", "forward list", "fdb list net1", "fdb list net2", "conntrack list"];
    let lists = lists.iter().map(|noun| {
        let mut answer = vnet.json(noun)?;
        for row in answer.as_array_mut().into_iter().flatten() {
            // What moves by itself.
            for field in ["rx", "tx", "drops", "age"] {
                row.as_object_mut().map(|row| row.remove(field));
            }
        }
        Ok(answer)
    });
    let settings = ["net1", "net2"].iter().map(|name| Ok(vnet.json(&format!("network show {name}"))?["nat"].clone()));
    lists.chain(settings).collect()
}

/// What is wrong with an answer to bad input.
fn fault(output: &Output, code: i32, words: &[&str]) -> Option<String> {
    let lines: Vec<_> = output.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let said = if code == USAGE { lines.first().copied().unwrap_or_default() } else { &output.stderr }.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(&word.to_lowercase())).collect();
    if output.status != code {
        Some(format!("exit {} instead of {code}", output.status))
    } else if lines.len() != 1 && code != USAGE {
        Some(format!("{} lines instead of one", lines.len()))
    } else if !missing.is_empty() {
        Some(format!("does not say {missing:?}"))
    } else if !output.stdout.is_empty() {
        Some("prints on stdout".to_owned())
    } else {
        None
    }
}

#[test]
fn every_bad_input_is_refused_with_one_clear_line_and_changes_nothing() -> Result<()> {
    let (scenario, _tcp, _udp) = scenario()?;
    let vnet = &scenario.vnet;
    let (before, host_before) = (state(vnet)?, Snapshot::take(&scenario.world.host)?);
    let mut faults = Vec::new();
    for (line, code, words) in CASES {
        let output = vnet.vnet(&line.split_whitespace().collect::<Vec<_>>())?;
        if let Some(fault) = fault(&output, *code, words) {
            faults.push(format!("vnet {line}: {fault}\n{output}\n"));
        }
        let after = state(vnet)?;
        if after != before {
            faults.push(format!("vnet {line}: changed the state: {before:?} → {after:?}\n"));
            // All that follows would show the same.
            break;
        }
    }
    ensure!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), CASES.len(), faults.join("\n"));
    let differences = host_before.differences(&Snapshot::take(&scenario.world.host)?);
    ensure!(differences.is_empty(), "the host was changed: {differences:#?}");
    Ok(())
}

fn ends_with_one_line(output: &Output, words: &[&str]) -> Result<()> {
    match fault(output, REFUSED, words) {
        None => Ok(()),
        Some(fault) => anyhow::bail!("{fault}\n{output}"),
    }
}

#[test]
fn every_command_without_a_daemon_says_so_in_one_line() -> Result<()> {
    let Scenario { mut vnet, world: _world } = Scenario::bare(Topology::new())?;
    vnet.terminate()?;
    for line in
        ["network list", "network add net1 --mode isolated", "port list --json", "show", "stats", "conntrack count"]
    {
        let output = vnet.vnet(&line.split_whitespace().collect::<Vec<_>>())?;
        ends_with_one_line(&output, &["daemon", "vnet.sock"])?;
    }
    Ok(())
}

#[test]
fn a_daemon_without_privileges_says_so_in_one_line() -> Result<()> {
    let Scenario { mut vnet, world } = Scenario::bare(Topology::new())?;
    // The commands of somebody else are refused, too.
    let binary = vnet_tests::daemon::binary()?;
    let program = tempfile::tempdir()?;
    let copy = program.path().join("vnet");
    std::fs::copy(binary, &copy)?;
    for directory in [program.path(), world.directory.path()] {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let as_nobody = |vnet: &Daemon, words: &[&str]| -> Result<Output> {
        let mut command = world.host.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(words);
        command.envs(vnet.command(&[])?.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Process::spawn(command)?.output(wait::SOON)
    };
    ends_with_one_line(&as_nobody(&vnet, &["network", "list"])?, &["permission", "root"])?;
    vnet.terminate()?;
    ends_with_one_line(&as_nobody(&vnet, &["daemon"])?, &["root"])
}

#[test]
fn a_kernel_without_bpf_is_named_as_the_cause_in_one_line() -> Result<()> {
    let Scenario { mut vnet, world: _world } = Scenario::bare(Topology::new())?;
    vnet.terminate()?;
    let mut command = vnet.command(&["daemon"])?;
    seccomp::without_bpf(&mut command);
    ends_with_one_line(&Process::spawn(command)?.output(wait::SOON)?, &["kernel"])
}

#[test]
fn a_state_file_that_is_garbage_is_named_and_kept() -> Result<()> {
    let Scenario { mut vnet, world: _world } = Scenario::bare(Topology::new())?;
    vnet.line(&format!("network add {NETWORK} --mode isolated"))?;
    vnet.terminate()?;
    let files: Vec<_> = std::fs::read_dir(vnet.state_directory())?.collect::<Result<_, _>>()?;
    let file = files.iter().map(std::fs::DirEntry::path).find(|path| path.extension().is_some_and(|end| end == "toml"));
    let file = file.ok_or_else(|| anyhow::anyhow!("no TOML file in the state directory: {files:?}"))?;
    let good = std::fs::read_to_string(&file)?;
    for bad in ["[network.net1\nmode =", "[network.net1]\nmode = \"banana\"\n", "future = 7\n"] {
        std::fs::write(&file, bad)?;
        let output = Process::spawn(vnet.command(&["daemon"])?)?.output(wait::SOON)?;
        ends_with_one_line(&output, &[&file.display().to_string()])?;
        assert_eq!(std::fs::read_to_string(&file)?, bad, "the file was touched");
    }
    std::fs::write(&file, good)?;
    vnet.start_again()?;
    ensure!(vnet.json("network list")?.to_string().contains(NETWORK));
    Ok(())
}
