use serde_json::json;

use super::*;
use crate::config::Config;

fn change(fields: Value) -> NatChange {
    serde_json::from_value(fields).unwrap()
}

fn applied(mode: Mode, fields: Value) -> Result<NatConfig, Refusal> {
    change(fields).apply(&NatConfig::default(), &"net1".parse().unwrap(), mode)
}

/// A value of each setting that is not its default, as the command line writes it.
const OTHERS: [(&str, &str); 14] = [
    ("mapping", "endpoint-dependent"),
    ("filtering", "address-port"),
    ("snat-address", "192.0.2.16-192.0.2.31"),
    ("snat-ports", "20000-29999"),
    ("inbound-refresh", "on"),
    ("udp-timeout", "2m1s"),
    ("tcp-timeout", "3h"),
    ("tcp-transitory-timeout", "4m1s"),
    ("icmp-timeout", "1m1s"),
    ("fragment-timeout", "15s"),
    ("port-cool-down", "1m"),
    ("guest-connections", "1000"),
    ("guest-ports", "off"),
    ("guest-rate", "100"),
];

fn all_others() -> NatConfig {
    let mut change = NatChange::default();
    OTHERS.iter().for_each(|(key, value)| change.add(key, value).unwrap());
    change.apply(&NatConfig::default(), &"net1".parse().unwrap(), Mode::Nat).unwrap()
}

#[test]
fn the_defaults_are_those_of_the_rfcs() {
    let nat = NatConfig::default();
    assert_eq!(nat.timeouts(), Timeouts::RFC);
    let quotas = NatPolicy { guest_connections: 32768, guest_bindings: 8192, ..NatPolicy::new(49152, 65535) };
    assert_eq!(nat.policy(), quotas);
}

#[test]
fn every_setting_is_read_as_it_is_shown() {
    let nat = all_others();
    assert_eq!(nat.rows(), OTHERS.map(|(key, value)| (key, value.to_owned())));
    // In JSON, too, under the same names.
    let Value::Object(shown) = serde_json::to_value(&nat).unwrap() else { panic!("no object") };
    let keys: std::collections::BTreeSet<String> = shown.keys().map(|key| key.replace('_', "-")).collect();
    assert_eq!(keys, OTHERS.iter().map(|(key, _)| (*key).to_owned()).collect());
    assert_eq!(applied(Mode::Nat, Value::Object(shown)).unwrap(), nat);
}

#[test]
fn every_setting_reaches_the_datapath() {
    let nat = all_others();
    assert_eq!(
        nat.timeouts(),
        Timeouts { udp: 121, tcp_established: 10800, tcp_transitory: 241, icmp: 61, fragment: 15, cool_down: 60 }
    );
    let address = |last| std::net::Ipv4Addr::new(192, 0, 2, last).into();
    assert_eq!(
        nat.policy(),
        NatPolicy {
            first_address: address(16),
            last_address: address(31),
            first_port: 20000,
            last_port: 29999,
            mapping: 1,
            filtering: 2,
            inbound_refresh: 1,
            pad: 0,
            guest_connections: 1000,
            guest_bindings: 0,
            guest_new_per_second: 100,
        }
    );
}

#[test]
fn json_has_numbers_where_tools_want_them() {
    assert_eq!(
        serde_json::to_value(all_others()).unwrap(),
        json!({
            "mapping": "endpoint-dependent",
            "filtering": "address-port",
            "snat_address": "192.0.2.16-192.0.2.31",
            "snat_ports": "20000-29999",
            "inbound_refresh": true,
            "udp_timeout": 121,
            "tcp_timeout": 10800,
            "tcp_transitory_timeout": 241,
            "icmp_timeout": 61,
            "fragment_timeout": 15,
            "port_cool_down": 60,
            "guest_connections": 1000,
            "guest_ports": "off",
            "guest_rate": 100,
        })
    );
}

#[test]
fn null_and_default_put_the_default_back() {
    let mut nat = all_others();
    for (key, value) in [("udp_timeout", Value::Null), ("guest-rate", "default".into()), ("snat_address", Value::Null)]
    {
        nat = change(json!({ key: value })).apply(&nat, &"net1".parse().unwrap(), Mode::Nat).unwrap();
    }
    let standard = NatConfig::default();
    assert_eq!((nat.udp_timeout, nat.guest_rate), (standard.udp_timeout, Limit::OFF));
    assert_eq!((nat.snat_address, nat.mapping), (SnatAddress::Uplink, Mapping::EndpointDependent));
}

#[test]
fn what_is_no_setting_or_no_value_is_refused() {
    let cases = [
        (json!({"udp_timeout": 0}), "udp-timeout: '0' is not a duration: write 300s"),
        (json!({"udp_timeout": 1.5}), "udp-timeout: '1.5' is not a duration: write 300s"),
        (json!({"udp_timeout": []}), "udp-timeout: a setting is a word, a number, true or false"),
        (json!({"mapping": "cone"}), "mapping: 'cone' is not a mapping: endpoint-independent or endpoint-dependent"),
        (json!({"filtering": true}), "filtering: 'true' is not a filtering: endpoint-independent, address or address"),
        (json!({"guest_rate": -1}), "guest-rate: '-1' is not a limit"),
        (
            json!({"colour": 1}),
            "'colour' is not a setting of a network: mapping, filtering, snat-address, snat-ports, ",
        ),
    ];
    for (fields, expected) in cases {
        let refusal = applied(Mode::Nat, fields.clone()).unwrap_err().to_string();
        assert!(refusal.starts_with(expected), "{fields}: {refusal}");
    }
    let mut twice = NatChange::default();
    twice.add("mapping", "default").unwrap();
    assert_eq!(twice.add("mapping", "default"), Err(Refusal::SettingTwice("mapping".into())));
}

#[test]
fn settings_are_those_of_networks_with_an_outside() {
    for (key, value) in OTHERS {
        let takes = |mode| applied(mode, json!({ key: value })).is_ok();
        assert!(takes(Mode::Nat), "{key}");
        assert_eq!(takes(Mode::Routed), !OF_NAT_ONLY.contains(&key), "{key}");
        assert!(!takes(Mode::Bridge) && !takes(Mode::HostOnly) && !takes(Mode::Isolated), "{key}");
    }
}

#[test]
fn files_hold_only_what_differs_and_may_say_it_in_words() {
    let text = "[network.net1]\nmode = \"nat\"\nsubnet = [\"10.0.0.0/24\"]\n";
    let words = format!(
        "{text}\n[network.net1.nat]\nguest_ports = \"off\"\nudp_timeout = \"2m\"\nmapping = \"endpoint-independent\"\n"
    );
    let config: Config = toml::from_str(&words).unwrap();
    let written = toml::to_string(&config).unwrap();
    assert_eq!(written, format!("{text}\n[network.net1.nat]\nguest_ports = \"off\"\nudp_timeout = 120\n"));
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), config);
    assert_eq!(toml::to_string(&toml::from_str::<Config>(text).unwrap()).unwrap(), text);
    for bad in ["udp_timeout = 0", "colour = 1", "snat_ports = \"1-2\""] {
        assert!(toml::from_str::<Config>(&format!("{text}\n[network.net1.nat]\n{bad}")).is_err(), "{bad}");
    }
}
