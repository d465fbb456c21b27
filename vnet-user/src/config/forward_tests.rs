use super::*;

fn forward(listen: &str, target: &str) -> Result<ForwardConfig, Refusal> {
    ForwardConfig::new(Protocol::Tcp, listen.parse()?, target.parse()?)
}

#[test]
fn forwards_read_as_they_are_written() {
    let cases = [
        ("8080", "192.168.122.10:80", "tcp 8080 -> 192.168.122.10:80"),
        ("22", "192.168.122.10", "tcp 22 -> 192.168.122.10:22"),
        ("0.0.0.0:22", "192.168.122.10", "tcp 22 -> 192.168.122.10:22"),
        ("192.0.2.1:8000-8010", "192.168.122.10", "tcp 192.0.2.1:8000-8010 -> 192.168.122.10:8000-8010"),
        ("8000-8010", "192.168.122.10:9000-9010", "tcp 8000-8010 -> 192.168.122.10:9000-9010"),
        ("65535", "10.0.0.2:1", "tcp 65535 -> 10.0.0.2:1"),
        ("0", "10.0.0.2", "'0' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ("65536", "10.0.0.2", "'65536' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ("+80", "10.0.0.2", "'+80' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ("http", "10.0.0.2", "'http' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ("8010-8000", "10.0.0.2", "port range 8010-8000 is reversed: write 8000-8010"),
        ("8000-8010", "10.0.0.2:80", "the ranges differ in length: 8000-8010 listens on 11 ports, 10.0.0.2:80 has 1"),
        ("80", "10.0.0.2:0", "'0' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ("300.0.0.1:80", "10.0.0.2", "'300.0.0.1' is not an IPv4 address: write it as 192.168.122.10"),
        (
            "192.0.2.1",
            "10.0.0.2",
            "'192.0.2.1' is not a listen address: write [ADDRESS:]PORT[-PORT], as in 8080 or 192.0.2.1:8000-8010",
        ),
        ("[::]:80", "10.0.0.2", "listen address [::]:80: IPv6 is not supported here yet; give an IPv4 one"),
        ("80", "guest:80", "'guest:80' is not a target: write ADDRESS[:PORT[-PORT]], as in 192.168.122.10:80"),
        ("80", "[fd00::2]:80", "target [fd00::2]:80: IPv6 is not supported here yet; give an IPv4 one"),
    ];
    for (listen, target, outcome) in cases {
        let shown = forward(listen, target)
            .map_or_else(|refusal| refusal.to_string(), |f| format!("{} -> {}", f.key(), f.target()));
        assert_eq!(shown, outcome, "{listen} {target}");
    }
}

#[test]
fn listens_overlap_where_one_packet_matches_both() {
    let cases = [
        ("80", "80", true),
        ("80", "81", false),
        ("80-90", "90-100", true),
        ("80-90", "91", false),
        ("80", "192.0.2.1:80", true),
        ("192.0.2.1:80", "192.0.2.2:80", false),
        ("192.0.2.1:80-90", "192.0.2.1:85", true),
    ];
    for (one, other, overlap) in cases {
        let (one, other): (Listen, Listen) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(one.overlaps(&other), overlap, "{one} {other}");
        assert_eq!(other.overlaps(&one), overlap, "{other} {one}");
    }
}
