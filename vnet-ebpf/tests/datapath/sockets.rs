//! Calls of the host's own sockets: whom they are led to, and what they are shown.

use std::net::{IpAddr, Ipv6Addr};

use vnet_common::{
    Be16, Ip,
    conntrack::protocol::{TCP, UDP},
    forward::{ForwardEntry, ForwardKey, LOOPBACK},
    socket::Endpoint,
};
use vnet_ebpf::{
    context::mock_socket::MockSocket,
    datapath::socket::{connect, send, show_asked},
    tables::mock::MockTables,
};

const UPLINK: &str = "198.51.100.2";
const SECOND: &str = "198.51.100.3";
const GATEWAY: &str = "10.77.0.1";
const GUEST: &str = "10.77.0.11";

fn at(address: &str, port: u16) -> Endpoint {
    let address: IpAddr = address.parse().unwrap();
    Endpoint::new(address.into(), Be16::new(port))
}

/// Two addresses of the uplink and the gateway's; TCP 8080 of any address (not by loopback), 8081 of any (by
/// loopback), 8082 of the second and of an address that is not the host's; UDP 5353 of any.
fn tables() -> MockTables {
    let tables = MockTables::default();
    for address in [UPLINK, SECOND, GATEWAY, "127.0.0.1"] {
        tables.add_local(at(address, 0).address);
    }
    tables.add_local(Ip::from("2001:db8::2".parse::<Ipv6Addr>().unwrap()));
    let forwards = [
        ("::", 8080, TCP, 80, 0),
        ("::", 8081, TCP, 81, LOOPBACK),
        (SECOND, 8082, TCP, 82, 0),
        ("192.0.2.9", 8082, TCP, 83, 0),
        ("::", 5353, UDP, 53, 0),
    ];
    for (listen, port, protocol, guest_port, flags) in forwards {
        let key = ForwardKey::new(at(listen, 0).address, Be16::new(port), protocol);
        let guest = at(GUEST, guest_port);
        tables.set_forward(key, ForwardEntry { target: guest.address, port: guest.port, network: 1, flags });
    }
    tables
}

fn connected(socket: &mut MockSocket, to: Endpoint) -> Endpoint {
    socket.peer = to;
    connect(socket, &tables());
    socket.peer
}

fn sent(socket: &mut MockSocket, to: Endpoint) -> Endpoint {
    socket.peer = to;
    send(socket, &tables());
    socket.peer
}

fn shown(socket: &mut MockSocket, peer: Endpoint) -> Endpoint {
    socket.peer = peer;
    show_asked(socket);
    socket.peer
}

#[test]
fn a_call_is_led_to_the_guest_where_a_forward_says_so() {
    let cases = [
        (TCP, UPLINK, 8080, Some(80)),
        (TCP, SECOND, 8080, Some(80)),
        (TCP, GATEWAY, 8080, Some(80)),
        (UDP, UPLINK, 5353, Some(53)),
        // Its very address.
        (TCP, SECOND, 8082, Some(82)),
        (TCP, UPLINK, 8082, None),
        // Not the host's, now or ever.
        (TCP, "192.0.2.9", 8082, None),
        (TCP, "203.0.113.1", 8080, None),
        (TCP, GUEST, 8080, None),
        // Another port or protocol; one that has no forwards.
        (TCP, UPLINK, 8079, None),
        (UDP, UPLINK, 8080, None),
        (TCP, UPLINK, 5353, None),
        (1, UPLINK, 8080, None),
        // Loopback, where the user asked for it.
        (TCP, "127.0.0.1", 8080, None),
        (TCP, "127.0.0.1", 8081, Some(81)),
        (TCP, "127.255.0.9", 8081, Some(81)),
        (TCP, "0.0.0.0", 8080, None),
        (TCP, "0.0.0.0", 8081, Some(81)),
        // The guest is another family's.
        (TCP, "2001:db8::2", 8080, None),
        (TCP, "::1", 8081, None),
    ];
    for (protocol, address, port, guest_port) in cases {
        let asked = at(address, port);
        let expected = guest_port.map_or(asked, |port| at(GUEST, port));
        assert_eq!(connected(&mut MockSocket::new(protocol), asked), expected, "connect to {asked:?}");
        assert_eq!(sent(&mut MockSocket::new(protocol), asked), expected, "send to {asked:?}");
    }
}

#[test]
fn calls_of_other_namespaces_are_left_alone() {
    let mut socket = MockSocket { is_here: false, ..MockSocket::new(TCP) };
    assert_eq!(connected(&mut socket, at(UPLINK, 8080)), at(UPLINK, 8080));
    assert_eq!(sent(&mut socket, at(UPLINK, 8080)), at(UPLINK, 8080));
    assert_eq!(socket.kept, None);
    let mut led = MockSocket::new(TCP);
    connected(&mut led, at(UPLINK, 8080));
    led.is_here = false;
    assert_eq!(shown(&mut led, at(GUEST, 80)), at(GUEST, 80));
}

#[test]
fn a_socket_bound_to_loopback_is_left_alone() {
    let mut socket = MockSocket { local_address: at("127.0.0.1", 0).address, ..MockSocket::new(TCP) };
    for asked in [at(UPLINK, 8080), at("127.0.0.1", 8081)] {
        assert_eq!(connected(&mut socket, asked), asked);
    }
    socket.local_address = at(UPLINK, 0).address;
    assert_eq!(connected(&mut socket, at(UPLINK, 8080)), at(GUEST, 80));
}

#[test]
fn the_caller_is_shown_what_was_asked_for() {
    for (asked, expected) in
        [(UPLINK, UPLINK), (GATEWAY, GATEWAY), ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")]
    {
        let mut socket = MockSocket::new(TCP);
        let guest = connected(&mut socket, at(asked, 8081));
        assert_eq!(guest, at(GUEST, 81));
        assert_eq!(shown(&mut socket, guest), at(expected, 8081));
        // Whom it was not led to.
        for other in [at(GUEST, 80), at("10.77.0.12", 81), at("203.0.113.1", 81)] {
            assert_eq!(shown(&mut socket, other), other);
        }
    }
    assert_eq!(shown(&mut MockSocket::new(TCP), at(GUEST, 81)), at(GUEST, 81));
}

#[test]
fn a_socket_that_asks_for_the_guest_itself_is_shown_the_guest() {
    for ask in [connected, sent] {
        let mut socket = MockSocket::new(UDP);
        let guest = ask(&mut socket, at(UPLINK, 5353));
        assert_eq!(shown(&mut socket, guest), at(UPLINK, 5353));
        assert_eq!(ask(&mut socket, guest), guest);
        assert_eq!(shown(&mut socket, guest), guest);
    }
}

#[test]
fn a_connected_socket_that_sends_to_its_peer_keeps_what_it_asked_for() {
    let mut socket = MockSocket::new(UDP);
    let guest = connected(&mut socket, at(UPLINK, 5353));
    socket.is_connected = true;
    assert_eq!(sent(&mut socket, guest), guest);
    assert_eq!(shown(&mut socket, guest), at(UPLINK, 5353));
}

#[test]
fn a_socket_is_led_to_the_guest_without_memory_too() {
    let mut socket = MockSocket { no_memory: true, ..MockSocket::new(TCP) };
    assert_eq!(connected(&mut socket, at(UPLINK, 8080)), at(GUEST, 80));
    assert_eq!(shown(&mut socket, at(GUEST, 80)), at(GUEST, 80));
}

#[test]
fn a_deleted_forward_leads_nowhere() {
    let tables = tables();
    tables.remove_forward(&ForwardKey::new(Ip::UNSPECIFIED, Be16::new(8080), TCP));
    let mut socket = MockSocket::new(TCP);
    socket.peer = at(UPLINK, 8080);
    connect(&mut socket, &tables);
    assert_eq!(socket.peer, at(UPLINK, 8080));
}
