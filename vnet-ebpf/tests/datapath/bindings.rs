//! Bindings: which external port a guest gets, and what is left when it gets none.

use std::{collections::HashSet, net::SocketAddrV4, rc::Rc};

use vnet_common::{
    Be16, DropReason, Ip,
    config::Timeouts,
    nat::{Binding, BindingKey, DEAD},
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

/// Raw, as records hold it.
fn raw(address: std::net::Ipv4Addr) -> u32 {
    Ip::from(address).v4_raw()
}

/// The binding of an inside port under the uplink's own address.
fn internal(world: &World, guest: VportId, port: u16, protocol: u8) -> Option<Rc<Binding>> {
    let inside = BindingKey {
        external: raw(EXTERNAL),
        network: network_of(guest),
        ..BindingKey::external(raw(ip(guest)), Be16::new(port), protocol)
    };
    world.tables.bindings().get(&inside)
}

fn to(guest: VportId, port: u16, dst: SocketAddrV4) -> Packet {
    outgoing(guest, L4::Udp, port, dst)
}

fn range(world: &World, first: u16, last: u16) {
    for network in [NAT, OTHER_NAT] {
        world.change_network(network, |entry| (entry.nat.first_port, entry.nat.last_port) = (first, last));
    }
}

#[test]
fn a_binding_is_found_by_either_side() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let inside = internal(&world, GUEST1, KEPT, UDP).unwrap();
    assert_eq!((inside.external, inside.external_port.get()), (raw(EXTERNAL), KEPT));
    assert_eq!((inside.internal, inside.internal_port.get(), inside.network), (raw(ip(GUEST1)), KEPT, NAT));
    assert_eq!((inside.connections.load(), inside.last_used.load()), (1, START));
    let outside = world.tables.bindings().get(&BindingKey::external(raw(EXTERNAL), Be16::new(KEPT), UDP)).unwrap();
    assert!(Rc::ptr_eq(&inside, &outside), "one record");
    assert_eq!(world.tables.guest_use(GUEST1).bindings.load(), 1);
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
        assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (3, 1));
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
    let positions: [(&str, Refuse); 2] = [
        ("bindings", |world| world.tables.bindings().refuse_insert_after(0)),
        ("connections", |world| world.tables.connections().refuse_insert_after(0)),
    ];
    for (name, refuse) in positions {
        for packet in [udp(GUEST1, KEPT), syn(GUEST1, 1000), ping(GUEST1, 7)] {
            let world = World::new();
            refuse(&world);
            assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Dropped(DropReason::TableFull), "{name}");
            assert!(world.tables.connections().is_empty(), "{name}");
            assert_eq!(world.tables.guest_use(GUEST1).connections.load(), 0, "{name}");
            // A binding that stood for a moment may linger, with no user, until it expires.
            assert_eq!(world.check(), Ok(()), "{name}");
            world.wait(Timeouts::RFC.cool_down);
            world.sweep_bindings();
            assert_eq!(world.check_empty(), Ok(()), "{name}");
            assert_eq!(world.event(EventCount::ConnectionsCreated), 0, "{name}");
            assert!(matches!(world.tc(GUEST1, packet.bytes()), Fate::Sent(..)), "{name}: the next one finds room");
        }
    }
}

#[test]
fn a_second_connection_without_room_leaves_the_first_alone() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.tables.connections().refuse_insert_after(0);
    let second = to(GUEST1, KEPT, at(SERVER2, 53));
    assert_eq!(world.tc(GUEST1, second.bytes()), Fate::Dropped(DropReason::TableFull));
    assert_eq!(world.tables.connections().len(), 1);
    assert_eq!(world.check(), Ok(()), "one user of the binding");
}

#[test]
fn tables_of_any_size_hold_whole_connections_only() {
    for capacity in 0..8 {
        let world = World::new();
        world.tables.connections().set_capacity(capacity);
        for port in 0..5 {
            world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(SYN), KEPT + port, server()).bytes());
        }
        assert_eq!(world.tables.connections().len(), capacity.min(5), "connections, room for {capacity}");
        assert_eq!(world.check(), Ok(()));
        let world = World::new();
        world.tables.bindings().set_capacity(capacity);
        for port in 0..5 {
            world.tc(GUEST1, udp(GUEST1, KEPT + port).bytes());
        }
        assert_eq!(world.tables.bindings().len(), capacity.min(5), "bindings, room for {capacity}");
        assert_eq!(world.tables.connections().len(), capacity.min(5));
        assert_eq!(world.check(), Ok(()));
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
    assert_eq!(world.tables.connections().len(), 1, "the first one");
    let used = world.tables.guest_use(GUEST1);
    assert_eq!((used.connections.load(), used.bindings.load()), (1, 1));
}

#[test]
fn new_connections_show_a_new_external_address_at_once_and_old_ones_keep_theirs() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.change_vport(UPLINK, |vport| vport.external = SECOND_ADDRESS.into());
    // The same inside port, too: it has a binding for each address.
    for fresh in [to(GUEST1, KEPT, at(SERVER2, 53)), udp(GUEST1, KEPT + 1)] {
        let sent = on_the_wire(fresh.clone(), fresh.src.port()).src(at(SECOND_ADDRESS, fresh.src.port()));
        assert_eq!(world.tc(GUEST1, fresh.bytes()), Fate::Sent(UPLINK, sent.bytes()));
    }
    assert_eq!(world.tables.bindings().len(), 3);
    assert_eq!(world.check(), Ok(()));
    let old = udp(GUEST1, KEPT);
    assert_eq!(world.tc(GUEST1, old.bytes()), Fate::Sent(UPLINK, on_the_wire(old, KEPT).bytes()));
}
