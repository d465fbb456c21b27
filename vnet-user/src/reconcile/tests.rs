use std::collections::BTreeSet;

use vnet_common::{
    Ip, Mac,
    config::NetworkMode,
    fdb::{FdbKey, FdbKind},
    vport::VportRole,
};

use super::{
    Picture,
    plan::{Step, plan},
};
use crate::{
    config::{Config, DeviceName},
    datapath::Hook,
    netlink::{Address, Host, Link},
    state::{HostSetting, Incarnation, Runtime},
};

/// The host's own ephemeral ports.
const EPHEMERAL: (u16, u16) = (32768, 60999);

const CONFIG: &str = r#"
[network.default]
mode = "nat"
subnet = ["10.0.0.0/24"]
gateway_mac = "02:00:00:00:00:01"
port = [
    { device = "eth0", uplink = true },
    { device = "tap0", mac = "52:54:00:00:00:01" },
    { device = "tap1" },
]
forward = [
    { protocol = "tcp", listen = "8000-8001", to = "10.0.0.10:80-81" },
    { protocol = "tcp", listen = "192.0.2.1:40000", to = "10.0.0.10" },
]

[network.lan]
mode = "bridge"
port = [{ device = "eth1", uplink = true }, { device = "tap2" }]

[network.routed]
mode = "routed"
subnet = ["10.0.1.0/24"]
gateway_mac = "02:00:00:00:00:02"
port = [{ device = "eth0", uplink = true }]
"#;

struct World {
    config: Config,
    runtime: Runtime,
    host: Host,
    _directory: tempfile::TempDir,
}

fn link(ifindex: u32, name: &str) -> Link {
    let mac = Mac([2, 0, 0, 0, 1, ifindex as u8]);
    Link { ifindex, name: name.into(), mac, mtu: 1500, is_ethernet: true, ..Link::default() }
}

impl World {
    fn new() -> Self {
        let config: Config = toml::from_str(CONFIG).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut runtime = Runtime::load(directory.path(), &Incarnation::default()).unwrap();
        runtime.allocate(&config).unwrap();
        let mut host = Host::default();
        let names = ["eth0", "eth1", "tap0", "tap1", "tap2", "vn-default", "vn-routed"];
        for (ifindex, name) in (11..).zip(names) {
            host.insert_link(link(ifindex, name));
        }
        let address = "192.0.2.1".parse().unwrap();
        host.addresses.push(Address { ifindex: 11, address, prefix: 24, is_primary: true });
        Self { config, runtime, host, _directory: directory }
    }

    fn wanted(&self) -> Picture {
        Picture::wanted(&self.config, &self.runtime, &self.host, EPHEMERAL)
    }

    fn vport(&self, device: &str) -> u32 {
        self.runtime.vport(&device.parse::<DeviceName>().unwrap()).unwrap()
    }

    fn network(&self, name: &str) -> u16 {
        self.runtime.network(&name.parse().unwrap()).unwrap()
    }
}

fn follow(mut present: Picture, steps: &[Step]) -> Picture {
    steps.iter().for_each(|step| present.follow(step));
    present
}

#[test]
fn the_wanted_picture_is_the_contract_with_the_datapath() {
    let world = World::new();
    let picture = world.wanted();
    let (default, lan, routed) = (world.network("default"), world.network("lan"), world.network("routed"));
    let [eth0, eth1, tap0, tap1, tap2, gateway] =
        ["eth0", "eth1", "tap0", "tap1", "tap2", "vn-default"].map(|device| world.vport(device));

    let role = |id| (picture.vports[&id].role().unwrap(), picture.vports[&id].network);
    assert_eq!(role(eth0), (VportRole::RoutedUplink, 0));
    assert_eq!(role(eth1), (VportRole::BridgeUplink, lan));
    assert_eq!(role(tap0), (VportRole::Guest, default));
    assert_eq!(role(gateway), (VportRole::Gateway, default));
    let external: Ip = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(picture.vports[&eth0].external, external);
    assert_eq!(picture.vports[&eth1].external, Ip::UNSPECIFIED);
    assert_eq!(picture.locals.get(&external), Some(&11));

    let sorted = |id| picture.floods[&id].iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(sorted(default), [tap0, tap1, gateway].into());
    assert_eq!(sorted(lan), [eth1, tap2].into());

    let fdb = |network, mac| picture.fdb.get(&FdbKey::new(network, 0, Mac(mac))).copied();
    assert_eq!(fdb(default, [2, 0, 0, 0, 0, 1]), Some((gateway, FdbKind::Local)));
    assert_eq!(fdb(default, [0x52, 0x54, 0, 0, 0, 1]), Some((tap0, FdbKind::Static)));
    assert_eq!(fdb(lan, [2, 0, 0, 0, 1, 12]), Some((eth1, FdbKind::Local)));
    assert_eq!(picture.fdb.len(), 4);

    let settings = &picture.networks[&default];
    assert_eq!((settings.mode, settings.gateway_vport), (NetworkMode::Nat, gateway));
    assert_eq!((settings.subnets[0].length, settings.subnets[1].length), (120, 0));
    assert_eq!((settings.uplinks, settings.nat.first_port, settings.nat.last_port), ([eth0, 0, 0, 0], 49152, 65535));
    assert_eq!(picture.networks[&routed].uplinks[0], eth0);
    assert_eq!(picture.routed_subnets.len(), 1);
    assert_eq!(picture.forwards.len(), 3);

    let hooks = [(11, Hook::PortIngress), (12, Hook::PortIngress), (12, Hook::UplinkEgress)];
    assert!(hooks.iter().all(|hook| picture.hooks.contains(hook)));
    assert!(picture.hooks.contains(&(16, Hook::GatewayEgress)) && picture.hooks.len() == 8);
    let settings = [(12, HostSetting::Promiscuous), (13, HostSetting::DisableIpv6), (13, HostSetting::Up)];
    assert!(settings.iter().all(|setting| picture.settings.contains(setting)));
    assert!(!picture.settings.iter().any(|(ifindex, _)| *ifindex == 11), "a routed uplink is left as it is");
    assert_eq!(picture.reserved_ports.to_string(), "40000,49152-65535");
}

#[test]
fn a_plan_leads_to_what_is_wanted_and_then_there_is_nothing_to_do() {
    let world = World::new();
    let wanted = world.wanted();
    let steps = plan(&Picture::default(), &wanted);
    assert_eq!(follow(Picture::default(), &steps), wanted);
    assert_eq!(plan(&wanted, &wanted), []);
    let back = plan(&wanted, &Picture::default());
    assert_eq!(follow(wanted, &back), Picture::default());
}

#[test]
fn tables_stand_before_frames_flow_and_frames_stop_before_tables_go() {
    let wanted = World::new().wanted();
    let at = |steps: &[Step], what: fn(&Step) -> bool| steps.iter().position(what).unwrap();
    let steps = plan(&Picture::default(), &wanted);
    let attach = at(&steps, |step| matches!(step, Step::Attach(..)));
    let last_table = steps
        .iter()
        .rposition(|step| matches!(step, Step::SetVport { .. } | Step::SetNetwork(..) | Step::SetFlood(..)));
    assert!(last_table.unwrap() < attach);
    assert!(
        at(&steps, |step| matches!(step, Step::ReservePorts(_))) < at(&steps, |s| matches!(s, Step::SetNetwork(..)))
    );
    assert!(attach < at(&steps, |step| matches!(step, Step::TurnOn(_, HostSetting::Up))));

    let steps = plan(&wanted, &Picture::default());
    let detach = steps.iter().rposition(|step| matches!(step, Step::Detach(..))).unwrap();
    assert!(at(&steps, |step| matches!(step, Step::RemoveForwards(_))) < detach);
    assert!(detach < at(&steps, |step| matches!(step, Step::EndNetwork(_))));
    assert!(detach < at(&steps, |step| matches!(step, Step::ClearVport(_))));
}

#[test]
fn one_change_touches_nothing_else() {
    let mut world = World::new();
    let before = world.wanted();
    let network = world.config.networks.get_mut("default").unwrap();
    let port = network.ports.remove(2);
    let (default, tap1) = (world.network("default"), world.vport("tap1"));
    let after = world.wanted();
    assert_eq!(
        plan(&before, &after),
        [
            Step::TurnBack(14, HostSetting::Up),
            Step::Detach(14, Hook::PortIngress),
            Step::Unbind(14),
            Step::DecideAgain(default),
            Step::SetFlood(default, after.floods[&default].clone()),
            Step::ClearVport(tap1),
            Step::TurnBack(14, HostSetting::DisableIpv6),
        ]
    );
    world.config.networks.get_mut("default").unwrap().ports.push(port);
    assert_eq!(follow(after.clone(), &plan(&after, &world.wanted())).vports, before.vports);
}

#[test]
fn a_change_of_settings_is_one_step_within_reserved_ports() {
    let mut world = World::new();
    let before = world.wanted();
    let default = world.network("default");
    let nat = &mut world.config.networks.get_mut("default").unwrap().nat;
    nat.udp_timeout = "2s".parse().unwrap();
    let after = world.wanted();
    assert_eq!(after.networks[&default].timeouts.udp, 2);
    assert_eq!(plan(&before, &after), [Step::SetNetwork(default, after.networks[&default].clone())]);

    world.config.networks.get_mut("default").unwrap().nat.snat_ports = "20000-20009".parse().unwrap();
    let moved = world.wanted();
    assert_eq!(moved.reserved_ports.to_string(), "20000-20009,40000");
    assert_eq!(
        plan(&after, &moved),
        [
            Step::ReservePorts("20000-20009,40000,49152-65535".parse().unwrap()),
            Step::SetNetwork(default, moved.networks[&default].clone()),
            Step::ReservePorts(moved.reserved_ports.clone()),
        ]
    );
}

#[test]
fn a_device_that_comes_back_under_another_index_keeps_its_vport() {
    let mut world = World::new();
    let before = world.wanted();
    let mut host = Host::default();
    world.host.links().filter(|link| link.name != "tap0").for_each(|link| host.insert_link(link.clone()));
    host.addresses = world.host.addresses.clone();
    world.host = host;
    let (default, tap0) = (world.network("default"), world.vport("tap0"));

    let absent = world.wanted();
    assert_eq!(absent.vports[&tap0].ifindex, 0);
    assert!(absent.floods[&default].contains(&tap0));
    let steps = plan(&before, &absent);
    assert!(steps.contains(&Step::Unbind(13)) && steps.contains(&Step::ForgetGuests(tap0)));
    let key = FdbKey::new(default, 0, Mac([0x52, 0x54, 0, 0, 0, 1]));
    assert!(steps.contains(&Step::InsertFdb(key, tap0, FdbKind::Static)), "static entries stay");

    world.host.insert_link(link(99, "tap0"));
    let steps = plan(&absent, &world.wanted());
    for step in [Step::Bind(99, tap0), Step::Attach(99, Hook::PortIngress), Step::TurnOn(99, HostSetting::Up)] {
        assert!(steps.contains(&step), "{step:?}");
    }
}

#[test]
fn another_address_on_an_uplink_has_its_networks_decide_again_and_ends_what_is_stranded() {
    let mut world = World::new();
    let before = world.wanted();
    world.host.addresses[0].address = "192.0.2.9".parse().unwrap();
    let steps = plan(&before, &world.wanted());
    let again: BTreeSet<u16> =
        steps.iter().filter_map(|step| if let Step::DecideAgain(id) = step { Some(*id) } else { None }).collect();
    assert_eq!(again, [world.network("default"), world.network("routed")].into());
    assert!(
        matches!(&steps[..], [Step::SetVport { is_new: false, .. }, Step::SetLocals(_), _, _, Step::EndStranded(ended)] if *ended == again),
        "{steps:?}"
    );
}

#[test]
fn an_uplink_that_only_loses_its_address_keeps_its_connections() {
    let mut world = World::new();
    let before = world.wanted();
    world.host.addresses.remove(0);
    let steps = plan(&before, &world.wanted());
    assert!(steps.iter().any(|step| matches!(step, Step::SetVport { .. })), "{steps:?}");
    assert!(!steps.iter().any(|step| matches!(step, Step::EndStranded(_))), "{steps:?}");
}

#[test]
fn the_hosts_sockets_are_looked_at_while_a_network_has_an_outside() {
    let mut world = World::new();
    let all = world.wanted();
    let steps = plan(&Picture::default(), &all);
    assert_eq!(steps.last(), Some(&Step::AttachSockets), "forwards stand first");
    world.config.networks.remove("default").unwrap();
    let routed = world.wanted();
    assert!(!plan(&all, &routed).contains(&Step::DetachSockets), "one is left");
    world.config.networks.remove("routed").unwrap();
    let steps = plan(&routed, &world.wanted());
    assert!(steps.contains(&Step::DetachSockets), "{steps:?}");
}
