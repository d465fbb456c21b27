//! Expiry: what has expired goes, what woke up stays, and nothing is freed under a user.

use std::rc::Rc;

use vnet_common::{
    config::Timeouts,
    flow::{Connection, ORIGIN_FORWARD},
    names::expiry::Mode,
    nat::Binding,
    stats::EventCount,
};
use vnet_ebpf::{
    datapath::expire::{expire_binding, expire_connection},
    tables::Tables as _,
};

use crate::{
    case::Act,
    frames::{ACK, FIN, L4, Packet, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

/// Seconds that an unused binding keeps its port.
const COOL_DOWN: u32 = Timeouts::RFC.cool_down;

impl World {
    /// Offers every connection for expiry; how many went.
    pub fn sweep_connections(&self) -> usize {
        let entries = self.tables.connections().entries();
        entries.iter().filter(|(index, _)| expire_connection(&self.tables, *index, Mode::Expired, self.now())).count()
    }

    /// Ends all connections.
    pub fn flush_connections(&self) {
        for (index, _) in self.tables.connections().entries() {
            expire_connection(&self.tables, index, Mode::Force, self.now());
        }
    }

    /// Offers every binding for expiry; how many went.
    pub fn sweep_bindings(&self) -> usize {
        let entries = self.tables.bindings().entries();
        entries.iter().filter(|(index, _)| expire_binding(&self.tables, *index, Mode::Expired, self.now())).count()
    }

    /// Connections and bindings.
    fn sizes(&self) -> (usize, usize) {
        (self.tables.connections().len(), self.tables.bindings().len())
    }

    /// The only connection.
    fn connection(&self) -> (u32, Rc<Connection>) {
        let mut entries = self.tables.connections().entries();
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    /// The only binding.
    fn binding(&self) -> (u32, Rc<Binding>) {
        let mut entries = self.tables.bindings().entries();
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    fn users(&self) -> u32 {
        self.binding().1.connections.load()
    }
}

#[test]
fn a_connection_goes_when_it_was_idle_for_its_time() {
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
        assert_eq!((world.sweep_connections(), world.sizes()), (0, (1, 1)), "{name}: a second before");
        world.wait(1);
        assert_eq!((world.sweep_connections(), world.sizes()), (1, (0, 1)), "{name}: it goes");
        assert_eq!(world.event(EventCount::ConnectionsExpired), 1, "{name}");
        assert_eq!(world.users(), 0, "{name}");
    }
}

#[test]
fn a_stamp_of_another_cpus_later_tick_is_no_idle_time() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (index, connection) = world.connection();
    connection.last_seen.store(world.now() + 1);
    assert!(!expire_connection(&world.tables, index, Mode::Expired, world.now()));
    world.flush_connections();
    let (index, binding) = world.binding();
    binding.last_used.store(world.now() + 1);
    assert!(!expire_binding(&world.tables, index, Mode::Expired, world.now()));
}

#[test]
fn the_clock_may_wrap() {
    let world = World::new();
    world.kernel.now.set(u32::MAX - 100);
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.kernel.now.set(198);
    assert_eq!(world.sweep_connections(), 0, "idle for 299 seconds");
    world.kernel.now.set(199);
    assert_eq!(world.sweep_connections(), 1);
}

#[test]
fn force_ends_a_connection_once() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (index, _) = world.connection();
    assert!(expire_connection(&world.tables, index, Mode::Force, world.now()));
    assert_eq!((world.sizes(), world.users()), ((0, 1), 0));
    for mode in [Mode::Force, Mode::Spare, Mode::Expired] {
        assert!(!expire_connection(&world.tables, index, mode, world.now() + 9999), "it is gone: {mode:?}");
    }
    assert_eq!((world.users(), world.check()), (0, Ok(())), "given back once");
}

#[test]
fn a_connection_of_a_forward_holds_no_binding() {
    let world = World::new();
    world.forward(17, (None, 8080), (GUEST1, 80));
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    world.tc(UPLINK, packet.bytes());
    // A binding with the same inside, of another connection.
    world.tc(GUEST1, outgoing(GUEST1, L4::Udp, 80, at(SERVER2, 9)).bytes());
    assert_eq!((world.sizes(), world.users()), ((2, 1), 1));
    let entries = world.tables.connections().entries();
    let (index, _) = entries.iter().find(|(_, connection)| connection.origin == ORIGIN_FORWARD).unwrap();
    assert!(expire_connection(&world.tables, *index, Mode::Force, world.now()));
    assert_eq!((world.sizes(), world.users(), world.check()), ((1, 1), 1, Ok(())));
}

#[test]
fn a_binding_goes_when_nobody_has_used_it_for_a_while() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let (index, _) = world.binding();
    for mode in [Mode::Expired, Mode::Spare, Mode::Force] {
        assert!(!expire_binding(&world.tables, index, mode, world.now() + 9999), "in use: not even by {mode:?}");
    }
    world.wait(50);
    world.flush_connections();
    world.wait(COOL_DOWN - 1);
    assert_eq!((world.sweep_bindings(), world.tables.bindings().len()), (0, 1), "it lingers");
    world.wait(1);
    assert_eq!((world.sweep_bindings(), world.check_empty()), (1, Ok(())));
    assert!(!expire_binding(&world.tables, index, Mode::Force, world.now()), "it is gone");
}

#[test]
fn force_ends_a_lingering_binding() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.flush_connections();
    assert!(expire_binding(&world.tables, world.binding().0, Mode::Force, world.now()));
    assert_eq!(world.check_empty(), Ok(()));
}

#[test]
fn a_lingering_binding_is_used_again_by_the_same_inside_port() {
    let world = World::new();
    let first = crate::bindings::external_port(&world.tc(GUEST1, udp(GUEST1, 1000).bytes()));
    world.flush_connections();
    world.wait(COOL_DOWN - 1);
    let second = crate::bindings::external_port(&world.tc(GUEST1, udp(GUEST1, 1000).bytes()));
    assert_eq!(first, second);
    world.wait(COOL_DOWN);
    assert_eq!(world.sweep_bindings(), 0, "it has a user again");
}

#[test]
fn a_freed_port_is_given_to_the_next() {
    let world = World::new();
    world.change_network(NAT, |network| (network.nat.first_port, network.nat.last_port) = (777, 777));
    world.tc(GUEST1, udp(GUEST1, 1000).bytes());
    world.flush_connections();
    world.wait(COOL_DOWN);
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
    assert_eq!((world.sweep_connections(), world.sweep_bindings(), world.sizes()), (1, 0, (1, 1)));
    assert_eq!(world.users(), 1);
    world.wait(200);
    assert_eq!((world.sweep_connections(), world.sweep_bindings(), world.sizes()), (1, 0, (0, 1)));
    world.wait(COOL_DOWN);
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
    assert_eq!((world.sweep_connections(), world.tables.connections().len()), (1, 0));
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
    assert_eq!(world.sweep_connections(), 0, "it is established");
    assert_eq!((world.sizes(), world.users()), ((1, 1), 1), "the same binding, counted once");
}

#[test]
fn what_is_not_there_is_not_deleted() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    let before = world.tables();
    for index in [0, 2, 4095, 4096, u32::MAX] {
        assert!(!expire_connection(&world.tables, index, Mode::Force, world.now()), "{index}");
        assert!(!expire_binding(&world.tables, index, Mode::Force, world.now()), "{index}");
    }
    assert_eq!(world.tables(), before);
}

#[test]
fn an_expired_connection_opens_anew() {
    let world = World::new();
    let packet: Packet = udp(GUEST1, KEPT);
    let sent = on_the_wire(packet.clone(), KEPT);
    world.tc(GUEST1, packet.bytes());
    world.wait(300);
    world.sweep_connections();
    assert_eq!(world.tc(UPLINK, answer(&sent).bytes()), Fate::ToHost, "a late reply is nobody's");
    assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, sent.bytes()));
    let reply = answer(&sent);
    let received = to_guest(reply.clone(), GUEST1, KEPT);
    assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(GUEST1, received.bytes()));
}
