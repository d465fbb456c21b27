//! Quotas: what one guest may use, and that all of it is given back, whatever fails (RFC 6888 REQ-4).

use vnet_common::{
    DropReason,
    config::{Filtering, NatPolicy, NetworkId, Timeouts},
    names::expiry::Mode,
    vport::VportId,
};
use vnet_ebpf::{
    datapath::expire::{expire_binding, expire_connection},
    tables::Tables as _,
};

use crate::{
    frames::{L4, Packet, SYN},
    packets::{KEPT, at, incoming, outgoing, server, syn, udp},
    world::*,
};

/// Where forwards listen.
const LISTEN: u16 = 8080;

fn policy(world: &World, network: NetworkId, change: impl FnOnce(&mut NatPolicy)) {
    world.change_network(network, |entry| change(&mut entry.nat));
}

fn to_port(guest: VportId, port: u16) -> Packet {
    outgoing(guest, L4::Udp, KEPT, at(SERVER, port))
}

/// Connections and external ports that the guest is accounted for.
fn used(world: &World, guest: VportId) -> (u32, u32) {
    let used = world.tables.guest_use(guest);
    (used.connections.load(), used.bindings.load())
}

fn is_sent(fate: &Fate) -> bool {
    matches!(fate, Fate::Sent(..))
}

fn ends_everything(world: &World) {
    world.flush_connections();
    world.wait(Timeouts::RFC.cool_down);
    world.sweep_bindings();
    assert_eq!(world.check_empty(), Ok(()));
}

#[test]
fn a_guest_has_as_many_connections_as_its_quota_and_others_theirs() {
    let world = World::new();
    policy(&world, NAT, |nat| nat.guest_connections = 3);
    for port in 1..=3 {
        assert!(is_sent(&world.tc(GUEST1, to_port(GUEST1, port).bytes())), "{port}");
    }
    for packet in [to_port(GUEST1, 4), udp(GUEST1, 9), syn(GUEST1, 9)] {
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Dropped(DropReason::GuestConnections));
    }
    assert!(is_sent(&world.tc(GUEST1, to_port(GUEST1, 2).bytes())), "those that stand go on");
    assert!(is_sent(&world.tc(GUEST2, to_port(GUEST2, 4).bytes())), "another guest");
    assert_eq!((used(&world, GUEST1), used(&world, GUEST2), world.check()), ((3, 1), (1, 1), Ok(())));
    // One ends, and makes room for one.
    expire_connection(&world.tables, 1, Mode::Force, world.now());
    assert!(is_sent(&world.tc(GUEST1, to_port(GUEST1, 5).bytes())));
    assert_eq!(world.tc(GUEST1, to_port(GUEST1, 6).bytes()), Fate::Dropped(DropReason::GuestConnections));
    ends_everything(&world);
}

#[test]
fn a_guest_holds_as_many_ports_as_its_quota() {
    let world = World::new();
    policy(&world, NAT, |nat| nat.guest_bindings = 2);
    for port in [KEPT, KEPT + 1] {
        assert!(is_sent(&world.tc(GUEST1, udp(GUEST1, port).bytes())));
    }
    assert_eq!(world.tc(GUEST1, udp(GUEST1, KEPT + 2).bytes()), Fate::Dropped(DropReason::GuestPorts));
    assert_eq!(world.tc(GUEST1, syn(GUEST1, KEPT).bytes()), Fate::Dropped(DropReason::GuestPorts), "of all protocols");
    assert!(is_sent(&world.tc(GUEST1, to_port(GUEST1, 99).bytes())), "a port that it holds serves others");
    assert_eq!((used(&world, GUEST1), world.check()), ((3, 2), Ok(())));
    // A port that cools down is still held.
    world.flush_connections();
    assert_eq!(world.tc(GUEST1, udp(GUEST1, KEPT + 2).bytes()), Fate::Dropped(DropReason::GuestPorts));
    for (index, _) in world.tables.bindings().entries() {
        assert!(expire_binding(&world.tables, index, Mode::Spare, world.now()));
    }
    assert_eq!((used(&world, GUEST1), world.check_empty()), ((0, 0), Ok(())));
    assert!(is_sent(&world.tc(GUEST1, udp(GUEST1, KEPT + 2).bytes())));
}

#[test]
fn a_guest_opens_as_many_connections_in_a_second_as_its_quota() {
    let world = World::new();
    policy(&world, NAT, |nat| nat.guest_new_per_second = 2);
    for second in 0..3 {
        for number in 0..5 {
            let fate = world.tc(GUEST1, to_port(GUEST1, 1000 + 10 * second + number).bytes());
            let expected = number < 2;
            assert_eq!(is_sent(&fate), expected, "second {second}, connection {number}");
            assert!(expected || fate == Fate::Dropped(DropReason::GuestRate));
        }
        assert!(is_sent(&world.tc(GUEST1, to_port(GUEST1, 1000).bytes())), "those that stand go on");
        assert!(is_sent(&world.tc(GUEST2, to_port(GUEST2, 1000 + second).bytes())), "another guest");
        world.wait(1);
    }
    assert_eq!((used(&world, GUEST1), world.check()), ((6, 1), Ok(())));
    ends_everything(&world);
}

#[test]
fn a_forwards_connections_count_for_its_guest_and_a_hairpins_for_who_opens_it() {
    let open = |number: u16| incoming(L4::Udp, at(SERVER, number), at(EXTERNAL, LISTEN)).bytes();
    let world = World::new();
    world.forward(17, (None, LISTEN), (GUEST1, 80));
    policy(&world, NAT, |nat| nat.guest_connections = 2);
    for number in 1..=2 {
        assert!(is_sent(&world.tc(UPLINK, open(number))));
    }
    assert_eq!(world.tc(UPLINK, open(3)), Fate::Dropped(DropReason::GuestConnections));
    assert_eq!(used(&world, GUEST1), (2, 0));
    let hairpin = |port| outgoing(GUEST2, L4::Udp, port, at(EXTERNAL, LISTEN)).bytes();
    for port in [KEPT, KEPT + 1] {
        assert!(is_sent(&world.tc(GUEST2, hairpin(port))));
    }
    assert_eq!(world.tc(GUEST2, hairpin(KEPT + 2)), Fate::Dropped(DropReason::GuestConnections));
    assert_eq!((used(&world, GUEST2), world.check()), ((2, 2), Ok(())));
    ends_everything(&world);
}

#[test]
fn a_hairpin_into_another_network_counts_against_the_openers_own_quota() {
    let world = World::new();
    world.forward(17, (None, LISTEN), (GUEST1, 80));
    let hairpin = |port| outgoing(OTHER_GUEST, L4::Udp, port, at(EXTERNAL, LISTEN)).bytes();
    policy(&world, OTHER_NAT, |nat| nat.guest_connections = 1);
    assert!(is_sent(&world.tc(OTHER_GUEST, hairpin(KEPT))));
    assert_eq!(world.tc(OTHER_GUEST, hairpin(KEPT + 1)), Fate::Dropped(DropReason::GuestConnections));
    policy(&world, OTHER_NAT, |nat| nat.guest_connections = 0);
    policy(&world, NAT, |nat| nat.guest_connections = 1);
    assert!(is_sent(&world.tc(OTHER_GUEST, hairpin(KEPT + 1))), "not against its target's");
    ends_everything(&world);
}

/// Ways in which a connection begins: who sends what.
fn beginnings() -> Vec<(&'static str, VportId, Packet)> {
    vec![
        ("out", GUEST2, udp(GUEST2, KEPT + 5)),
        ("out by tcp", GUEST2, outgoing(GUEST2, L4::Tcp(SYN), 1000, server())),
        ("through a forward", UPLINK, incoming(L4::Udp, at(SERVER, 7), at(EXTERNAL, LISTEN))),
        ("to a held port", UPLINK, incoming(L4::Udp, at(SERVER2, 7), at(EXTERNAL, KEPT))),
        ("to a sibling's forward", GUEST2, outgoing(GUEST2, L4::Udp, 7, at(EXTERNAL, LISTEN))),
        ("to a sibling's port", GUEST2, outgoing(GUEST2, L4::Udp, 7, at(EXTERNAL, KEPT))),
        ("to its own forward", GUEST1, outgoing(GUEST1, L4::Udp, 7, at(EXTERNAL, LISTEN))),
    ]
}

/// A guest holds [`KEPT`], and anybody may send to it.
fn prepared() -> World {
    let world = World::new();
    world.forward(17, (None, LISTEN), (GUEST1, 80));
    policy(&world, NAT, |nat| nat.filtering = Filtering::EndpointIndependent as u8);
    assert!(is_sent(&world.tc(GUEST1, udp(GUEST1, KEPT).bytes())));
    world
}

fn uses_the_rate_up(world: &World) {
    policy(world, NAT, |nat| nat.guest_new_per_second = 1);
    for guest in [GUEST1, GUEST2] {
        let used = world.tables.guest_use(guest);
        used.second.store(world.now());
        used.begun.store(1);
    }
}

#[test]
fn whatever_fails_on_the_way_is_given_back() {
    type Fault = (&'static str, fn(&World), DropReason);
    let faults: [Fault; 8] = [
        ("no binding", |world| world.tables.bindings().refuse_insert_after(0), DropReason::TableFull),
        ("no connection", |world| world.tables.connections().refuse_insert_after(0), DropReason::TableFull),
        (
            "no port",
            |world| policy(world, NAT, |nat| (nat.first_port, nat.last_port) = (KEPT, KEPT)),
            DropReason::PortsExhausted,
        ),
        ("connections", |world| policy(world, NAT, |nat| nat.guest_connections = 1), DropReason::GuestConnections),
        ("ports", |world| policy(world, NAT, |nat| nat.guest_bindings = 1), DropReason::GuestPorts),
        ("rate", uses_the_rate_up, DropReason::GuestRate),
        (
            "mtu",
            |world| [UPLINK, GUEST1].into_iter().for_each(|vport| world.change_vport(vport, |entry| entry.mtu = 30)),
            DropReason::OverMtu,
        ),
        (
            "route",
            |world| world.kernel.set_route(ip(GUEST1).into(), 128, vnet_ebpf::context::Route::None),
            DropReason::NoRoute,
        ),
    ];
    for (fault, cause, reason) in faults {
        let mut failed = 0;
        for (name, from, packet) in beginnings() {
            let world = prepared();
            // What counts for the rate and the connections is counted: one each.
            for guest in [GUEST1, GUEST2] {
                assert!(is_sent(&world.tc(guest, outgoing(guest, L4::Udp, 77, at(SERVER2, 9)).bytes())));
            }
            let before = (used(&world, GUEST1).0, used(&world, GUEST2).0, world.tables.connections().len());
            cause(&world);
            let fate = world.tc(from, packet.bytes());
            if fate == Fate::Dropped(reason) {
                failed += 1;
                let after = (used(&world, GUEST1).0, used(&world, GUEST2).0, world.tables.connections().len());
                assert_eq!(after, before, "{name}, {fault}");
            } else {
                assert!(is_sent(&fate), "{name}, {fault}: {fate:?}");
            }
            assert_eq!(world.check(), Ok(()), "{name}, {fault}");
            ends_everything(&world);
            assert_eq!((used(&world, GUEST1), used(&world, GUEST2)), ((0, 0), (0, 0)), "{name}, {fault}");
        }
        assert!(failed > 0, "{fault} makes something fail");
    }
}

#[test]
fn every_beginning_is_given_back_when_it_ends() {
    for (name, from, packet) in beginnings() {
        let world = prepared();
        assert!(is_sent(&world.tc(from, packet.bytes())), "{name}");
        assert_eq!((world.tables.connections().len(), world.check()), (2, Ok(())), "{name}");
        ends_everything(&world);
    }
}

#[test]
fn packets_that_collide_use_nothing_up() {
    // Two forwards to one port of a guest: to it, the second one's connections look like the first one's.
    let world = World::new();
    world.forward(17, (None, LISTEN), (GUEST1, 80));
    world.forward(17, (None, LISTEN + 1), (GUEST1, 80));
    let from_client = |port| incoming(L4::Udp, at(SERVER, 7), at(EXTERNAL, port)).bytes();
    assert!(is_sent(&world.tc(UPLINK, from_client(LISTEN))));
    for _ in 0..5000 {
        assert_eq!(world.tc(UPLINK, from_client(LISTEN + 1)), Fate::Dropped(DropReason::TupleTaken));
    }
    assert!(world.tables.connections().waiting().is_empty(), "no record was spent on them");
    assert!(is_sent(&world.tc(GUEST2, udp(GUEST2, KEPT).bytes())), "there is room for others");
    assert_eq!(world.check(), Ok(()));
}
