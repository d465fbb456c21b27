//! Port allocation: which port is given, until none is left, and when one is given again.

use std::collections::HashSet;

use vnet_common::{
    DropReason,
    config::{Mapping, Timeouts},
    names::expiry::Mode,
    vport::VportId,
};
use vnet_ebpf::{datapath::expire::expire_binding, tables::Tables as _};

use crate::{
    bindings::external_port,
    frames::L4,
    packets::{KEPT, at, on_the_wire, outgoing, ping, server, syn, udp},
    world::*,
};

const COOL_DOWN: u32 = Timeouts::RFC.cool_down;

fn range(world: &World, first: u16, last: u16) {
    for network in [NAT, OTHER_NAT] {
        world.change_network(network, |entry| (entry.nat.first_port, entry.nat.last_port) = (first, last));
    }
}

fn send(world: &World, guest: VportId, port: u16) -> Fate {
    world.tc(guest, udp(guest, port).bytes())
}

const EXHAUSTED: Fate = Fate::Dropped(DropReason::PortsExhausted);

#[test]
fn a_port_of_the_guests_parity_is_given_as_long_as_there_is_one() {
    for (first, last) in [(60_000, 60_063), (60_001, 60_064), (60_000, 60_064), (60_001, 60_063)] {
        for wanted in [1000, 1001] {
            let world = World::new();
            range(&world, first, last);
            let parities: Vec<bool> = (first..=last)
                .map(|number| external_port(&send(&world, GUEST1, wanted + 2 * (number - first))) % 2 == wanted % 2)
                .collect();
            assert!(parities.is_sorted_by(|a, b| a >= b), "{first}-{last}, {wanted}: {parities:?}");
            let same = (first..=last).filter(|port| port % 2 == wanted % 2).count();
            assert_eq!(parities.iter().filter(|is_same| **is_same).count(), same, "{first}-{last}, {wanted}");
            assert_eq!(send(&world, GUEST2, wanted), EXHAUSTED);
            assert_eq!(world.check(), Ok(()));
        }
    }
}

#[test]
fn the_guests_own_port_is_kept_unless_it_is_taken() {
    let world = World::new();
    for port in [SNAT_FIRST, KEPT, KEPT + 1, SNAT_LAST] {
        assert_eq!(external_port(&send(&world, GUEST1, port)), port);
        let second = external_port(&send(&world, GUEST2, port));
        assert!(second != port && second % 2 == port % 2, "{port}: {second}");
    }
}

#[test]
fn random_starts_differ() {
    let ports: HashSet<u16> = (0..20)
        .map(|port| {
            let world = World::new();
            // Another number drawn before.
            (0..port).for_each(|other| drop(send(&world, GUEST2, 3000 + other)));
            external_port(&send(&world, GUEST1, 1000))
        })
        .collect();
    assert!(ports.len() > 10, "{ports:?}");
}

#[test]
fn the_last_free_port_of_thousands_is_found() {
    let world = World::new();
    range(&world, 50_000, 53_999);
    for number in 0..4000 {
        assert!(matches!(send(&world, GUEST1, 1000 + number), Fate::Sent(..)), "port {number}");
    }
    assert_eq!(send(&world, GUEST2, 999), EXHAUSTED);
    // One goes, and is found whatever is wanted.
    let entries = world.tables.bindings().entries();
    let (index, freed) = &entries[1234];
    world.flush_connections();
    assert!(expire_binding(&world.tables, *index, Mode::Force, world.now()));
    world.wait(2);
    assert_eq!(external_port(&send(&world, GUEST2, 998)), freed.external_port.get());
    assert_eq!(send(&world, GUEST3, 998), EXHAUSTED);
}

#[test]
fn exhaustion_is_found_out_once_a_second_for_a_guest_and_a_protocol() {
    let world = World::new();
    range(&world, 50_000, 50_099);
    (0..100).for_each(|number| drop(send(&world, GUEST1, 1000 + number)));
    let cost = |guest, port| {
        let begun = world.tables.accesses();
        assert_eq!(send(&world, guest, port), EXHAUSTED);
        world.tables.accesses() - begun
    };
    let searched = cost(GUEST2, 1);
    let repeated = cost(GUEST2, 2);
    assert!(searched > 200 && repeated < 20, "{searched} accesses, then {repeated}");
    assert!(cost(GUEST3, 1) > 200, "another guest");
    world.wait(1);
    assert!(cost(GUEST2, 3) > 200, "another second");
    // Other protocols, and what has a port already, are not held up.
    assert_eq!(external_port(&world.tc(GUEST2, syn(GUEST2, 50_000).bytes())), 50_000);
    assert_eq!(external_port(&world.tc(GUEST2, ping(GUEST2, 50_001).bytes())), 50_001);
    let elsewhere = outgoing(GUEST1, L4::Udp, 1000, at(SERVER2, 53));
    assert!(matches!(world.tc(GUEST1, elsewhere.bytes()), Fate::Sent(..)));
    assert_eq!(world.check(), Ok(()));
    assert_eq!(world.tables.guest_use(GUEST2).bindings.load(), 2);
}

#[test]
fn a_freed_port_cools_down_for_others_and_not_for_its_own_inside() {
    let world = World::new();
    range(&world, 777, 777);
    assert_eq!(external_port(&send(&world, GUEST1, 1000)), 777);
    world.wait(9);
    world.flush_connections();
    for waited in [0, 1, COOL_DOWN - 2] {
        world.wait(waited);
        assert_eq!(world.sweep_bindings(), 0);
        assert_eq!(send(&world, GUEST2, 1000), EXHAUSTED);
        assert_eq!(send(&world, GUEST1, 1001), EXHAUSTED, "another inside port of the same guest");
    }
    let own = world.copy();
    assert_eq!(external_port(&send(&own, GUEST1, 1000)), 777, "at once");
    own.wait(1);
    assert_eq!((own.sweep_bindings(), send(&own, GUEST2, 1)), (0, EXHAUSTED), "it has a user again");
    world.wait(1);
    assert_eq!(world.sweep_bindings(), 1);
    assert_eq!(external_port(&send(&world, GUEST2, 1000)), 777);
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn a_cool_down_of_another_length_is_kept_too() {
    let world = World::new();
    world.change_network(NAT, |network| network.timeouts.cool_down = 7);
    send(&world, GUEST1, 1000);
    world.flush_connections();
    world.wait(6);
    assert_eq!(world.sweep_bindings(), 0);
    world.wait(1);
    assert_eq!((world.sweep_bindings(), world.check_empty()), (1, Ok(())));
}

#[test]
fn a_port_that_cools_down_is_shut_from_outside() {
    let world = World::new();
    send(&world, GUEST1, KEPT);
    let reply = crate::packets::answer(&on_the_wire(udp(GUEST1, KEPT), KEPT)).bytes();
    world.flush_connections();
    assert_eq!(world.tc(UPLINK, reply.clone()), Fate::ToHost);
    assert_eq!(world.tables.connections().len(), 0, "nobody outside keeps the port in use");
    send(&world, GUEST1, KEPT);
    assert!(matches!(world.tc(UPLINK, reply), Fate::Sent(GUEST1, _)));
}

#[test]
fn endpoint_dependent_mapping_gives_each_remote_a_port_of_its_own() {
    let world = World::new();
    world.change_network(NAT, |network| network.nat.mapping = Mapping::EndpointDependent as u8);
    let remotes = [server(), at(SERVER, 81), at(SERVER2, 80), at(SERVER2, 81)];
    let external = |dst| external_port(&world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, dst).bytes()));
    let ports: Vec<u16> = remotes.into_iter().map(external).collect();
    assert_eq!(ports[0], KEPT);
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), remotes.len(), "{ports:?}");
    assert_eq!(remotes.into_iter().map(external).collect::<Vec<_>>(), ports, "each keeps its own");
    assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (4, 4));
    // After the end of a connection its remote gets the same one, too.
    world.flush_connections();
    assert_eq!(remotes.into_iter().map(external).collect::<Vec<_>>(), ports);
    assert_eq!(world.tables.guest_use(GUEST1).bindings.load(), 4);
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn a_guest_keeps_one_address_of_the_pool() {
    let pool = ["203.0.115.10", "203.0.115.12"].map(|address| address.parse::<std::net::Ipv4Addr>().unwrap());
    let world = World::new();
    world.change_network(NAT, |network| {
        (network.nat.first_address, network.nat.last_address) = (pool[0].into(), pool[1].into());
    });
    let shown = |fate: Fate| {
        let Fate::Sent(UPLINK, bytes) = fate else { panic!("{fate:?}") };
        std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[26..30]).unwrap())
    };
    let mut addresses = HashSet::new();
    for guest in [GUEST1, GUEST2, GUEST3] {
        let first = shown(world.tc(guest, udp(guest, KEPT).bytes()));
        assert!(first >= pool[0] && first <= pool[1], "{first}");
        for packet in [udp(guest, 1), syn(guest, KEPT), ping(guest, 3), outgoing(guest, L4::Udp, 9, at(SERVER2, 9))] {
            assert_eq!(shown(world.tc(guest, packet.bytes())), first, "{guest}");
        }
        // Its answers find it, though the address is none of the host's own.
        let reply = crate::packets::incoming(L4::Udp, server(), at(first, KEPT));
        assert!(matches!(world.tc(UPLINK, reply.bytes()), Fate::Sent(to, _) if to == guest));
        addresses.insert(first);
    }
    assert_eq!(addresses.len(), 3, "neighbours do not share one while there are others: each has port {KEPT}");
    assert_eq!(world.check(), Ok(()));
}
