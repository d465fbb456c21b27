//! Paths: decided once, decided again when something has changed, while the translation stays.

use vnet_common::{DropReason, Mac, config::GENERATION_STEP, fdb::FdbKind, flow::PATH_LIFETIME, stats::EventCount};
use vnet_ebpf::{context::Route, tables::Tables as _};

use crate::{
    frames::{L4, Packet, ethernet},
    packets::{KEPT, answer, at, incoming, on_the_wire, to_guest, udp},
    world::*,
};

const NEW_ROUTER: Mac = Mac([2, 0, 0, 0, 0xff, 2]);
/// Seconds until the paths of the world's only connection are looked up again; not all take turns at once.
fn until_looked_up_again(world: &World) -> u32 {
    let (index, _) = world.tables.connections().entries()[0];
    PATH_LIFETIME - (world.now() + index) % PATH_LIFETIME
}

/// A guest's connection, replied to; and what each direction looks like.
struct Connection {
    out: Packet,
    sent: Packet,
    reply: Packet,
    received: Packet,
}

fn connect(world: &World) -> Connection {
    let out = udp(GUEST1, KEPT);
    let sent = on_the_wire(out.clone(), KEPT);
    let reply = answer(&sent);
    let received = to_guest(reply.clone(), GUEST1, KEPT);
    world.tc(GUEST1, out.bytes());
    world.tc(UPLINK, reply.bytes());
    world.reset_counters();
    world.kernel.queries.borrow_mut().clear();
    Connection { out, sent, reply, received }
}

impl Connection {
    fn out(&self, world: &World) -> Fate {
        world.tc(GUEST1, self.out.bytes())
    }

    fn back(&self, world: &World) -> Fate {
        world.tc(UPLINK, self.reply.bytes())
    }

    fn is_accelerated(&self, world: &World) -> [bool; 2] {
        let probe = world.copy();
        let out = probe.xdp(GUEST1, self.out.bytes());
        [out, probe.xdp(UPLINK, self.reply.bytes())].map(|fate| matches!(fate, Fate::Sent(..)))
    }
}

fn bump(world: &World) {
    world.tables.network(NAT).unwrap().generation.add(GENERATION_STEP);
}

fn new_router(world: &World, route: Route) {
    world.kernel.set_route(std::net::Ipv4Addr::UNSPECIFIED.into(), 96, route);
}

#[test]
fn a_new_generation_has_the_path_decided_again_and_the_translation_stay() {
    let world = World::new();
    let connection = connect(&world);
    assert_eq!(connection.is_accelerated(&world), [true, true]);
    new_router(&world, Route::Via { ifindex: ifindex(UPLINK), src_mac: UPLINK_MAC, dst_mac: NEW_ROUTER });
    assert_eq!(connection.out(&world), Fate::Sent(UPLINK, connection.sent.bytes()), "nobody has said so yet");
    bump(&world);
    assert_eq!(connection.is_accelerated(&world), [false, false], "XDP has no routes");
    let by_new_router = connection.sent.clone().link(NEW_ROUTER, UPLINK_MAC);
    assert_eq!(connection.out(&world), Fate::Sent(UPLINK, by_new_router.bytes()));
    assert_eq!(connection.back(&world), Fate::Sent(GUEST1, connection.received.bytes()));
    assert_eq!(world.event(EventCount::PathDecidedAgain), 2);
    assert_eq!(connection.out(&world), Fate::Sent(UPLINK, by_new_router.bytes()));
    assert_eq!(world.event(EventCount::PathDecidedAgain), 2, "once");
    assert_eq!(connection.is_accelerated(&world), [true, true]);
    assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (1, 1));
}

#[test]
fn a_path_is_decided_again_now_and_then_without_anybody_saying_so() {
    let world = World::new();
    let connection = connect(&world);
    world.wait(until_looked_up_again(&world) - 1);
    connection.out(&world);
    assert_eq!(world.event(EventCount::PathDecidedAgain), 0);
    world.wait(1);
    assert_eq!(connection.is_accelerated(&world), [false, false]);
    assert_eq!(connection.out(&world), Fate::Sent(UPLINK, connection.sent.bytes()));
    assert_eq!(connection.back(&world), Fate::Sent(GUEST1, connection.received.bytes()));
    assert_eq!(world.event(EventCount::PathDecidedAgain), 2);
    assert_eq!(world.kernel.queries.borrow().len(), 2);
}

#[test]
fn a_guest_that_moves_takes_its_connections_along() {
    let world = World::new();
    let connection = connect(&world);
    let hello = ethernet(Mac::BROADCAST, mac(GUEST1), 0x88b5, &[0; 46]);
    world.tc(GUEST3, hello);
    let moved = connection.received.clone().bytes();
    assert_eq!(connection.back(&world), Fate::Sent(GUEST3, moved));
    assert_eq!(world.tc(GUEST3, connection.out.bytes()), Fate::Sent(UPLINK, connection.sent.bytes()));
}

#[test]
fn a_way_that_is_not_known_is_left_to_the_kernel_and_not_kept() {
    let world = World::new();
    let connection = connect(&world);
    new_router(&world, Route::Unresolved { ifindex: ifindex(UPLINK), next_hop: SILENT_ROUTER.into() });
    bump(&world);
    let unaddressed = connection.sent.clone().link(connection.out.dst_mac, connection.out.src_mac).bytes();
    for _ in 0..2 {
        assert_eq!(connection.out(&world), Fate::Resolved(UPLINK, SILENT_ROUTER, unaddressed.clone()));
    }
    assert_eq!(world.event(EventCount::PathDecidedAgain), 2);
    new_router(&world, Route::Via { ifindex: ifindex(UPLINK), src_mac: UPLINK_MAC, dst_mac: NEW_ROUTER });
    let resolved = connection.sent.clone().link(NEW_ROUTER, UPLINK_MAC).bytes();
    assert_eq!(connection.out(&world), Fate::Sent(UPLINK, resolved));
}

#[test]
fn a_way_that_leads_elsewhere_is_refused_and_the_connection_waits() {
    let world = World::new();
    let connection = connect(&world);
    new_router(&world, Route::Via { ifindex: ifindex(OTHER_UPLINK), src_mac: UPLINK_MAC, dst_mac: NEW_ROUTER });
    bump(&world);
    assert_eq!(connection.out(&world), Fate::Dropped(DropReason::NotAnUplink));
    new_router(&world, Route::None);
    assert_eq!(connection.out(&world), Fate::Dropped(DropReason::NoRoute));
    assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (1, 1));
}

#[test]
fn a_device_that_vanishes_is_the_reason_until_it_is_back() {
    let world = World::new();
    let connection = connect(&world);
    world.change_vport(GUEST1, |vport| vport.ifindex = 0);
    assert_eq!(connection.back(&world), Fate::Dropped(DropReason::PortAbsent));
    assert_eq!(world.xdp(UPLINK, connection.reply.bytes()), Fate::PassUp);
    world.change_vport(GUEST1, |vport| vport.ifindex = ifindex(GUEST1));
    assert_eq!(connection.back(&world), Fate::Sent(GUEST1, connection.received.bytes()));
    world.change_vport(UPLINK, |vport| vport.ifindex = 0);
    assert_eq!(connection.out(&world), Fate::Dropped(DropReason::PortAbsent));
}

#[test]
fn an_over_long_reply_is_dropped_by_the_mtu_of_the_guests_device() {
    let world = World::new();
    let connection = connect(&world);
    world.change_vport(GUEST1, |vport| vport.mtu = 1400);
    let long = connection.reply.clone().length(1401);
    assert_eq!(world.xdp(UPLINK, long.bytes()), Fate::PassUp, "it might be a GSO frame");
    assert_eq!(world.tc(UPLINK, long.bytes()), Fate::Dropped(DropReason::OverMtu));
    let fits = connection.reply.clone().length(1400);
    assert_eq!(world.tc(UPLINK, fits.bytes()), Fate::Sent(GUEST1, to_guest(fits, GUEST1, KEPT).bytes()));
}

#[test]
fn a_stopped_network_stops_its_connections() {
    let world = World::new();
    let connection = connect(&world);
    // As the daemon leaves the slot: zeroed.
    world.change_network(NAT, |network| {
        (network.mode, network.gateway_vport, network.uplinks) = (0, 0, [0; 4]);
        network.generation.store(0);
    });
    assert_eq!(connection.out(&world), Fate::Dropped(DropReason::NoNetwork));
    assert!(matches!(connection.back(&world), Fate::Dropped(_)));
}

#[test]
fn the_way_back_of_a_forward_is_decided_by_its_first_answer() {
    let world = World::new();
    world.forward(17, (None, 8080), (GUEST1, 80));
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    world.tc(UPLINK, packet.bytes());
    let reply = answer(&to_guest(packet, GUEST1, 80));
    assert_eq!(world.xdp(GUEST1, reply.bytes()), Fate::PassUp);
    world.tc(GUEST1, reply.bytes());
    assert_eq!(world.event(EventCount::PathDecidedAgain), 1);
    assert!(matches!(world.xdp(GUEST1, reply.bytes()), Fate::Sent(UPLINK, _)));
}

#[test]
fn a_forwards_guest_that_moves_is_followed() {
    let world = World::new();
    world.forward(17, (None, 8080), (GUEST1, 80));
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    let received = to_guest(packet.clone(), GUEST1, 80).bytes();
    assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST1, received.clone()));
    world.learn(GUEST2, mac(GUEST1), FdbKind::Learned);
    bump(&world);
    assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST2, received));
}
