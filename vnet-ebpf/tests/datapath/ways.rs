//! The table of ways out (`PATHS`): shared by connections, used again once nobody refers to them.

use std::collections::HashSet;

use vnet_common::{
    Mac,
    config::GENERATION_STEP,
    flow::{Direction, KeptPath, MAX_PATHS, PATH_LIFETIME, PathEntry, Way},
};
use vnet_ebpf::{context::Route, tables::Tables as _};

use crate::{
    packets::{KEPT, on_the_wire, udp},
    world::*,
};

/// Seconds that a slot stays after somebody decided for it.
const STAYS: u32 = 2 * PATH_LIFETIME;

fn router(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([2, 0, 0, 7, high, low])
}

/// From now on packets leave by this router.
fn by_router(world: &World, number: u16) {
    let route = Route::Via { ifindex: ifindex(UPLINK), src_mac: UPLINK_MAC, dst_mac: router(number) };
    world.kernel.set_route(std::net::Ipv4Addr::UNSPECIFIED.into(), 96, route);
    world.tables.network(NAT).unwrap().generation.add(GENERATION_STEP);
}

fn way(entry: &PathEntry) -> Way {
    let [a, b, c, d] = &entry.way;
    Way::unpack([a.load(), b.load(), c.load(), d.load()])
}

/// The slot that leads to this router.
fn slot_of(world: &World, number: u16) -> Option<u32> {
    let paths = world.tables.paths();
    let mut holding = paths.iter().filter(|(_, entry)| way(entry).dst == router(number)).map(|(slot, _)| *slot);
    let slot = holding.next();
    assert_eq!(holding.next(), None, "one slot for one way");
    slot
}

fn send(world: &World, by: u16) {
    let sent = on_the_wire(udp(GUEST1, KEPT), KEPT).link(router(by), UPLINK_MAC);
    assert_eq!(world.tc(GUEST1, udp(GUEST1, KEPT).bytes()), Fate::Sent(UPLINK, sent.bytes()));
}

/// The slot that the only connection keeps for its original direction.
fn kept(world: &World) -> u32 {
    let (_, connection) = world.tables.connections().entries().remove(0);
    KeptPath::from_word(connection.path(Direction::Original).load()).slot
}

#[test]
fn connections_by_one_way_share_its_slot() {
    let world = World::new();
    for port in 0..100 {
        world.tc(GUEST1, udp(GUEST1, KEPT + port).bytes());
    }
    let ways: HashSet<(u32, Mac)> =
        world.tables.paths().iter().map(|(_, entry)| (way(entry).to_vport, way(entry).dst)).collect();
    assert_eq!(ways, HashSet::from([(UPLINK, ROUTER_MAC), (GUEST1, mac(GUEST1))]));
    assert_eq!(world.tables.paths().len(), 2, "each once");
}

/// Has all slots but one in use for long, and finds a router whose way wants that one.
fn rival_for(world: &World, slot: u32) -> u16 {
    for neighbour in (0..MAX_PATHS).filter(|other| *other != slot) {
        world.tables.path(neighbour).unwrap().used.store(world.now() + 100 * STAYS);
    }
    let probe = world.copy();
    probe.tables.path(slot).unwrap().used.store(0);
    let takes_it = |number: &u16| {
        by_router(&probe, *number);
        send(&probe, *number);
        slot_of(&probe, *number) == Some(slot)
    };
    (2..u16::MAX).find(takes_it).unwrap()
}

#[test]
fn a_slot_is_used_again_once_nobody_decided_for_it_in_a_while() {
    let world = World::new();
    by_router(&world, 1);
    send(&world, 1);
    let slot = slot_of(&world, 1).unwrap();
    let entry = world.tables.path(slot).unwrap();
    let rival = rival_for(&world, slot);
    by_router(&world, rival);
    // As long as somebody may refer to it.
    for waited in [0, 1, PATH_LIFETIME - 1, PATH_LIFETIME] {
        world.wait(waited);
        send(&world, rival);
        assert_eq!((way(&entry).dst, slot_of(&world, rival)), (router(1), None), "after {waited} seconds more");
    }
    world.wait(1);
    send(&world, rival);
    assert_eq!((way(&entry).dst, kept(&world)), (router(rival), slot));
    assert_eq!(entry.used.load(), world.now());
}

#[test]
fn a_way_for_which_there_is_no_slot_is_gone_but_not_kept() {
    let world = World::new();
    for slot in 1..MAX_PATHS {
        world.tables.path(slot).unwrap().used.store(world.now());
    }
    for number in [1, 2, 2] {
        by_router(&world, number);
        let questions = world.kernel.queries.borrow().len();
        send(&world, number);
        send(&world, number);
        assert_eq!(world.kernel.queries.borrow().len(), questions + 2, "asked for each packet");
        assert_eq!(kept(&world), 0);
    }
    assert!(matches!(world.xdp(GUEST1, udp(GUEST1, KEPT).bytes()), Fate::PassUp));
    // Room comes, and it is kept.
    world.tables.path(77).unwrap();
    world.wait(STAYS + 1);
    send(&world, 2);
    assert_ne!(kept(&world), 0);
    assert!(matches!(world.xdp(GUEST1, udp(GUEST1, KEPT).bytes()), Fate::Sent(UPLINK, _)));
}

#[test]
fn a_slot_that_another_cpu_is_writing_is_left_alone() {
    let world = World::new();
    by_router(&world, 1);
    send(&world, 1);
    let slot = slot_of(&world, 1).unwrap();
    let entry = world.tables.path(slot).unwrap();
    entry.used.store(PathEntry::BEING_WRITTEN);
    world.wait(10 * STAYS);
    send(&world, 1);
    assert_eq!(entry.used.load(), PathEntry::BEING_WRITTEN);
    assert_ne!(kept(&world), slot, "another slot of the same way");
}
