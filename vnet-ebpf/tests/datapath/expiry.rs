//! Expiry: what has expired goes, what woke up stays, and nothing is freed under a user.

use vnet_common::{
    config::{OUTSIDE, Timeouts},
    flow::{FlowEntry, FlowKey},
    nat::BindingKey,
    stats::EventCount,
};
use vnet_ebpf::{
    datapath::expire::{expire_binding, expire_flow},
    tables::Tables as _,
};

use crate::{
    case::Act,
    frames::{ACK, FIN, L4, Packet, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

/// Seconds that an unused binding stays.
const LINGER: u32 = 2;

impl World {
    /// Offers every flow for expiry; how many connections went.
    pub fn sweep_flows(&self) -> usize {
        let keys = self.tables.flows().entries();
        keys.iter().filter(|(key, _)| expire_flow(&self.tables, key, false, self.now())).count()
    }

    /// Offers every binding for expiry, by its internal side.
    pub fn sweep_bindings(&self) -> usize {
        let keys = self.tables.bindings().entries().into_iter().filter(|(key, _)| key.network != OUTSIDE);
        keys.filter(|(key, _)| expire_binding(&self.tables, key, false, self.now())).count()
    }

    fn half(&self, direction: u8) -> (FlowKey, std::rc::Rc<FlowEntry>) {
        self.tables.flows().entries().into_iter().find(|(_, entry)| entry.direction == direction).unwrap()
    }

    fn sizes(&self) -> (usize, usize) {
        (self.tables.flows().len(), self.tables.bindings().len())
    }

    /// The internal side of the only binding.
    fn internal(&self) -> BindingKey {
        let entries = self.tables.bindings().entries();
        entries.into_iter().find(|(key, _)| key.network != OUTSIDE).unwrap().0
    }

    fn users(&self) -> u32 {
        self.tables.bindings().get(&self.internal()).unwrap().connections.load()
    }
}

#[test]
fn a_connection_goes_when_both_directions_were_idle_for_its_time() {
    let rfc = Timeouts::RFC;
    let established = |world: &World| {
        world.tc(GUEST1, syn(GUEST1, KEPT).bytes());
        let reply = answer(&on_the_wire(syn(GUEST1, KEPT), KEPT));
        world.tc(UPLINK, reply.bytes());
        world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(ACK), KEPT, server()).bytes());
    };
    let closed = move |world: &World| {
        established(world);
        let fin = L4::Tcp(FIN | ACK);
        world.tc(GUEST1, outgoing(GUEST1, fin, KEPT, server()).bytes());
        world.tc(UPLINK, incoming(fin, server(), at(EXTERNAL, KEPT)).bytes());
    };
    let cases: [(&str, Act, u32); 5] = [
        ("udp", Box::new(|world| drop(world.tc(GUEST1, udp(GUEST1, KEPT).bytes()))), rfc.udp),
        ("echo", Box::new(|world| drop(world.tc(GUEST1, ping(GUEST1, KEPT).bytes()))), rfc.icmp),
        ("opening tcp", Box::new(|world| drop(world.tc(GUEST1, syn(GUEST1, KEPT).bytes()))), rfc.tcp_transitory),
        ("established tcp", Box::new(established), rfc.tcp_established),
        ("closed tcp", Box::new(closed), rfc.tcp_transitory),
    ];
    for (name, open, idle) in cases {
        let world = World::new();
        open(&world);
        world.wait(idle - 1);
        assert_eq!((world.sweep_flows(), world.sizes()), (0, (2, 2)), "{name}: a second before");
        world.wait(1);
        assert_eq!((world.sweep_flows(), world.sizes()), (1, (0, 2)), "{name}: it goes, by one of its keys");
        assert_eq!(world.event(EventCount::ConnectionsExpired), 1, "{name}");
        assert_eq!(world.users(), 0, "{name}");
    }
}

#[test]
fn a_packet_in_either_direction_keeps_a_connection() {
    let reply = answer(&on_the_wire(udp(GUEST1, KEPT), KEPT));
    for (name, from, packet) in [("out", GUEST1, udp(GUEST1, KEPT)), ("back", UPLINK, reply)] {
        let world = World::new();
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        world.wait(299);
        world.tc(from, packet.bytes());
        world.wait(299);
        assert_eq!(world.sweep_flows(), 0, "{name}");
        world.wait(1);
        assert_eq!(world.sweep_flows(), 1, "{name}");
    }
}

#[test]
fn a_stamp_of_another_cpus_later_tick_is_no_idle_time() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (key, entry) = world.half(0);
    entry.last_seen.store(world.now() + 1);
    assert!(!expire_flow(&world.tables, &key, false, world.now()));
    assert!(!expire_binding(&world.tables, &world.internal(), false, world.now().wrapping_sub(1)));
}

#[test]
fn the_clock_may_wrap() {
    let world = World::new();
    world.kernel.now.set(u32::MAX - 100);
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.kernel.now.set(198);
    assert_eq!(world.sweep_flows(), 0, "idle for 299 seconds");
    world.kernel.now.set(199);
    assert_eq!(world.sweep_flows(), 1);
}

#[test]
fn force_ends_a_connection_by_either_key() {
    for direction in [0, 1] {
        let world = World::new();
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        let (key, _) = world.half(direction);
        assert!(expire_flow(&world.tables, &key, true, world.now()));
        assert_eq!((world.sizes(), world.users()), ((0, 2), 0));
        assert!(!expire_flow(&world.tables, &key, true, world.now()), "it is gone");
        assert_eq!(world.users(), 0, "given back once");
    }
}

#[test]
fn a_half_without_its_other_half_goes_and_gives_back_what_it_held() {
    for (missing, users) in [(0, 1), (1, 0)] {
        let world = World::new();
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        let (key, _) = world.half(missing);
        world.tables.flows().delete(&key);
        world.wait(10);
        assert_eq!(world.sweep_flows(), 1, "without {missing}");
        assert_eq!(world.tables.flows().len(), 0);
        // Whoever takes the original half away gives the binding back.
        assert_eq!(world.users(), users, "without {missing}");
    }
}

#[test]
fn a_connection_of_a_forward_holds_no_binding() {
    let world = World::new();
    world.forward(17, (None, 8080), (GUEST1, 80));
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    world.tc(UPLINK, packet.bytes());
    // A binding with the same inside, of another connection.
    world.tc(GUEST1, outgoing(GUEST1, L4::Udp, 80, at(SERVER2, 9)).bytes());
    assert_eq!((world.sizes(), world.users()), ((4, 2), 1));
    for direction in [0, 1] {
        let probe = world.copy();
        let entries = probe.tables.flows().entries();
        let (key, _) = entries.iter().find(|(_, entry)| entry.origin == 2 && entry.direction == direction).unwrap();
        assert!(expire_flow(&probe.tables, key, true, probe.now()));
        assert_eq!((probe.sizes(), probe.users()), ((2, 2), 1));
    }
}

#[test]
fn a_binding_goes_when_nobody_has_used_it_for_a_while() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let binding = world.internal();
    assert!(!expire_binding(&world.tables, &binding, true, world.now() + 9999), "in use: not even by force");
    let (key, _) = world.half(0);
    world.wait(50);
    expire_flow(&world.tables, &key, true, world.now());
    world.wait(LINGER - 1);
    assert_eq!((world.sweep_bindings(), world.tables.bindings().len()), (0, 2), "it lingers");
    world.wait(1);
    assert_eq!((world.sweep_bindings(), world.tables.bindings().len()), (1, 0), "both sides go");
    assert!(!expire_binding(&world.tables, &binding, true, world.now()), "it is gone");
}

#[test]
fn the_external_side_does_not_go_without_the_internal_one() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let before = world.tables();
    for (key, _) in world.tables.bindings().entries() {
        assert!(!expire_binding(&world.tables, &key, true, world.now() + 9999), "{key:?}");
    }
    assert_eq!(world.tables(), before);
}

#[test]
fn force_ends_a_lingering_binding() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (key, _) = world.half(0);
    expire_flow(&world.tables, &key, true, world.now());
    assert!(expire_binding(&world.tables, &world.internal(), true, world.now()));
    assert_eq!(world.sizes(), (0, 0));
}

#[test]
fn a_lingering_binding_is_used_again_by_the_same_inside_port() {
    let world = World::new();
    let first = crate::bindings::external_port(&world.tc(GUEST1, udp(GUEST1, 1000).bytes()));
    let (key, _) = world.half(0);
    expire_flow(&world.tables, &key, true, world.now());
    world.wait(LINGER - 1);
    let second = crate::bindings::external_port(&world.tc(GUEST1, udp(GUEST1, 1000).bytes()));
    assert_eq!(first, second);
    world.wait(100);
    assert_eq!(world.sweep_bindings(), 0, "it has a user again");
}

#[test]
fn a_freed_port_is_given_to_the_next() {
    let world = World::new();
    world.change_network(NAT, |network| (network.nat.first_port, network.nat.last_port) = (777, 777));
    world.tc(GUEST1, udp(GUEST1, 1000).bytes());
    let (key, _) = world.half(1);
    expire_flow(&world.tables, &key, true, world.now());
    world.wait(LINGER);
    world.sweep_bindings();
    assert_eq!(crate::bindings::external_port(&world.tc(GUEST2, udp(GUEST2, 1).bytes())), 777);
}

#[test]
fn a_binding_with_two_connections_goes_with_the_last() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.wait(200);
    world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, at(SERVER2, 9)).bytes());
    assert_eq!(world.users(), 2);
    world.wait(100);
    assert_eq!((world.sweep_flows(), world.sweep_bindings(), world.sizes()), (1, 0, (2, 2)));
    assert_eq!(world.users(), 1);
    world.wait(200);
    assert_eq!((world.sweep_flows(), world.sweep_bindings(), world.sizes()), (1, 0, (0, 2)));
    world.wait(LINGER);
    assert_eq!((world.sweep_bindings(), world.sizes()), (1, (0, 0)));
}

#[test]
fn a_connection_whose_network_is_gone_goes_by_its_zeroed_timers() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.change_network(NAT, |network| {
        network.mode = 0;
        network.timeouts = Timeouts { udp: 0, tcp_established: 0, tcp_transitory: 0, icmp: 0, ..Timeouts::RFC };
    });
    assert_eq!((world.sweep_flows(), world.tables.flows().len()), (1, 0));
}

#[test]
fn a_closed_connections_tuple_can_be_used_again_and_lives_as_long_as_a_new_one() {
    let world = World::new();
    let send = |l4| world.tc(GUEST1, outgoing(GUEST1, l4, KEPT, server()).bytes());
    let reply = |l4| world.tc(UPLINK, incoming(l4, server(), at(EXTERNAL, KEPT)).bytes());
    let open = || {
        send(L4::Tcp(SYN));
        reply(L4::Tcp(SYN | ACK));
        send(L4::Tcp(ACK));
    };
    open();
    send(L4::Tcp(FIN | ACK));
    reply(L4::Tcp(FIN | ACK));
    world.wait(100);
    open();
    world.wait(Timeouts::RFC.tcp_transitory);
    assert_eq!(world.sweep_flows(), 0, "it is established");
    assert_eq!((world.sizes(), world.users()), ((2, 2), 1), "the same binding, counted once");
}

#[test]
fn what_is_not_there_is_not_deleted() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (mut flow, _) = world.half(0);
    flow.vlan = 9;
    let mut binding = world.internal();
    binding.vlan = 9;
    let before = world.tables();
    assert!(!expire_flow(&world.tables, &flow, true, world.now()));
    assert!(!expire_binding(&world.tables, &binding, true, world.now()));
    assert_eq!(world.tables(), before);
}

#[test]
fn an_expired_connection_opens_anew() {
    let world = World::new();
    let packet: Packet = udp(GUEST1, KEPT);
    let sent = on_the_wire(packet.clone(), KEPT);
    world.tc(GUEST1, packet.bytes());
    world.wait(300);
    world.sweep_flows();
    assert_eq!(world.tc(UPLINK, answer(&sent).bytes()), Fate::ToHost, "a late reply is nobody's");
    assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, sent.bytes()));
    let reply = answer(&sent);
    let received = to_guest(reply.clone(), GUEST1, KEPT);
    assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(GUEST1, received.bytes()));
}
