//! Hairpin: from a guest to an outside address of ours, and back to a guest (RFC 4787 REQ-9, RFC 5382 REQ-8).

use vnet_common::{
    DropReason,
    config::{Filtering, Timeouts},
    stats::EventCount,
    vport::VportId,
};
use vnet_ebpf::tables::Tables as _;

use crate::{
    case::{self, Case},
    frames::{ACK, L4, Packet, SYN},
    packets::{KEPT, answer, at, on_the_wire, outgoing, to_guest, udp},
    world::*,
};

/// Where forwards listen.
const LISTEN: u16 = 8080;

fn forwarded(world: &World) {
    for protocol in [6, 17] {
        world.forward(protocol, (None, LISTEN), (GUEST1, 80));
    }
}

/// From a guest to the forward.
fn asked(guest: VportId, l4: L4) -> Packet {
    outgoing(guest, l4, KEPT, at(EXTERNAL, LISTEN))
}

/// As it reaches the guest behind an outside port: from an outside address, too.
fn received(packet: &Packet, from: u16, guest: VportId, port: u16) -> Packet {
    to_guest(packet.clone().src(at(EXTERNAL, from)), guest, port)
}

/// A reply of `from` that came to `to` by the outside address and port that had been asked.
fn replied(reply: &Packet, asked: &Packet, to: VportId) -> Packet {
    to_guest(reply.clone().src(asked.dst), to, asked.src.port())
}

#[test]
fn a_guest_reaches_a_siblings_forward_and_its_own_and_both_see_outside_addresses() {
    for l4 in [L4::Udp, L4::Tcp(SYN)] {
        for guest in [GUEST1, GUEST2, GUEST3] {
            let world = World::new();
            forwarded(&world);
            let packet = asked(guest, l4);
            let arrives = received(&packet, KEPT, GUEST1, 80);
            assert_eq!(world.tc(guest, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()), "{l4:?} of {guest}");
            let reply = answer(&arrives);
            let returns = replied(&reply, &packet, guest);
            assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(guest, returns.bytes()), "{l4:?} to {guest}");
            assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (1, 1));
            assert_eq!(world.check(), Ok(()));
            let (_, connection) = world.tables.connections().entries().remove(0);
            assert_eq!(u32::from(connection.guest_vport), guest, "it counts for who opened it");
            world.flush_connections();
            world.wait(Timeouts::RFC.cool_down);
            world.sweep_bindings();
            assert_eq!(world.check_empty(), Ok(()));
        }
    }
}

#[test]
fn an_established_hairpin_is_accelerated_both_ways() {
    let packet = asked(GUEST2, L4::Udp);
    let arrives = received(&packet, KEPT, GUEST1, 80);
    let reply = answer(&arrives);
    let returns = replied(&reply, &packet, GUEST2);
    let case = |name: &str, from, packet: &Packet, fate| {
        Case::new(name, from, packet.bytes(), fate)
            .given(forwarded)
            .after(GUEST2, asked(GUEST2, L4::Udp).bytes())
            .accelerated()
    };
    case::run(vec![
        case("there", GUEST2, &packet, Fate::Sent(GUEST1, arrives.bytes())).after(GUEST1, reply.bytes()),
        case("back", GUEST1, &reply, Fate::Sent(GUEST2, returns.bytes())).after(GUEST1, reply.bytes()),
    ]);
}

#[test]
fn a_hairpin_and_a_call_to_the_outside_share_the_external_port() {
    let world = World::new();
    forwarded(&world);
    let out = udp(GUEST2, KEPT);
    assert_eq!(world.tc(GUEST2, out.bytes()), Fate::Sent(UPLINK, on_the_wire(out, KEPT).bytes()));
    let packet = asked(GUEST2, L4::Udp);
    assert_eq!(world.tc(GUEST2, packet.bytes()), Fate::Sent(GUEST1, received(&packet, KEPT, GUEST1, 80).bytes()));
    assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (2, 1));
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn a_guest_reaches_a_port_that_a_sibling_holds_where_the_filter_admits_it() {
    for (filtering, is_admitted) in
        [(Filtering::EndpointIndependent, true), (Filtering::Address, false), (Filtering::AddressAndPort, false)]
    {
        let world = World::new();
        world.change_network(NAT, |network| network.nat.filtering = filtering as u8);
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        let packet = outgoing(GUEST2, L4::Udp, KEPT + 1, at(EXTERNAL, KEPT));
        let arrives = received(&packet, KEPT + 1, GUEST1, KEPT);
        let fate = world.tc(GUEST2, packet.bytes());
        if is_admitted {
            assert_eq!(fate, Fate::Sent(GUEST1, arrives.bytes()));
            let reply = answer(&arrives);
            let returns = replied(&reply, &packet, GUEST2);
            assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(GUEST2, returns.bytes()));
            // Both bindings have one user more.
            let users = world.tables.bindings().entries().into_iter().map(|(_, entry)| entry.connections.load());
            assert_eq!(users.collect::<Vec<_>>(), [2, 1]);
        } else {
            assert_eq!(fate, Fate::Dropped(DropReason::Filtered), "{filtering:?}");
            assert_eq!(world.tables.connections().len(), 1);
        }
        assert_eq!(world.check(), Ok(()), "{filtering:?}");
        world.flush_connections();
        world.wait(Timeouts::RFC.cool_down);
        world.sweep_bindings();
        assert_eq!(world.check_empty(), Ok(()), "{filtering:?}");
    }
}

#[test]
fn a_sibling_is_admitted_once_the_guest_has_sent_to_its_outside_address() {
    let world = World::new();
    forwarded(&world);
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let call = outgoing(GUEST2, L4::Udp, KEPT + 1, at(EXTERNAL, KEPT));
    assert_eq!(world.tc(GUEST2, call.bytes()), Fate::Dropped(DropReason::Filtered));
    // The forward's address is the sibling's outside address, too.
    let own = outgoing(GUEST1, L4::Udp, KEPT, at(EXTERNAL, LISTEN));
    assert!(matches!(world.tc(GUEST1, own.bytes()), Fate::Sent(GUEST1, _)));
    assert!(matches!(world.tc(GUEST2, call.bytes()), Fate::Sent(GUEST1, _)));
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn a_guest_reaches_a_port_that_it_holds_itself() {
    let world = World::new();
    world.change_network(NAT, |network| network.nat.filtering = Filtering::EndpointIndependent as u8);
    world.tc(GUEST3, udp(GUEST3, KEPT).bytes());
    let packet = outgoing(GUEST3, L4::Udp, KEPT + 1, at(EXTERNAL, KEPT));
    let arrives = received(&packet, KEPT + 1, GUEST3, KEPT);
    assert_eq!(world.tc(GUEST3, packet.bytes()), Fate::Sent(GUEST3, arrives.bytes()));
    // From that very port: both directions would look alike.
    let itself = outgoing(GUEST3, L4::Udp, KEPT, at(EXTERNAL, KEPT));
    assert_eq!(world.tc(GUEST3, itself.bytes()), Fate::Dropped(DropReason::TupleTaken));
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn guests_of_other_networks_reach_forwards_by_their_outside_addresses() {
    let world = World::new();
    forwarded(&world);
    world.forward(17, (None, LISTEN + 1), (ROUTED_GUEST1, 80));
    let packet = asked(OTHER_GUEST, L4::Udp);
    let arrives = received(&packet, KEPT, GUEST1, 80);
    // The network's own uplink shows the address, of two the one that was asked.
    assert_eq!(world.tc(OTHER_GUEST, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()));
    let reply = answer(&arrives);
    assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(OTHER_GUEST, replied(&reply, &packet, OTHER_GUEST).bytes()));
    // Into a routed network as well.
    let packet = outgoing(GUEST2, L4::Udp, KEPT, at(EXTERNAL, LISTEN + 1));
    let arrives = packet.clone().src(at(EXTERNAL, KEPT + 2)).dst(at(ip(ROUTED_GUEST1), 80));
    let Fate::Sent(ROUTED_GUEST1, bytes) = world.tc(GUEST2, packet.bytes()) else { panic!("not sent") };
    assert_eq!(bytes[26..34], arrives.bytes()[26..34], "addresses");
    // A routed guest needs no translation towards another network.
    let packet = outgoing(ROUTED_GUEST2, L4::Udp, KEPT, at(EXTERNAL, LISTEN));
    let arrives = to_guest(packet.clone(), GUEST1, 80);
    assert_eq!(world.tc(ROUTED_GUEST2, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()));
    let reply = answer(&arrives);
    assert_eq!(
        world.tc(GUEST1, reply.bytes()),
        Fate::Sent(ROUTED_GUEST2, replied(&reply, &packet, ROUTED_GUEST2).bytes())
    );
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn the_gateways_own_services_are_not_taken_by_a_forward_on_any_address() {
    let packet = |address| outgoing(GUEST2, L4::Udp, KEPT, at(address, LISTEN));
    let own = packet(ip(GATEWAY));
    let by_address = received(&own, KEPT, GUEST1, 80).src(at(EXTERNAL, KEPT)).bytes();
    let other = packet(SECOND_ADDRESS);
    let by_other = received(&other, KEPT, GUEST1, 80).bytes();
    let segment = asked(GUEST2, L4::Tcp(ACK));
    case::run(vec![
        Case::new("any address", GUEST2, own.bytes(), Fate::Delivered(GATEWAY, own.bytes())).given(forwarded),
        Case::new("the gateway's address itself", GUEST2, own.bytes(), Fate::Sent(GUEST1, by_address))
            .given(|world| world.forward(17, (Some(ip(GATEWAY)), LISTEN), (GUEST1, 80)))
            .counts(EventCount::ConnectionsCreated),
        Case::new("another address of the host", GUEST2, other.bytes(), Fate::Sent(GUEST1, by_other))
            .given(forwarded)
            .counts(EventCount::ConnectionsCreated),
        Case::new("a segment in the middle", GUEST2, segment.bytes(), Fate::Delivered(GATEWAY, segment.bytes()))
            .given(forwarded),
        Case::dropped("the last hop", GUEST2, asked(GUEST2, L4::Udp).ttl(1).bytes(), DropReason::TtlExceeded)
            .given(forwarded),
    ]);
}

#[test]
fn networks_that_do_not_reach_the_outside_reach_no_forward() {
    let packet = outgoing(HOST_ONLY_GUEST, L4::Udp, KEPT, at(EXTERNAL, LISTEN)).bytes();
    case::run(vec![
        Case::new("host-only", HOST_ONLY_GUEST, packet.clone(), Fate::Delivered(HOST_ONLY_GATEWAY, packet))
            .given(forwarded),
    ]);
}

#[test]
fn an_address_of_the_pool_leads_to_who_holds_its_port() {
    let pool = at("203.0.115.10".parse().unwrap(), KEPT);
    let world = World::new();
    world.change_network(NAT, |network| {
        (network.nat.first_address, network.nat.last_address) = ((*pool.ip()).into(), (*pool.ip()).into());
        network.nat.filtering = Filtering::EndpointIndependent as u8;
    });
    world.tables.add_external((*pool.ip()).into(), NAT);
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let packet = outgoing(GUEST2, L4::Udp, KEPT + 1, pool);
    let arrives = to_guest(packet.clone().src(at(*pool.ip(), KEPT + 1)), GUEST1, KEPT);
    assert_eq!(world.tc(GUEST2, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()));
    let reply = answer(&arrives);
    assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(GUEST2, replied(&reply, &packet, GUEST2).bytes()));
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn a_routed_guest_is_given_no_outside_port_for_a_forward_of_its_own_network() {
    let world = World::new();
    // As the daemon has it: a routed network translates nothing.
    world.change_network(ROUTED, |network| (network.nat.first_port, network.nat.last_port) = (0, 0));
    world.forward(17, (None, LISTEN), (ROUTED_GUEST1, 80));
    let packet = outgoing(ROUTED_GUEST2, L4::Udp, KEPT, at(EXTERNAL, LISTEN));
    let bytes = packet.bytes();
    assert_eq!(world.tc(ROUTED_GUEST2, bytes.clone()), Fate::Delivered(ROUTED_GATEWAY, bytes), "the host's to refuse");
    assert!(world.tables.connections().is_empty() && world.tables.bindings().is_empty());
    assert_eq!(world.check(), Ok(()));
}
