//! Bindings: which external port a guest gets, and what is left when it gets none.

use std::{collections::HashSet, net::SocketAddrV4, rc::Rc};

use vnet_common::{
    Be16, DropReason, Word,
    config::{NetworkId, OUTSIDE},
    nat::{BindingEntry, BindingKey, DEAD},
    stats::EventCount,
    vport::VportId,
};
use vnet_ebpf::tables::Tables as _;

use crate::{
    frames::{L4, Packet, SYN},
    packets::{KEPT, answer, at, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

const UDP: u8 = 17;

/// The external port (or identifier) that a packet left with.
pub fn external_port(fate: &Fate) -> u16 {
    let Fate::Sent(_, bytes) = fate else { panic!("not sent: {fate:?}") };
    let at = if bytes[23] == 1 { 38 } else { 34 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn key(address: std::net::Ipv4Addr, port: u16, network: NetworkId, protocol: u8) -> BindingKey {
    BindingKey { address: address.into(), port: Be16::new(port), network, vlan: 0, protocol, pad: 0 }
}

fn internal(world: &World, guest: VportId, port: u16, protocol: u8) -> Option<Rc<BindingEntry>> {
    world.tables.bindings().get(&key(ip(guest), port, network_of(guest), protocol))
}

fn to(guest: VportId, port: u16, dst: SocketAddrV4) -> Packet {
    outgoing(guest, L4::Udp, port, dst)
}

fn range(world: &World, first: u16, last: u16) {
    for network in [NAT, OTHER_NAT] {
        world.change_network(network, |entry| (entry.nat.first_port, entry.nat.last_port) = (first, last));
    }
}

fn nothing_left(world: &World) {
    assert!(world.tables.flows().is_empty(), "flows: {:#?}", world.tables());
    assert!(world.tables.bindings().is_empty(), "bindings: {:#?}", world.tables());
}

#[test]
fn both_sides_of_a_binding_name_each_other() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let inside = internal(&world, GUEST1, KEPT, UDP).unwrap();
    assert_eq!((inside.address, inside.port.get(), inside.network), (EXTERNAL.into(), KEPT, OUTSIDE));
    assert_eq!((inside.connections.load(), inside.last_used.load()), (1, START));
    let outside = world.tables.bindings().get(&key(EXTERNAL, KEPT, OUTSIDE, UDP)).unwrap();
    assert_eq!((outside.address, outside.port.get(), outside.network), (ip(GUEST1).into(), KEPT, NAT));
}

#[test]
fn one_inside_port_keeps_one_outside_port_whatever_it_talks_to() {
    for port in [KEPT, 1000, 1] {
        let world = World::new();
        let first = external_port(&world.tc(GUEST1, to(GUEST1, port, server()).bytes()));
        for dst in [at(SERVER2, 80), at(SERVER, 81), at(SERVER, 80)] {
            assert_eq!(external_port(&world.tc(GUEST1, to(GUEST1, port, dst).bytes())), first, "{port} to {dst}");
        }
        assert_eq!(internal(&world, GUEST1, port, UDP).unwrap().connections.load(), 3);
        assert_eq!((world.tables.flows().len(), world.tables.bindings().len()), (6, 2));
        // Each destination's answer comes back to it.
        for dst in [at(SERVER2, 80), at(SERVER, 81)] {
            let reply = answer(&on_the_wire(to(GUEST1, port, dst), first));
            let expected = to_guest(reply.clone(), GUEST1, port);
            assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(GUEST1, expected.bytes()));
        }
    }
}

#[test]
fn identifiers_of_echo_requests_are_mapped_as_ports_are() {
    let world = World::new();
    let first = external_port(&world.tc(GUEST1, ping(GUEST1, 7).bytes()));
    assert!((SNAT_FIRST..=SNAT_LAST).contains(&first));
    let elsewhere = outgoing(GUEST1, L4::EchoRequest, 7, at(SERVER2, 0));
    assert_eq!(external_port(&world.tc(GUEST1, elsewhere.bytes())), first);
    let reply = answer(&on_the_wire(ping(GUEST1, 7), first));
    assert_eq!(reply.dst.port(), first);
    let expected = to_guest(reply.clone(), GUEST1, 7);
    assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(GUEST1, expected.bytes()));
}

#[test]
fn two_guests_that_want_one_port_get_two() {
    let world = World::new();
    let first = external_port(&world.tc(GUEST1, udp(GUEST1, KEPT).bytes()));
    let second = external_port(&world.tc(GUEST2, udp(GUEST2, KEPT).bytes()));
    let third = external_port(&world.tc(OTHER_GUEST, udp(OTHER_GUEST, KEPT).bytes()));
    assert_eq!(first, KEPT);
    assert_eq!(HashSet::from([first, second, third]).len(), 3, "{first} {second} {third}");
    for (guest, port) in [(GUEST1, first), (GUEST2, second), (OTHER_GUEST, third)] {
        assert!((SNAT_FIRST..=SNAT_LAST).contains(&port));
        let reply = answer(&on_the_wire(udp(guest, KEPT), port));
        let expected = to_guest(reply.clone(), guest, KEPT);
        assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(guest, expected.bytes()));
    }
}

#[test]
fn protocols_do_not_share_ports() {
    let world = World::new();
    for packet in [udp(GUEST1, KEPT), syn(GUEST2, KEPT), ping(GUEST3, KEPT)] {
        let guest = u32::from(packet.src.ip().octets()[3]);
        assert_eq!(external_port(&world.tc(guest, packet.bytes())), KEPT);
    }
}

#[test]
fn a_port_outside_the_range_is_not_kept() {
    for port in [SNAT_FIRST - 1, SNAT_LAST + 1, 1, u16::MAX] {
        let external = external_port(&World::new().tc(GUEST1, udp(GUEST1, port).bytes()));
        assert!((SNAT_FIRST..=SNAT_LAST).contains(&external), "{port}: {external}");
    }
    for port in [SNAT_FIRST, SNAT_LAST] {
        assert_eq!(external_port(&World::new().tc(GUEST1, udp(GUEST1, port).bytes())), port);
    }
}

#[test]
fn a_range_of_one_port_serves_one_inside_port_and_all_its_destinations() {
    let world = World::new();
    range(&world, 777, 777);
    for dst in [server(), at(SERVER2, 80), at(SERVER, 9)] {
        assert_eq!(external_port(&world.tc(GUEST1, to(GUEST1, 1000, dst).bytes())), 777);
    }
    for (guest, port) in [(GUEST1, 1001), (GUEST2, 1000), (OTHER_GUEST, 777)] {
        let before = world.tables();
        assert_eq!(world.tc(guest, udp(guest, port).bytes()), Fate::Dropped(DropReason::PortsExhausted));
        assert_eq!(world.tables(), before, "nothing of it is left");
    }
    assert_eq!(external_port(&world.tc(GUEST2, syn(GUEST2, 1000).bytes())), 777, "another protocol");
}

#[test]
fn every_port_of_a_range_is_given_before_they_are_exhausted() {
    for (first, last) in [(777, 777), (1, 2), (60_000, 60_099), (65_436, 65_535)] {
        let world = World::new();
        range(&world, first, last);
        let mut given = HashSet::new();
        for port in 0..=last - first {
            let fate = world.tc(GUEST1, udp(GUEST1, 1000 + port).bytes());
            given.insert(external_port(&fate));
        }
        assert_eq!(given, (first..=last).collect(), "{first}-{last}");
        assert_eq!(world.tc(GUEST1, udp(GUEST1, 999).bytes()), Fate::Dropped(DropReason::PortsExhausted));
        assert_eq!(world.stats(GUEST1).drops[DropReason::PortsExhausted as usize], 1);
    }
}

#[test]
fn a_table_without_room_refuses_and_keeps_nothing_wherever_it_happens() {
    type Refuse = fn(&World);
    let positions: [(&str, Refuse); 4] = [
        ("external side", |world| world.tables.bindings().refuse_insert_after(0)),
        ("internal side", |world| world.tables.bindings().refuse_insert_after(1)),
        ("reply direction", |world| world.tables.flows().refuse_insert_after(0)),
        ("original direction", |world| world.tables.flows().refuse_insert_after(1)),
    ];
    for (name, refuse) in positions {
        for packet in [udp(GUEST1, KEPT), syn(GUEST1, 1000), ping(GUEST1, 7)] {
            let world = World::new();
            refuse(&world);
            assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Dropped(DropReason::TableFull), "{name}");
            assert!(world.tables.flows().is_empty(), "{name}");
            // A binding that stood for a moment may linger, with no user, until it expires.
            for (key, entry) in world.tables.bindings().entries() {
                assert_eq!(entry.connections.load(), 0, "{name}: {key:?}");
            }
            world.wait(10);
            world.sweep_bindings();
            nothing_left(&world);
            assert_eq!(world.event(EventCount::ConnectionsCreated), 0, "{name}");
            assert!(matches!(world.tc(GUEST1, packet.bytes()), Fate::Sent(..)), "{name}: the next one finds room");
        }
    }
}

#[test]
fn a_second_connection_without_room_leaves_the_first_alone() {
    for after in [0, 1] {
        let world = World::new();
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        let before = world.tables();
        world.tables.flows().refuse_insert_after(after);
        let second = to(GUEST1, KEPT, at(SERVER2, 53));
        assert_eq!(world.tc(GUEST1, second.bytes()), Fate::Dropped(DropReason::TableFull));
        assert_eq!(world.tables(), before, "one user of the binding, two flows");
    }
}

#[test]
fn tables_of_any_size_hold_whole_connections_only() {
    for capacity in 0..8 {
        let world = World::new();
        world.tables.flows().set_capacity(capacity);
        for port in 0..5 {
            world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(SYN), KEPT + port, server()).bytes());
        }
        assert_eq!(world.tables.flows().len(), capacity / 2 * 2, "flows, room for {capacity}");
        let world = World::new();
        world.tables.bindings().set_capacity(capacity);
        for port in 0..5 {
            world.tc(GUEST1, udp(GUEST1, KEPT + port).bytes());
        }
        assert_eq!(world.tables.bindings().len(), capacity / 2 * 2, "bindings, room for {capacity}");
        assert_eq!(world.tables.flows().len(), capacity / 2 * 2);
    }
}

#[test]
fn a_binding_that_is_ending_is_joined_by_nobody() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let binding = internal(&world, GUEST1, KEPT, UDP).unwrap();
    binding.connections.store(DEAD);
    let second = to(GUEST1, KEPT, at(SERVER2, 53));
    assert_eq!(world.tc(GUEST1, second.bytes()), Fate::Dropped(DropReason::BindingEnding));
    assert_eq!(world.tables.flows().len(), 2, "the first connection's");
}

#[test]
fn a_binding_of_an_old_external_address_is_joined_by_nobody() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.change_vport(UPLINK, |vport| vport.external = SECOND_ADDRESS.into());
    let before = world.tables();
    let second = to(GUEST1, KEPT, at(SERVER2, 53));
    assert_eq!(world.tc(GUEST1, second.bytes()), Fate::Dropped(DropReason::BindingEnding));
    assert_eq!(world.tables(), before);
    // Another inside port gets the new address at once, the old flow keeps the old one.
    let fresh = udp(GUEST1, KEPT + 1);
    let sent = on_the_wire(fresh.clone(), KEPT + 1).src(at(SECOND_ADDRESS, KEPT + 1));
    assert_eq!(world.tc(GUEST1, fresh.bytes()), Fate::Sent(UPLINK, sent.bytes()));
    let old = udp(GUEST1, KEPT);
    assert_eq!(world.tc(GUEST1, old.bytes()), Fate::Sent(UPLINK, on_the_wire(old, KEPT).bytes()));
}

#[test]
fn a_reply_half_that_stands_already_is_no_second_user() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    // The original half was taken away: what is left is a half that expiry has not seen yet.
    let (original, _) = world.tables.flows().entries().into_iter().find(|(_, entry)| entry.direction == 0).unwrap();
    world.tables.flows().delete(&original);
    let fate = world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    assert_eq!(fate, Fate::Sent(UPLINK, on_the_wire(udp(GUEST1, KEPT), KEPT).bytes()), "the packet goes out");
    assert_eq!(internal(&world, GUEST1, KEPT, UDP).unwrap().connections.load(), 1, "no user more");
    assert_eq!(world.event(EventCount::ConnectionRaces), 1);
}

#[test]
fn an_external_port_whose_owner_is_not_known_inside_is_not_given_away() {
    let world = World::new();
    range(&world, KEPT, KEPT);
    let owner = BindingEntry {
        address: ip(GUEST2).into(),
        port: Be16::new(9),
        network: NAT,
        vlan: 0,
        pad: [0; 2],
        connections: Word::new(0),
        last_used: Word::new(START),
    };
    world.tables.bindings().put(key(EXTERNAL, KEPT, OUTSIDE, UDP), owner);
    assert_eq!(world.tc(GUEST1, udp(GUEST1, KEPT).bytes()), Fate::Dropped(DropReason::PortsExhausted));
    assert_eq!(world.tables.bindings().len(), 1);
}
