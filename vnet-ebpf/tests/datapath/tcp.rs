//! Connection states in both entries, and what XDP leaves to TC.

use vnet_common::{conntrack, flow::FlowEntry};
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

fn entries(world: &World) -> Vec<FlowEntry> {
    world.tables.flows().entries().into_iter().map(|(_, entry)| (*entry).clone()).collect()
}

#[test]
fn both_entries_go_through_the_states_together() {
    for (name, packets, state) in CASES {
        for (kind, world, connection) in connections() {
            for (by, flags) in packets {
                let fate = connection.send(&world, *by, *flags);
                assert!(matches!(fate, Fate::Sent(..)), "{name}, {kind}: {by:?} {flags:02x}: {fate:?}");
                let halves = entries(&world);
                assert_eq!(halves.len(), 2, "{name}, {kind}");
                assert_eq!(halves[0].seen(), halves[1].seen(), "{name}, {kind}: {by:?} {flags:02x}");
            }
            let seen = entries(&world)[0].seen();
            assert_eq!(conntrack::state_name(conntrack::protocol::TCP, seen), state, "{name}, {kind}");
        }
    }
}

#[test]
fn udp_and_echo_are_replied_once_a_reply_was_seen() {
    for (packet, protocol) in [(udp(GUEST1, KEPT), 17), (ping(GUEST1, KEPT), 1)] {
        let state = |world: &World| {
            let halves = entries(world);
            assert_eq!(halves[0].seen(), halves[1].seen());
            conntrack::state_name(protocol, halves[0].seen())
        };
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
fn a_state_is_kept_if_the_other_half_is_missing() {
    for (kind, world, connection) in connections() {
        connection.send(&world, Opener, SYN);
        let (reply, _) = world.tables.flows().entries().into_iter().find(|(_, entry)| entry.direction == 1).unwrap();
        world.tables.flows().delete(&reply);
        let fate = connection.send(&world, Opener, FIN | ACK);
        assert!(matches!(fate, Fate::Sent(..)), "{kind}: {fate:?}");
        assert_ne!(entries(&world)[0].seen() & conntrack::ORIGINAL_FIN, 0, "{kind}");
    }
}

#[test]
fn time_stamps_follow_each_direction() {
    let (_, world, connection) = connections().into_iter().next().unwrap();
    let stamps = |world: &World| {
        let mut halves = entries(world);
        halves.sort_by_key(|half| half.direction);
        [halves[0].last_seen.load(), halves[1].last_seen.load()]
    };
    connection.send(&world, Opener, SYN);
    assert_eq!(stamps(&world), [START, START]);
    world.wait(3);
    connection.send(&world, Answerer, SYN | ACK);
    assert_eq!(stamps(&world), [START, START + 3]);
    world.wait(3);
    connection.send(&world, Opener, ACK);
    assert_eq!(stamps(&world), [START + 6, START + 3]);
    // The last hop ends here: it is no sign of life.
    world.wait(3);
    let (from, packet) = &connection.opener;
    world.tc(*from, Packet { l4: L4::Tcp(ACK), ttl: 1, ..packet.clone() }.bytes());
    assert_eq!(stamps(&world), [START + 6, START + 3]);
}
