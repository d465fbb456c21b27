//! Fragments: ports borrowed from the first one, in any order; caps, conflicts, expiry (RFC 4787 REQ-14).

use std::net::Ipv4Addr;

use vnet_common::{
    DropReason,
    fragment::{HELD_PER_DATAGRAM, MAX_FRAGMENTED, MAX_HELD, OUTSIDE_TIMEOUT},
    names::expiry::Mode,
};
use vnet_ebpf::{datapath::expire, tables::Tables as _};

use crate::{
    frames::{L4, Packet},
    packets::{KEPT, answer, at, incoming, on_the_wire, server, to_guest, udp},
    world::*,
};

/// The first fragment of a guest's datagram.
fn first() -> Packet {
    udp(GUEST1, KEPT).payload(&[1; 16]).fragment(0, true)
}

/// One behind it.
fn later(offset: u16, more: bool) -> Packet {
    Packet { l4: L4::Other(17), ..first() }.payload(&[2; 24]).fragment(offset, more)
}

fn keeps_nothing(world: &World) {
    assert!(world.tables.held().is_empty(), "a fragment is kept");
    for vport in [GUEST1, UPLINK] {
        assert_eq!(world.tables.guest_use(vport).held.load(), 0, "held for {vport}");
        let known = world.tables.fragments().entries();
        let own = known.iter().filter(|(_, entry)| entry.from_vport == vport).count();
        assert_eq!(world.tables.guest_use(vport).fragments.load() as usize, own, "datagrams of {vport}");
    }
}

#[test]
fn fragments_in_order_are_translated_both_ways() {
    let world = World::new();
    // One of them comes twice.
    for packet in [first(), later(3, true), later(3, true), later(6, false)] {
        let leaves = on_the_wire(packet.clone(), KEPT);
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, leaves.bytes()));
    }
    let back = answer(&on_the_wire(first(), KEPT)).fragment(0, true);
    for packet in [back.clone(), Packet { l4: L4::Other(17), ..back }.fragment(3, false)] {
        let arrives = to_guest(packet.clone(), GUEST1, KEPT);
        assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()));
    }
    assert_eq!(world.tables.connections().len(), 1);
    keeps_nothing(&world);
}

#[test]
fn fragments_before_the_first_wait_and_go_round_behind_it() {
    let world = World::new();
    let early = [later(6, false), later(3, true)];
    for packet in &early {
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Kept(Vec::new()));
    }
    assert_eq!(world.tables.guest_use(GUEST1).held.load(), 2);
    let round: Vec<_> = [&first()].into_iter().chain(&early).map(Packet::bytes).collect();
    assert_eq!(world.tc(GUEST1, first().bytes()), Fate::Kept(round.clone()));
    keeps_nothing(&world);
    assert_eq!(world.stats(GUEST1).rx_frames, 0, "they count when they come again");
    for (frame, packet) in round.into_iter().zip([first(), later(6, false), later(3, true)]) {
        assert_eq!(world.tc(GUEST1, frame), Fate::Sent(UPLINK, on_the_wire(packet, KEPT).bytes()));
    }
    assert_eq!(world.stats(GUEST1).rx_frames, 3);
}

#[test]
fn a_second_first_fragment_with_other_ports_is_dropped() {
    let world = World::new();
    assert_eq!(world.tc(GUEST1, first().bytes()), Fate::Sent(UPLINK, on_the_wire(first(), KEPT).bytes()));
    assert_eq!(world.tc(GUEST1, first().bytes()), Fate::Sent(UPLINK, on_the_wire(first(), KEPT).bytes()), "the same");
    let forged = first().src(at(ip(GUEST1), KEPT + 1));
    assert_eq!(world.tc(GUEST1, forged.bytes()), Fate::Dropped(DropReason::FragmentConflict));
    // Its number may be used again when its time is over.
    world.wait(OUTSIDE_TIMEOUT);
    assert_eq!(world.tc(GUEST1, forged.bytes()), Fate::Sent(UPLINK, on_the_wire(forged, KEPT + 1).bytes()));
    keeps_nothing(&world);
}

#[test]
fn a_datagram_of_which_all_has_come_is_forgotten_at_once() {
    let world = World::new();
    for turn in 0..MAX_FRAGMENTED * 2 {
        // Whatever the order behind the first.
        let [second, third] =
            if turn % 2 == 0 { [later(3, true), later(6, false)] } else { [later(6, false), later(3, true)] };
        for packet in [first(), second, third] {
            assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, on_the_wire(packet, KEPT).bytes()));
        }
        assert_eq!(world.tables.fragments().len(), 0, "turn {turn}");
    }
    keeps_nothing(&world);
}

#[test]
fn datagrams_that_never_become_whole_are_bounded_by_port() {
    let world = World::new();
    let flood = |number: u32| first().dst(at(Ipv4Addr::from(0xcb00_0000 + number), 53));
    for number in 0..MAX_FRAGMENTED {
        assert!(matches!(world.tc(GUEST1, flood(number).bytes()), Fate::Sent(UPLINK, _)), "{number}");
    }
    let refused = world.tc(GUEST1, flood(MAX_FRAGMENTED).bytes());
    assert_eq!(refused, Fate::Dropped(DropReason::FragmentTableFull));
    let whole = udp(GUEST1, KEPT);
    assert!(matches!(world.tc(GUEST1, whole.bytes()), Fate::Sent(UPLINK, _)), "what is whole needs no place");
    let neighbour = first().src(at(ip(GUEST2), KEPT + 1)).link(mac(GATEWAY), mac(GUEST2));
    assert!(matches!(world.tc(GUEST2, neighbour.bytes()), Fate::Sent(UPLINK, _)), "another has its own share");
    keeps_nothing(&world);
}

#[test]
fn what_waits_is_bounded_by_datagram_and_by_port() {
    let world = World::new();
    for _ in 0..HELD_PER_DATAGRAM {
        assert_eq!(world.tc(GUEST1, later(3, true).bytes()), Fate::Kept(Vec::new()));
    }
    let full = Fate::Dropped(DropReason::FragmentTableFull);
    assert_eq!(world.tc(GUEST1, later(3, true).bytes()), full, "of one datagram");
    for number in HELD_PER_DATAGRAM..MAX_HELD {
        let packet = later(3, true).dst(at(Ipv4Addr::new(203, 0, 113, number as u8), 53));
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Kept(Vec::new()), "{number}");
    }
    let another = later(3, true).dst(at(Ipv4Addr::new(203, 0, 113, 254), 53));
    assert_eq!(world.tc(GUEST1, another.bytes()), full, "of one guest");
    let neighbour = another.src(at(ip(GUEST2), KEPT)).link(mac(GATEWAY), mac(GUEST2));
    assert_eq!(world.tc(GUEST2, neighbour.bytes()), Fate::Kept(Vec::new()), "another has its own share");
}

#[test]
fn what_waited_too_long_is_dropped_and_counted_and_a_datagrams_ports_are_forgotten() {
    let world = World::new();
    world.tc(GUEST1, later(3, true).bytes());
    let other = first().dst(at(Ipv4Addr::new(203, 0, 113, 9), 53));
    world.tc(GUEST1, other.bytes());
    let sweep = |world: &World| {
        for (key, _) in world.tables.held().entries() {
            expire::expire_held(&world.tables, &key, Mode::Expired, world.now());
        }
        for (key, _) in world.tables.fragments().entries() {
            expire::expire_fragment(&world.tables, &key, Mode::Expired, world.now());
        }
        (world.tables.held().len(), world.tables.fragments().len())
    };
    world.wait(29);
    assert_eq!(sweep(&world), (1, 1), "too early");
    world.wait(1);
    assert_eq!(sweep(&world), (0, 0));
    let counted = world.stats(GUEST1).drops[DropReason::FragmentWithoutFirst as usize];
    assert_eq!(counted, 1);
    keeps_nothing(&world);
}

#[test]
fn the_hosts_own_fragments_go_up_and_early_ones_once_the_first_says_whose_they_are() {
    let world = World::new();
    let own = incoming(L4::Udp, server(), at(EXTERNAL, 777)).fragment(0, true);
    let rest = Packet { l4: L4::Other(17), ..own.clone() }.fragment(5, false);
    assert_eq!(world.tc(UPLINK, rest.bytes()), Fate::Kept(Vec::new()));
    assert_eq!(world.tc(UPLINK, own.bytes()), Fate::Kept(vec![own.bytes(), rest.bytes()]));
    for packet in [&own, &rest] {
        assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::ToHost);
    }
    keeps_nothing(&world);
}
