//! Connection states, and what XDP leaves to TC.

use std::rc::Rc;

use vnet_common::{conntrack, flow};
use vnet_ebpf::tables::Tables as _;

use crate::{
    frames::{ACK, FIN, L4, Packet, RST, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, to_guest, udp},
    world::*,
};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Whoever opened the connection.
    Opener,
    Answerer,
}
use By::{Answerer, Opener};

type Case = (&'static str, &'static [(By, u8)], &'static str);

const CASES: [Case; 14] = [
    ("opened", &[(Opener, SYN)], "syn-sent"),
    ("syn again", &[(Opener, SYN), (Opener, SYN)], "syn-sent"),
    ("answered", &[(Opener, SYN), (Answerer, SYN | ACK)], "syn-received"),
    ("answered twice", &[(Opener, SYN), (Answerer, SYN | ACK), (Answerer, SYN | ACK)], "syn-received"),
    ("refused", &[(Opener, SYN), (Answerer, RST | ACK)], "reset"),
    ("established", &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK)], "established"),
    (
        "simultaneous open",
        &[(Opener, SYN), (Answerer, SYN), (Opener, SYN | ACK), (Answerer, SYN | ACK), (Opener, ACK)],
        "established",
    ),
    ("data", &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK), (Answerer, ACK), (Opener, ACK)], "established"),
    (
        "half closed",
        &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK), (Answerer, FIN | ACK), (Opener, ACK)],
        "half-closed",
    ),
    (
        "closed",
        &[
            (Opener, SYN),
            (Answerer, SYN | ACK),
            (Opener, ACK),
            (Opener, FIN | ACK),
            (Answerer, FIN | ACK),
            (Opener, ACK),
        ],
        "time-wait",
    ),
    (
        "closed by the other side first",
        &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK), (Answerer, FIN | ACK), (Opener, FIN | ACK)],
        "time-wait",
    ),
    ("reset", &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK), (Answerer, RST)], "reset"),
    (
        "data after a stray reset",
        &[(Opener, SYN), (Answerer, SYN | ACK), (Opener, ACK), (Answerer, RST), (Answerer, ACK)],
        "established",
    ),
    (
        "the tuple again after the end",
        &[
            (Opener, SYN),
            (Answerer, SYN | ACK),
            (Opener, ACK),
            (Opener, FIN | ACK),
            (Answerer, FIN | ACK),
            (Opener, SYN),
        ],
        "syn-sent",
    ),
];

/// The packets of a connection in both directions, as they arrive.
struct Connection {
    opener: (u32, Packet),
    answerer: (u32, Packet),
}

impl Connection {
    fn send(&self, world: &World, by: By, flags: u8) -> Fate {
        let (from, packet) = if by == Opener { &self.opener } else { &self.answerer };
        world.tc(*from, Packet { l4: L4::Tcp(flags), ..packet.clone() }.bytes())
    }

    fn xdp(&self, world: &World, by: By, flags: u8) -> Fate {
        let (from, packet) = if by == Opener { &self.opener } else { &self.answerer };
        world.xdp(*from, Packet { l4: L4::Tcp(flags), ..packet.clone() }.bytes())
    }
}

/// A guest's connection to the outside, and one through a forward.
fn connections() -> [(&'static str, World, Connection); 2] {
    let out = outgoing(GUEST1, L4::Tcp(SYN), KEPT, server());
    let snat = Connection { answerer: (UPLINK, answer(&on_the_wire(out.clone(), KEPT))), opener: (GUEST1, out) };
    let inbound = incoming(L4::Tcp(SYN), at(SERVER, 40_000), at(EXTERNAL, 8080));
    let forwarded =
        Connection { answerer: (GUEST1, answer(&to_guest(inbound.clone(), GUEST1, 80))), opener: (UPLINK, inbound) };
    let world = World::new();
    world.forward(6, (None, 8080), (GUEST1, 80));
    [("snat", World::new(), snat), ("forward", world, forwarded)]
}

/// The world's only connection.
fn only(world: &World) -> Rc<flow::Connection> {
    let entries = world.tables.connections().entries();
    let [(_, connection)] = entries.as_slice() else { panic!("{} connections", entries.len()) };
    Rc::clone(connection)
}

#[test]
fn a_connection_goes_through_its_states_whoever_opened_it() {
    for (name, packets, state) in CASES {
        for (kind, world, connection) in connections() {
            for (by, flags) in packets {
                let fate = connection.send(&world, *by, *flags);
                assert!(matches!(fate, Fate::Sent(..)), "{name}, {kind}: {by:?} {flags:02x}: {fate:?}");
            }
            let seen = only(&world).seen.load();
            assert_eq!(conntrack::state_name(conntrack::protocol::TCP, seen), state, "{name}, {kind}");
        }
    }
}

#[test]
fn udp_and_echo_are_replied_once_a_reply_was_seen() {
    for (packet, protocol) in [(udp(GUEST1, KEPT), 17), (ping(GUEST1, KEPT), 1)] {
        let state = |world: &World| conntrack::state_name(protocol, only(world).seen.load());
        let world = World::new();
        let reply = answer(&on_the_wire(packet.clone(), KEPT));
        world.tc(GUEST1, packet.bytes());
        world.tc(GUEST1, packet.bytes());
        assert_eq!(state(&world), "unreplied");
        world.tc(UPLINK, reply.bytes());
        assert_eq!(state(&world), "replied");
    }
}

#[test]
fn xdp_sends_data_of_established_connections_and_nothing_else() {
    for (kind, world, connection) in connections() {
        assert_eq!(connection.xdp(&world, Opener, SYN), Fate::PassUp, "{kind}: unknown");
        connection.send(&world, Opener, SYN);
        assert_eq!(connection.xdp(&world, Opener, SYN), Fate::PassUp, "{kind}: again");
        assert_eq!(connection.xdp(&world, Answerer, SYN | ACK), Fate::PassUp, "{kind}: answer");
        connection.send(&world, Answerer, SYN | ACK);
        assert_eq!(connection.xdp(&world, Opener, ACK), Fate::PassUp, "{kind}: not established yet");
        connection.send(&world, Opener, ACK);
        connection.send(&world, Answerer, ACK);
        for by in [Opener, Answerer] {
            assert!(matches!(connection.xdp(&world, by, ACK), Fate::Sent(..)), "{kind}: data by {by:?}");
            for flags in [FIN | ACK, RST, RST | ACK, SYN] {
                assert_eq!(connection.xdp(&world, by, flags), Fate::PassUp, "{kind}: {flags:02x} by {by:?}");
            }
        }
        connection.send(&world, Answerer, RST);
        assert_eq!(connection.xdp(&world, Opener, ACK), Fate::PassUp, "{kind}: data after a reset");
    }
}

#[test]
fn a_time_stamp_follows_both_directions() {
    for (kind, world, connection) in connections() {
        let stamp = |world: &World| only(world).last_seen.load();
        connection.send(&world, Opener, SYN);
        assert_eq!(stamp(&world), START, "{kind}");
        world.wait(3);
        connection.send(&world, Answerer, SYN | ACK);
        assert_eq!(stamp(&world), START + 3, "{kind}");
        world.wait(3);
        connection.send(&world, Opener, ACK);
        assert_eq!(stamp(&world), START + 6, "{kind}");
        // The last hop ends here: it is no sign of life.
        world.wait(3);
        let (from, packet) = &connection.opener;
        world.tc(*from, Packet { l4: L4::Tcp(ACK), ttl: 1, ..packet.clone() }.bytes());
        assert_eq!(stamp(&world), START + 6, "{kind}");
    }
}
