//! Two CPUs at once: one run of the datapath between any two table accesses of another.

use std::{cell::RefCell, net::SocketAddrV4, rc::Rc};

use vnet_common::{DropReason, config::Filtering, conntrack, names::expiry::Mode, vport::VportId};
use vnet_ebpf::{
    datapath::expire::{expire_binding, expire_connection},
    tables::Tables as _,
};

use crate::{
    bindings::external_port,
    frames::{ACK, L4, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, server, udp},
    world::*,
};

/// Something that a CPU does.
type Act = Rc<dyn Fn(&World) -> Option<Fate>>;

fn receives(from: VportId, frame: Vec<u8>) -> Act {
    Rc::new(move |world| Some(world.tc(from, frame.clone())))
}

fn guest_sends(guest: VportId, port: u16, dst: SocketAddrV4) -> Act {
    receives(guest, outgoing(guest, L4::Udp, port, dst).bytes())
}

/// Ends all connections.
fn flushes_connections() -> Act {
    Rc::new(|world| {
        world.flush_connections();
        None
    })
}

/// Ends the connections that can be spared.
fn makes_room() -> Act {
    Rc::new(|world| {
        for (index, _) in world.tables.connections().entries() {
            expire_connection(&world.tables, index, Mode::Spare, world.now());
        }
        None
    })
}

/// Offers all connections for expiry.
fn sweeps_connections() -> Act {
    Rc::new(|world| {
        world.sweep_connections();
        None
    })
}

/// Ends all bindings that nobody uses.
fn flushes_bindings() -> Act {
    Rc::new(|world| {
        for (index, _) in world.tables.bindings().entries() {
            expire_binding(&world.tables, index, Mode::Force, world.now());
        }
        None
    })
}

/// Two acts in one world, the second at every moment of the first; `check` gets the world and both fates.
fn interleave(
    name: &str,
    prepare: impl Fn(&World),
    (first, second): (Act, Act),
    check: impl Fn(&World, Option<Fate>, Option<Fate>),
) {
    let whole = World::new();
    prepare(&whole);
    let begun = whole.tables.accesses();
    first(&whole);
    let accesses = whole.tables.accesses() - begun;
    for others in 0..accesses {
        let world = World::new();
        prepare(&world);
        let came_of_it = Rc::new(RefCell::new(None));
        let (other, act, fate) = (world.other_cpu(), Rc::clone(&second), Rc::clone(&came_of_it));
        world.tables.interrupt_after(others, move || {
            fate.replace(act(&other));
        });
        let fate = first(&world);
        let context = format!("{name}, before access {others}");
        println!("{context}: {fate:?} and {:?}", came_of_it.borrow());
        check(&world, fate, came_of_it.take());
        assert_eq!(world.check(), Ok(()), "{context}");
        flushes_connections()(&world);
        assert_eq!(world.check(), Ok(()), "{context}, then flushed");
        flushes_bindings()(&world);
        assert_eq!(world.check_empty(), Ok(()), "{context}, then flushed");
    }
}

fn nothing(_: &World) {}

fn sent(fate: Option<Fate>) -> u16 {
    external_port(&fate.expect("a frame's fate"))
}

#[test]
fn two_cpus_that_open_one_connection_end_with_one_and_send_both_packets() {
    for port in [KEPT, 1000] {
        let open = guest_sends(GUEST1, port, server());
        interleave("twice", nothing, (Rc::clone(&open), open), |world, first, second| {
            assert_eq!(first, second, "the same packet comes out");
            sent(first);
            assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (1, 1));
            assert_eq!(world.check(), Ok(()));
        });
    }
}

#[test]
fn two_destinations_at_once_share_one_external_port() {
    for port in [KEPT, 1000] {
        let acts = (guest_sends(GUEST1, port, server()), guest_sends(GUEST1, port, at(SERVER2, 53)));
        interleave("two destinations", nothing, acts, |world, first, second| {
            assert_eq!(sent(first), sent(second));
            assert_eq!(world.check(), Ok(()));
        });
    }
}

#[test]
fn two_guests_at_once_get_two_external_ports() {
    let acts = || (guest_sends(GUEST1, KEPT, server()), guest_sends(GUEST2, KEPT, server()));
    interleave("two guests", nothing, acts(), |world, first, second| {
        assert_ne!(sent(first), sent(second));
        assert_eq!(world.check(), Ok(()));
    });
    let one_port =
        |world: &World| world.change_network(NAT, |network| (network.nat.first_port, network.nat.last_port) = (9, 9));
    interleave("two guests, one port", one_port, acts(), |world, first, second| {
        let exhausted = Some(Fate::Dropped(DropReason::PortsExhausted));
        assert!(first == exhausted || second == exhausted);
        assert_ne!(first, second, "one of them gets it");
        assert_eq!(world.check(), Ok(()));
    });
}

#[test]
fn two_cpus_for_the_last_place_in_a_table_end_with_whole_connections() {
    let acts = || (guest_sends(GUEST1, KEPT, server()), guest_sends(GUEST2, 1000, server()));
    for room in 0..4 {
        let connections = move |world: &World| world.tables.connections().set_capacity(room);
        interleave("connections", connections, acts(), |world, _, _| {
            assert!(world.tables.connections().len() <= room);
        });
        let bindings = move |world: &World| world.tables.bindings().set_capacity(room);
        interleave("bindings", bindings, acts(), |world, _, _| assert!(world.tables.bindings().len() <= room));
    }
}

fn established(world: &World) {
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    world.wait(1);
}

fn unused(world: &World) {
    established(world);
    flushes_connections()(world);
    world.wait(1);
}

#[test]
fn a_packet_and_expiry_at_once_leave_nothing_half() {
    let again = || guest_sends(GUEST1, KEPT, server());
    let other = || guest_sends(GUEST1, KEPT, at(SERVER2, 53));
    let reply = || receives(UPLINK, answer(&on_the_wire(udp(GUEST1, KEPT), KEPT)).bytes());
    for (name, packet) in [("the same", again as fn() -> Act), ("another destination", other), ("a reply", reply)] {
        interleave(&format!("{name}, flush within"), established, (packet(), flushes_connections()), |_, _, _| {});
        interleave(&format!("{name}, within a flush"), established, (flushes_connections(), packet()), |_, _, _| {});
        interleave(&format!("{name}, within a sweep"), established, (sweeps_connections(), packet()), |_, _, _| {});
    }
}

#[test]
fn a_packet_and_the_end_of_its_binding_at_once_leave_nothing_half() {
    let again = || guest_sends(GUEST1, KEPT, server());
    let check = |_: &World, first: Option<Fate>, second: Option<Fate>| {
        let fate = first.or(second).expect("a frame's fate");
        let is_refused = fate == Fate::Dropped(DropReason::BindingEnding);
        assert!(is_refused || matches!(fate, Fate::Sent(..)), "{fate:?}");
    };
    interleave("flush within", unused, (again(), flushes_bindings()), check);
    interleave("within a flush", unused, (flushes_bindings(), again()), check);
}

#[test]
fn two_expiries_at_once_give_a_binding_back_once() {
    interleave("flush and flush", established, (flushes_connections(), flushes_connections()), |_, _, _| {});
    interleave("bindings twice", unused, (flushes_bindings(), flushes_bindings()), |_, _, _| {});
    interleave("connections and bindings", established, (flushes_connections(), flushes_bindings()), |_, _, _| {});
    interleave("bindings and connections", established, (flushes_bindings(), flushes_connections()), |_, _, _| {});
}

#[test]
fn a_connection_is_swept_while_it_is_being_made() {
    let acts = || (guest_sends(GUEST1, KEPT, server()), sweeps_connections());
    interleave("sweep within", nothing, acts(), |_, fate, _| {
        sent(fate);
    });
}

fn with_forwards(world: &World) {
    world.forward(17, (None, 8080), (GUEST1, 80));
    world.forward(17, (None, 8081), (GUEST1, 80));
}

#[test]
fn forwards_at_once_end_with_whole_connections() {
    let client = at(SERVER, 40_000);
    let open = |port| receives(UPLINK, incoming(L4::Udp, client, at(EXTERNAL, port)).bytes());
    interleave("twice", with_forwards, (open(8080), open(8080)), |world, first, second| {
        assert_eq!(first, second);
        assert!(matches!(first, Some(Fate::Sent(GUEST1, _))));
        assert_eq!(world.tables.connections().len(), 1);
    });
    interleave("two forwards, one tuple", with_forwards, (open(8080), open(8081)), |world, first, second| {
        assert_eq!(
            second.filter(|fate| matches!(fate, Fate::Sent(..))).is_some(),
            first == Some(Fate::Dropped(DropReason::TupleTaken))
        );
        assert_eq!(world.tables.connections().len(), 1);
    });
    let guest_calls = || guest_sends(GUEST1, 80, client);
    interleave("the guest calls the client", with_forwards, (open(8080), guest_calls()), |_, _, _| {});
    interleave("while the guest calls it", with_forwards, (guest_calls(), open(8080)), |_, _, _| {});
    interleave("flush within", with_forwards, (open(8080), flushes_connections()), |_, _, _| {});
}

/// External ports of which the first one is whoever's comes first, open to everybody.
fn with_two_open_ports(world: &World) {
    world.change_network(NAT, |network| {
        (network.nat.first_port, network.nat.last_port) = (50_000, 50_001);
        network.nat.filtering = Filtering::EndpointIndependent as u8;
    });
}

#[test]
fn a_guest_and_a_remote_that_call_each_other_at_once_end_with_whole_connections() {
    let remote = at(SERVER2, 40_000);
    let held = |world: &World| {
        with_two_open_ports(world);
        world.tc(GUEST1, outgoing(GUEST1, L4::Udp, 80, server()).bytes());
    };
    let calls = || guest_sends(GUEST1, 80, remote);
    let is_called = || receives(UPLINK, incoming(L4::Udp, remote, at(EXTERNAL, 50_000)).bytes());
    let check = |world: &World, first: Option<Fate>, second: Option<Fate>| {
        let sent = [first, second].into_iter().flatten().filter(|fate| matches!(fate, Fate::Sent(..))).count();
        // Seldom each takes what the other needs, and one waits for its next packet.
        assert!(sent >= 1, "one at least gets through");
        assert!(world.tables.connections().len() <= 2, "one connection, whoever it is of");
    };
    interleave("it calls", held, (calls(), is_called()), check);
    interleave("it is called", held, (is_called(), calls()), check);
}

#[test]
fn whatever_two_cpus_do_at_once_nothing_is_left_half() {
    let client = at(SERVER, 40_000);
    let acts: [(&str, Act); 13] = [
        ("guest calls client", guest_sends(GUEST1, 80, client)),
        ("guest calls another", guest_sends(GUEST1, 80, at(SERVER2, 53))),
        ("sibling calls client", guest_sends(GUEST2, 80, client)),
        ("client asks the forward", receives(UPLINK, incoming(L4::Udp, client, at(EXTERNAL, 8080)).bytes())),
        ("client asks the other forward", receives(UPLINK, incoming(L4::Udp, client, at(EXTERNAL, 8081)).bytes())),
        ("client asks the guest's port", receives(UPLINK, incoming(L4::Udp, client, at(EXTERNAL, 50_000)).bytes())),
        ("sibling calls the forward", guest_sends(GUEST2, 80, at(EXTERNAL, 8080))),
        ("sibling calls the guest's port", guest_sends(GUEST2, 80, at(EXTERNAL, 50_000))),
        ("flush", flushes_connections()),
        ("room is made", makes_room()),
        ("sweep", sweeps_connections()),
        ("flush of bindings", flushes_bindings()),
        (
            "sweep of bindings",
            Rc::new(|world| {
                world.sweep_bindings();
                None
            }),
        ),
    ];
    for (before, prepare) in &acts {
        for (first_name, first) in &acts {
            for (second_name, second) in &acts {
                let name = format!("{before}; then {first_name}, {second_name} within");
                let prepare = |world: &World| {
                    with_forwards(world);
                    with_two_open_ports(world);
                    prepare(world);
                    world.wait(3);
                };
                interleave(&name, prepare, (Rc::clone(first), Rc::clone(second)), |_, _, _| {});
            }
        }
    }
}

#[test]
fn two_packets_at_once_both_count_for_the_state() {
    let half_open = |world: &World| {
        world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(SYN), KEPT, server()).bytes());
        world.tc(UPLINK, incoming(L4::Tcp(SYN | ACK), server(), at(EXTERNAL, KEPT)).bytes());
    };
    let ack = || receives(GUEST1, outgoing(GUEST1, L4::Tcp(ACK), KEPT, server()).bytes());
    let data = || receives(UPLINK, incoming(L4::Tcp(ACK), server(), at(EXTERNAL, KEPT)).bytes());
    let is_established = |world: &World, _: Option<Fate>, _: Option<Fate>| {
        let (_, connection) = world.tables.connections().entries().pop().unwrap();
        assert_eq!(conntrack::state_name(6, connection.seen.load()), "established");
    };
    interleave("both ways", half_open, (ack(), data()), is_established);
    interleave("both ways", half_open, (data(), ack()), is_established);
}

#[test]
fn an_ending_binding_refuses_only_until_it_is_gone() {
    let world = World::new();
    unused(&world);
    flushes_bindings()(&world);
    assert!(world.tables.bindings().is_empty());
    sent(guest_sends(GUEST1, KEPT, server())(&world));
}
