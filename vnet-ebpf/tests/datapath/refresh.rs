//! What keeps a connection alive, and what may be ended when.

use std::net::SocketAddrV4;

use etherparse::{Icmpv4Header, Icmpv4Type};
use vnet_common::{
    config::{Filtering, Timeouts},
    names::expiry::Mode,
};
use vnet_ebpf::{datapath::expire::expire_connection, tables::Tables as _};

use crate::{
    case::Act,
    frames::{ACK, ETHERNET, FIN, L4, Packet, RST, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

/// The packet arrives a second before the connection's end, and again later: whether it still stands then.
fn is_kept_by(world: &World, from: u32, packet: &Packet, idle: u32) -> bool {
    world.wait(idle - 1);
    assert!(matches!(world.tc(from, packet.bytes()), Fate::Sent(..)));
    world.wait(1);
    let is_kept = world.sweep_connections() == 0;
    if is_kept {
        world.wait(idle - 2);
        assert_eq!(world.sweep_connections(), 0, "a second before");
        world.wait(1);
        assert_eq!(world.sweep_connections(), 1, "a whole idle time after the packet");
    }
    is_kept
}

fn reply_to(packet: &Packet) -> Packet {
    answer(&on_the_wire(packet.clone(), KEPT))
}

#[test]
fn a_guests_own_packets_keep_its_connection_and_those_from_outside_only_where_told_to() {
    let (rfc, out, echo) = (Timeouts::RFC, udp(GUEST1, KEPT), ping(GUEST1, KEPT));
    for (packet, idle) in [(&out, rfc.udp), (&echo, rfc.icmp)] {
        for (refresh, from, sent, is_kept) in [
            (0, GUEST1, packet.clone(), true),
            (0, UPLINK, reply_to(packet), false),
            (1, UPLINK, reply_to(packet), true),
        ] {
            let world = World::new();
            world.change_network(NAT, |network| network.nat.inbound_refresh = refresh);
            world.tc(GUEST1, packet.bytes());
            assert_eq!(is_kept_by(&world, from, &sent, idle), is_kept, "from {from}, refresh {refresh}");
        }
    }
}

#[test]
fn the_policy_that_counts_is_that_of_the_guests_network() {
    let world = World::new();
    world.change_network(OTHER_NAT, |network| network.nat.inbound_refresh = 1);
    world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
    assert!(!is_kept_by(&world, UPLINK, &reply_to(&udp(GUEST1, KEPT)), Timeouts::RFC.udp));
}

#[test]
fn tcp_is_kept_from_both_sides() {
    for from in [GUEST1, UPLINK] {
        let world = World::new();
        let packet = |flags| outgoing(GUEST1, L4::Tcp(flags), KEPT, server());
        let reply = |flags| incoming(L4::Tcp(flags), server(), at(EXTERNAL, KEPT));
        world.tc(GUEST1, packet(SYN).bytes());
        world.tc(UPLINK, reply(SYN | ACK).bytes());
        world.tc(GUEST1, packet(ACK).bytes());
        let data = if from == GUEST1 { packet(ACK) } else { reply(ACK) };
        assert!(is_kept_by(&world, from, &data, Timeouts::RFC.tcp_established), "from {from}");
    }
}

#[test]
fn a_forwards_connection_is_kept_from_both_sides() {
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    let reply = answer(&to_guest(packet.clone(), GUEST1, 80));
    for (from, sent) in [(UPLINK, &packet), (GUEST1, &reply)] {
        let world = World::new();
        world.forward(17, (None, 8080), (GUEST1, 80));
        world.tc(UPLINK, packet.bytes());
        assert!(is_kept_by(&world, from, sent, Timeouts::RFC.udp), "from {from}");
    }
}

#[test]
fn a_hairpin_is_kept_from_both_sides() {
    let packet = outgoing(GUEST2, L4::Udp, KEPT, at(EXTERNAL, 8080));
    let reply = answer(&to_guest(packet.clone().src(at(EXTERNAL, KEPT)), GUEST1, 80));
    for (from, sent) in [(GUEST2, &packet), (GUEST1, &reply)] {
        let world = World::new();
        world.forward(17, (None, 8080), (GUEST1, 80));
        world.tc(GUEST2, packet.bytes());
        assert!(is_kept_by(&world, from, sent, Timeouts::RFC.udp), "from {from}");
    }
}

/// The packet as an ICMP error (3/1) about another.
fn about(packet: Packet, cause: &Packet) -> Packet {
    let quoted = cause.bytes().split_off(ETHERNET);
    let kind = Icmpv4Type::Unknown { type_u8: 3, code_u8: 1, bytes5to8: [0; 4] };
    let header = Icmpv4Header::with_checksum(kind, &quoted).to_bytes();
    packet.payload(&[&header[..], &quoted].concat())
}

#[test]
fn an_icmp_error_neither_refreshes_nor_ends_anything() {
    let rfc = Timeouts::RFC;
    for (packet, idle) in
        [(udp(GUEST1, KEPT), rfc.udp), (ping(GUEST1, KEPT), rfc.icmp), (syn(GUEST1, KEPT), rfc.tcp_transitory)]
    {
        let reply = to_guest(reply_to(&packet), GUEST1, KEPT);
        let from_router = incoming(L4::Other(1), at(SERVER2, 0), at(EXTERNAL, 0));
        let from_guest = outgoing(GUEST1, L4::Other(1), 0, at(SERVER, 0));
        for (from, error) in
            [(UPLINK, about(from_router, &on_the_wire(packet.clone(), KEPT))), (GUEST1, about(from_guest, &reply))]
        {
            let world = World::new();
            world.tc(GUEST1, packet.bytes());
            world.tc(UPLINK, reply_to(&packet).bytes());
            let seen = |world: &World| world.tables.connections().entries().remove(0).1.seen.load();
            let before = seen(&world);
            assert!(matches!(world.tc(from, error.bytes()), Fate::Sent(..)));
            assert_eq!(seen(&world), before, "from {from} about {packet:?}");
            assert!(!is_kept_by(&world, from, &error, idle), "from {from} about {packet:?}");
            assert_eq!(world.check(), Ok(()));
        }
    }
}

#[test]
fn what_came_in_by_a_held_port_is_kept_by_the_guest_alone() {
    let remote: SocketAddrV4 = at(SERVER2, 4711);
    let packet = incoming(L4::Udp, remote, at(EXTERNAL, KEPT));
    let reply = outgoing(GUEST1, L4::Udp, KEPT, remote);
    for (from, sent, is_kept) in [(UPLINK, &packet, false), (GUEST1, &reply, true)] {
        let world = World::new();
        world.change_network(NAT, |network| network.nat.filtering = Filtering::EndpointIndependent as u8);
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        world.tc(UPLINK, packet.bytes());
        let (first, _) = world.tables.connections().entries().remove(0);
        expire_connection(&world.tables, first, Mode::Force, world.now());
        assert_eq!(is_kept_by(&world, from, sent, Timeouts::RFC.udp), is_kept, "from {from}");
    }
}

#[test]
fn each_mode_ends_what_it_may() {
    let tcp = |flags: &'static [(bool, u8)]| -> Act {
        Box::new(move |world: &World| {
            for (is_out, flags) in flags {
                if *is_out {
                    world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(*flags), KEPT, server()).bytes());
                } else {
                    world.tc(UPLINK, incoming(L4::Tcp(*flags), server(), at(EXTERNAL, KEPT)).bytes());
                }
            }
        })
    };
    let sends = |packet: Packet, is_answered: bool| -> Act {
        Box::new(move |world: &World| {
            world.tc(GUEST1, packet.bytes());
            if is_answered {
                world.tc(UPLINK, reply_to(&packet).bytes());
            }
        })
    };
    // Name, how it comes about, whether it can be spared.
    let cases: [(&str, Act, bool); 10] = [
        ("unanswered udp", sends(udp(GUEST1, KEPT), false), true),
        ("answered udp", sends(udp(GUEST1, KEPT), true), false),
        ("unanswered echo", sends(ping(GUEST1, KEPT), false), true),
        ("answered echo", sends(ping(GUEST1, KEPT), true), false),
        ("opening tcp", sends(syn(GUEST1, KEPT), false), true),
        ("half-open tcp", tcp(&[(true, SYN), (false, SYN | ACK)]), true),
        ("established tcp", tcp(&[(true, SYN), (false, SYN | ACK), (true, ACK)]), false),
        ("half-closed tcp", tcp(&[(true, SYN), (false, SYN | ACK), (true, ACK), (false, FIN | ACK)]), false),
        (
            "closed tcp",
            tcp(&[(true, SYN), (false, SYN | ACK), (true, ACK), (false, FIN | ACK), (true, FIN | ACK)]),
            true,
        ),
        ("reset tcp", tcp(&[(true, SYN), (false, SYN | ACK), (true, ACK), (false, RST)]), true),
    ];
    for (name, open, is_spared) in cases {
        for (mode, ends) in [(Mode::Expired, false), (Mode::Spare, is_spared), (Mode::Force, true)] {
            let world = World::new();
            open(&world);
            world.wait(10);
            assert_eq!(world.tables.connections().len(), 1, "{name}");
            assert_eq!(expire_connection(&world.tables, 1, mode, world.now()), ends, "{name}, {mode:?}");
            assert_eq!(world.tables.connections().len(), usize::from(!ends), "{name}, {mode:?}");
            assert_eq!(world.check(), Ok(()), "{name}, {mode:?}");
        }
    }
}
