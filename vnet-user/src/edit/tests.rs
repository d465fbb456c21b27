use std::net::IpAddr;

use super::*;
use crate::{
    Refusal,
    api::types::NetworkRequest,
    config::{
        Accel, Config, FdbConfig, ForwardConfig, ForwardKeyText, MacAddress, NatChange, PortConfig, Protocol, Vlan,
    },
    host::{HostPorts, sockets::Socket},
    netlink::{Address, Host, Link, Route},
};

fn host() -> Host {
    let mut host = Host::default();
    let names = ["lo", "eth0", "eth1", "tap0", "tap1", "br0", "slave", "tun0", "vn-default", "vp-default"];
    for (index, name) in (1..).zip(names) {
        let mut link = Link { ifindex: index, name: (*name).into(), mtu: 1500, is_ethernet: true, ..Link::default() };
        link.mac.0 = [2, 0, 0, 0, 1, index as u8];
        link.is_loopback = name == "lo";
        link.is_ethernet = name != "tun0";
        link.master = (name == "slave").then_some(6);
        host.insert_link(link);
    }
    let mut address = |ifindex, text: &str, prefix| {
        let address: IpAddr = text.parse().unwrap();
        host.addresses.push(Address { ifindex, address, prefix, is_primary: true });
    };
    address(2, "198.51.100.2", 24);
    address(9, "10.0.0.1", 24);
    let mut route = |text: &str, ifindex| {
        host.routes.push(Route { destination: text.parse().unwrap(), ifindex: Some(ifindex) });
    };
    route("10.0.0.0/24", 9);
    route("172.16.0.0/12", 3);
    route("0.0.0.0/1", 3);
    host
}

fn settings(pairs: &[(&str, Option<&str>)]) -> NatChange {
    let mut change = NatChange::default();
    for (key, value) in pairs {
        value.map_or(Ok(()), |value| change.add(key, value)).unwrap();
    }
    change
}

/// One command as the daemon gets it.
fn run(config: &mut Config, line: &str) -> Result<(), Refusal> {
    let host = host();
    let bound = [("0.0.0.0", 22), ("0.0.0.0", 33333), ("127.0.0.1", 8081), ("198.51.100.2", 8082)];
    let sockets = bound.map(|(address, port): (&str, _)| Socket {
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        port,
        is_listening: true,
    });
    let ports = HostPorts { sockets: sockets.to_vec(), ephemeral: (32768, 60999) };
    let words: Vec<&str> = line.split_whitespace().collect();
    let option = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
    let name = words[2].parse()?;
    match (words[0], words[1]) {
        ("network", "add") => {
            let mode = <crate::config::Mode as clap::ValueEnum>::from_str(words[3], false).unwrap();
            let subnets = option("--subnet").map(|list| list.split(',').map(str::parse).collect());
            let gateways = option("--gateway").map(|list| list.split(',').map(|a| a.parse().unwrap()).collect());
            let request = NetworkRequest {
                name,
                mode,
                uplinks: option("--uplink").map(str::parse).transpose()?.into_iter().collect(),
                subnets: subnets.transpose()?.unwrap_or_default(),
                gateways: gateways.unwrap_or_default(),
                nat: settings(
                    &["mapping", "filtering", "snat-address", "snat-ports"]
                        .map(|key| (key, option(&format!("--{key}")))),
                ),
            };
            add_network(config, &host, &ports, request, MacAddress::locally_administered([1; 6]))
        }
        ("network", "set") => {
            let pairs: Vec<_> = words[3..].as_chunks::<2>().0.iter().map(|[key, value]| (*key, Some(*value))).collect();
            set_network(config, &host, &ports, &name, &settings(&pairs))
        }
        ("network", "del") => delete_network(config, &name),
        ("port", "add") => {
            let port = PortConfig {
                device: words[3].parse()?,
                uplink: words.contains(&"--uplink"),
                accel: if words.contains(&"xdp") { Accel::Xdp } else { Accel::Auto },
                mac: option("--mac").map(str::parse).transpose()?,
                addresses: option("--ip").map(|ip| ip.parse().unwrap()).into_iter().collect(),
            };
            add_port(config, &host, &name, port)
        }
        ("port", "del") => delete_port(config, &name, &words[3].parse()?),
        ("forward", "add") => {
            let forward = ForwardConfig::new(words[3].parse()?, words[4].parse()?, words[5].parse()?)?;
            let forward = forward.with_loopback(words.contains(&"--loopback"))?;
            add_forward(config, &sockets, &name, forward)
        }
        ("forward", "del") => {
            let key = ForwardKeyText { protocol: words[3].parse()?, listen: words[4].parse()? };
            delete_forward(config, &name, &key)
        }
        ("fdb", "add") => {
            let vlan = Vlan::from_id(option("--vlan").map(|id| id.parse().unwrap()))?;
            add_fdb_entry(config, &host, &name, FdbConfig { mac: words[3].parse()?, device: words[4].parse()?, vlan })
        }
        ("fdb", "del") => delete_fdb_entry(config, &host, &name, words[3].parse()?, Vlan::NONE).map(drop),
        other => panic!("{other:?}"),
    }
}

/// Networks, ports, forwards.
const SETTING: [&str; 10] = [
    "network add default nat --subnet 10.0.0.0/24,10.0.2.0/24 --uplink eth0",
    "network add lab host-only --subnet 10.0.1.0/24 --gateway 10.0.1.254",
    "network add lan bridge",
    "network add routed routed --subnet 10.0.3.0/24",
    "network add pooled nat --subnet 10.0.5.0/24 --snat-address 203.0.113.16-203.0.113.31",
    "port add default tap0 --mac 52:54:00:00:00:01 --ip 10.0.0.10",
    "port add lan eth1 --uplink",
    "forward add default tcp 8000-8010 10.0.0.10",
    "forward add default udp 192.0.2.1:53 10.0.0.10",
    "fdb add default 52:54:00:00:00:02 tap0",
];

fn setting() -> Config {
    let mut config = Config::default();
    for line in SETTING {
        run(&mut config, line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
    }
    config
}

#[test]
fn each_refusal_is_one_clear_line_and_changes_nothing() {
    let before = setting();
    let lines: Vec<&str> = include_str!("refusals.txt").lines().map(str::trim).collect();
    for (line, expected) in lines.as_chunks::<2>().0.iter().map(|[line, expected]| (line, expected)) {
        let mut config = before.clone();
        let refusal = run(&mut config, line).expect_err(line).to_string();
        assert_eq!(refusal, *expected, "{line}");
        assert_eq!(config, before, "{line} changed something");
    }
}

#[test]
fn what_is_fine_is_done() {
    let mut config = setting();
    for line in [
        // A routed uplink may serve several networks, a specific address beside another is free, and so is a
        // port that only a loopback socket holds.
        "port add routed eth0 --uplink",
        "forward add routed udp 192.0.2.2:53 10.0.3.2",
        "forward add default tcp 8081 10.0.0.11",
        "forward add default udp 8000-8010 10.0.0.11:9000-9010",
        "forward add default tcp 8083 10.0.0.11 --loopback",
        "fdb add default 52:54:00:00:00:02 tap0 --vlan 10",
        "network add vpn isolated",
        "port add vpn tap1",
        // Networks share the uplink's ports, a pool can be shared out by ports, and on addresses that the host does
        // not carry neither its sockets nor its own connections are in the way.
        "network add second nat --subnet 10.6.0.0/24",
        "network set pooled snat-ports 60000-65535",
        "network add third nat --subnet 10.7.0.0/24 --snat-address 203.0.113.16 --snat-ports 50000-59999",
        "network add fourth nat --subnet 10.8.0.0/24 --snat-address 192.0.2.200 --snat-ports 9000-65535",
        "network set default snat-ports 20000-29999 udp-timeout 30s filtering endpoint-independent",
        "network set routed udp-timeout 2s",
    ] {
        run(&mut config, line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
    }
}

#[test]
fn a_port_takes_its_mac_addresses_along() {
    let mut config = setting();
    run(&mut config, "port del default tap0").unwrap();
    assert!(config.networks.values().all(|network| network.fdb.is_empty()));
    run(&mut config, "port add default tap1 --mac 52:54:00:00:00:02 --ip 10.0.0.10").unwrap();
}

#[test]
fn a_network_has_room_for_so_many_ports_and_uplinks() {
    let mut config = setting();
    let network = config.networks.get_mut("default").unwrap();
    let spare = network.ports.last().unwrap().clone();
    let many = |count: usize, uplink: bool| {
        let device = |index| format!("{}{index}", if uplink { "u" } else { "p" }).parse().unwrap();
        let port = |index| PortConfig { device: device(index), uplink, mac: None, ..spare.clone() };
        (0..count).map(port).collect::<Vec<_>>()
    };
    network.ports.extend(many(3, true));
    assert_eq!(run(&mut config, "port add default br0 --uplink").unwrap_err(), Refusal::TooManyUplinks { most: 4 });
    let network = config.networks.get_mut("default").unwrap();
    network.ports.extend(many(1023 - network.ports.len(), false));
    assert_eq!(run(&mut config, "port add default br0").unwrap_err(), Refusal::TooManyPorts { most: 1023 });
}

#[test]
fn a_forward_may_listen_beside_a_pool_and_not_within() {
    let mut config = Config::default();
    run(&mut config, "network add x nat --subnet 10.9.0.0/24 --snat-address 192.0.2.4-192.0.2.7").unwrap();
    run(&mut config, "forward add x tcp 192.0.2.8:50000 10.9.0.2").unwrap();
    for listen in ["192.0.2.7:50000", "50001"] {
        let refusal = run(&mut config, &format!("forward add x tcp {listen} 10.9.0.2")).unwrap_err().to_string();
        assert!(refusal.ends_with("overlaps ports 49152-65535, which network 'x' translates with: listen below 49152"));
    }
    let refusal = run(&mut config, "network set x snat-address uplink").unwrap_err();
    assert!(matches!(refusal, Refusal::SnatTakenByForward { .. }), "{refusal}");
}

#[test]
fn a_socket_that_came_later_is_in_the_way_of_no_other_setting() {
    let mut config = setting();
    // Taken before anybody listened on 33333.
    config.networks.get_mut("default").unwrap().nat.snat_ports = "33000-34000".parse().unwrap();
    run(&mut config, "network set default udp-timeout 30s").unwrap();
    let refusal = run(&mut config, "network set default snat-ports 33000-34001").unwrap_err();
    assert!(matches!(refusal, Refusal::SnatTakenBySocket { port: 33333, .. }), "{refusal}");
    assert_eq!(check_whole(&config, |_| MacAddress::locally_administered([1; 6])).unwrap(), config);
}

#[test]
fn a_nat_network_does_not_translate_with_ports_that_are_forwarded() {
    let mut config = Config::default();
    run(&mut config, "network add routed routed --subnet 10.0.3.0/24").unwrap();
    run(&mut config, "forward add routed tcp 50000 10.0.3.2").unwrap();
    let refusal = run(&mut config, "network add x nat --subnet 10.9.0.0/24").unwrap_err().to_string();
    assert_eq!(
        refusal,
        "forward tcp 50000 of network 'routed' listens within ports 49152-65535, which a nat network translates with: \
         delete it first"
    );
}
