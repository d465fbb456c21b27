//! Pick-up: segments in the middle of connections that stood before the tables did, for a short window.

use vnet_common::{
    DropReason,
    config::{Filtering, Settings, Timeouts},
    conntrack,
};
use vnet_ebpf::tables::Tables as _;

use crate::{
    frames::{ACK, FIN, L4, Packet, RST, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, server, to_guest, udp},
    world::*,
};

/// Until when segments are taken up.
const UNTIL: u32 = START + 60;

fn world(until: u32) -> World {
    let world = World::new();
    world.tables.set_settings(Settings { pick_up_until: until, ..Settings::default() });
    world.forward(6, (None, 8080), (GUEST1, 80));
    world
}

fn segment(flags: u8) -> Packet {
    outgoing(GUEST1, L4::Tcp(flags), KEPT, server())
}

#[test]
fn a_segment_in_the_middle_is_taken_up_within_the_window_and_not_after() {
    let refused = Fate::Dropped(DropReason::NoConnection);
    // Seconds waited, whether it is taken up. At the end the window is over.
    for (until, waited, is_taken) in [
        (UNTIL, 0, true),
        (UNTIL, 59, true),
        (UNTIL, 60, false),
        (UNTIL, 61, false),
        (UNTIL, 99_999, false),
        (0, 0, false),
    ] {
        for flags in [ACK, ACK | FIN, 0] {
            let world = world(until);
            world.wait(waited);
            let sent = Fate::Sent(UPLINK, on_the_wire(segment(flags), KEPT).bytes());
            let expected = if is_taken { sent } else { refused.clone() };
            assert_eq!(world.tc(GUEST1, segment(flags).bytes()), expected, "{flags:02x} after {waited} of {until}");
            assert_eq!(world.tables.connections().len(), usize::from(is_taken));
            assert_eq!(world.check(), Ok(()));
        }
    }
}

#[test]
fn the_window_may_span_the_clocks_wrap() {
    let world = world(20);
    world.kernel.now.set(u32::MAX - 20);
    assert!(matches!(world.tc(GUEST1, segment(ACK).bytes()), Fate::Sent(..)));
    world.kernel.now.set(21);
    let other = outgoing(GUEST1, L4::Tcp(ACK), KEPT + 1, server());
    assert_eq!(world.tc(GUEST1, other.bytes()), Fate::Dropped(DropReason::NoConnection));
}

#[test]
fn answers_and_resets_are_never_taken_up() {
    for flags in [SYN | ACK, RST, RST | ACK] {
        let world = world(UNTIL);
        assert_eq!(world.tc(GUEST1, segment(flags).bytes()), Fate::Dropped(DropReason::NoConnection), "{flags:02x}");
        assert_eq!(world.check_empty(), Ok(()));
    }
    let reply = outgoing(GUEST1, L4::EchoReply, KEPT, at(SERVER, 7));
    assert_eq!(world(UNTIL).tc(GUEST1, reply.bytes()), Fate::Dropped(DropReason::NoConnection));
}

#[test]
fn what_was_taken_up_stands_as_long_as_an_established_connection() {
    let world = world(UNTIL);
    world.tc(GUEST1, segment(ACK).bytes());
    let (_, connection) = world.tables.connections().entries().remove(0);
    assert_eq!(conntrack::state_name(6, connection.seen.load()), "established");
    let reply = answer(&on_the_wire(segment(ACK), KEPT));
    assert!(matches!(world.xdp(UPLINK, reply.bytes()), Fate::Sent(GUEST1, _)), "at once");
    world.wait(Timeouts::RFC.tcp_established - 1);
    assert_eq!(world.sweep_connections(), 0);
    world.wait(1);
    assert_eq!(world.sweep_connections(), 1);
}

#[test]
fn a_connection_through_a_forward_is_taken_up_from_both_sides() {
    let packet = incoming(L4::Tcp(ACK), at(SERVER, 40_000), at(EXTERNAL, 8080));
    let arrives = to_guest(packet.clone(), GUEST1, 80);
    let world = world(UNTIL);
    assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST1, arrives.bytes()));
    let reply = answer(&arrives);
    let Fate::Sent(UPLINK, sent) = world.tc(GUEST1, reply.bytes()) else { panic!("not sent") };
    assert_eq!(sent[26..30], EXTERNAL.octets());
    assert_eq!(sent[34..36], 8080_u16.to_be_bytes(), "by the port that was asked");
    assert_eq!((world.tables.connections().len(), world.check()), (1, Ok(())));
}

#[test]
fn a_held_port_admits_a_segment_only_within_the_window() {
    for (until, is_taken) in [(UNTIL, true), (0, false)] {
        let world = world(until);
        world.change_network(NAT, |network| network.nat.filtering = Filtering::EndpointIndependent as u8);
        world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(SYN), KEPT, server()).bytes());
        world.tc(GUEST1, udp(GUEST1, KEPT).bytes());
        let packet = incoming(L4::Tcp(ACK), at(SERVER2, 9), at(EXTERNAL, KEPT));
        let fate = world.tc(UPLINK, packet.bytes());
        assert_eq!(matches!(fate, Fate::Sent(GUEST1, _)), is_taken, "{fate:?}");
    }
}
