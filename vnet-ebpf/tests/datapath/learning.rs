//! Learning: where a source address lives, and how that changes.

use std::rc::Rc;

use vnet_common::{
    Mac,
    fdb::{FdbEntry, FdbKind},
    stats::EventCount,
    vport::VportId,
};
use vnet_ebpf::tables::Tables as _;

use crate::{frames::ethernet, packets::udp, world::*};

const NEW: Mac = Mac([2, 0, 0, 0, 0x55, 0x55]);

fn says_something(world: &World, vport: VportId, src: Mac) -> Fate {
    world.tc(vport, ethernet(Mac::BROADCAST, src, 0x88b5, &[0; 46]))
}

fn entry(world: &World, network: u16, mac: Mac) -> Rc<FdbEntry> {
    world.fdb(network, 0, mac).expect("an entry")
}

fn generation(world: &World, network: u16) -> u32 {
    world.tables.network(network).unwrap().generation.load()
}

#[test]
fn an_unknown_source_is_learned_and_reached_from_then_on() {
    let world = World::new();
    says_something(&world, GUEST1, NEW);
    let learned = entry(&world, NAT, NEW);
    assert_eq!((learned.vport(), learned.last_seen.load(), learned.moves.load()), (GUEST1, START, 0));
    assert_eq!(learned.kind, FdbKind::Learned as u32);
    let answer = ethernet(NEW, mac(GUEST2), 0x88b5, &[0; 46]);
    assert_eq!(world.tc(GUEST2, answer.clone()), Fate::Sent(GUEST1, answer));
    assert_eq!(generation(&world, NAT), GENERATION, "nothing moved");
}

#[test]
fn the_wire_of_a_bridge_is_learned_from_as_well() {
    let world = World::new();
    says_something(&world, BRIDGE_UPLINK, NEW);
    assert_eq!(entry(&world, BRIDGE, NEW).vport(), BRIDGE_UPLINK);
}

#[test]
fn what_the_host_sends_is_not_learned_from() {
    let world = World::new();
    let frame = ethernet(Mac::BROADCAST, NEW, 0x88b5, &[0; 46]);
    world.run::<true>(Hook::GatewayEgress, GATEWAY, &frame.clone().into());
    world.run::<true>(Hook::UplinkEgress, BRIDGE_UPLINK, &frame.into());
    assert!(world.fdb(NAT, 0, NEW).is_none());
    assert!(world.fdb(BRIDGE, 0, NEW).is_none());
}

#[test]
fn a_time_stamp_is_written_when_the_second_has_changed() {
    let world = World::new();
    world.wait(5);
    says_something(&world, GUEST1, mac(GUEST1));
    assert_eq!(entry(&world, NAT, mac(GUEST1)).last_seen.load(), START + 5);
    // XDP may write it, too, and nothing else.
    world.wait(2);
    world.xdp(GUEST1, udp(GUEST1, 9).link(mac(GUEST2), mac(GUEST1)).bytes());
    assert_eq!(entry(&world, NAT, mac(GUEST1)).last_seen.load(), START + 7);
}

#[test]
fn a_move_takes_effect_at_once_and_is_counted() {
    let world = World::new();
    for (number, vport) in [GUEST2, GUEST1, GUEST3].into_iter().enumerate() {
        let moves = u32::try_from(number).unwrap() + 1;
        says_something(&world, vport, mac(GUEST1));
        let moved = entry(&world, NAT, mac(GUEST1));
        assert_eq!((moved.vport(), moved.moves.load()), (vport, moves));
        assert_eq!(generation(&world, NAT), GENERATION + moves, "paths towards it are stale");
    }
    assert_eq!(generation(&world, OTHER_NAT), GENERATION, "another network does not care");
    let frame = ethernet(mac(GUEST1), mac(GUEST2), 0x88b5, &[0; 46]);
    assert_eq!(world.tc(GUEST2, frame.clone()), Fate::Sent(GUEST3, frame));
}

#[test]
fn static_and_local_entries_never_move() {
    for kind in [FdbKind::Static, FdbKind::Local] {
        let world = World::new();
        world.learn(GUEST2, NEW, kind);
        world.wait(3);
        says_something(&world, GUEST1, NEW);
        let kept = entry(&world, NAT, NEW);
        assert_eq!((kept.vport(), kept.moves.load(), kept.kind), (GUEST2, 0, kind as u32));
        assert_eq!(generation(&world, NAT), GENERATION);
    }
}

#[test]
fn the_nics_own_address_on_the_wire_does_not_move_the_host() {
    let world = World::new();
    says_something(&world, BRIDGE_GUEST1, mac(BRIDGE_UPLINK));
    let kept = entry(&world, BRIDGE, mac(BRIDGE_UPLINK));
    assert_eq!((kept.vport(), kept.kind), (BRIDGE_UPLINK, FdbKind::Local as u32));
}

#[test]
fn a_full_table_costs_a_flood_and_a_count() {
    let world = World::new();
    world.tables.fdb().set_capacity(world.tables.fdb().len());
    let fate = says_something(&world, GUEST1, NEW);
    assert_eq!(fate, Fate::Flooded(vec![GATEWAY, GUEST2, GUEST3]));
    assert!(world.fdb(NAT, 0, NEW).is_none());
    assert_eq!(world.event(EventCount::FdbFull), 1);
    // Addresses that stand are not evicted, and still refreshed.
    world.wait(1);
    says_something(&world, GUEST1, mac(GUEST1));
    assert_eq!(entry(&world, NAT, mac(GUEST1)).last_seen.load(), START + 1);
    assert_eq!(world.event(EventCount::FdbFull), 1);
}

#[test]
fn another_cpu_that_learns_the_same_does_no_harm() {
    let world = World::new();
    let other = world.other_cpu();
    // Between the look-up and the insert.
    world.tables.interrupt_after(1, move || drop(says_something(&other, GUEST1, NEW)));
    says_something(&world, GUEST1, NEW);
    assert_eq!(entry(&world, NAT, NEW).vport(), GUEST1);
    assert_eq!(world.event(EventCount::FdbFull), 0);
}

#[test]
fn xdp_leaves_everything_new_to_tc() {
    let unknown = udp(GUEST1, 9).link(mac(GUEST2), NEW).bytes();
    let moved = udp(GUEST3, 9).link(mac(GUEST2), mac(GUEST1)).bytes();
    for (name, from, frame) in [("new", GUEST1, unknown), ("moved", GUEST3, moved)] {
        let world = World::new();
        let before = world.tables();
        assert_eq!(world.xdp(from, frame), Fate::PassUp, "{name}");
        assert_eq!(world.tables(), before, "{name}");
    }
}
