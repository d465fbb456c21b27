//! ICMP errors that the datapath itself sends, and when it does not.

use std::net::Ipv4Addr;

use etherparse::{Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header};
use vnet_common::{
    DropReason::{self, *},
    stats::EventCount,
    vport::VportId,
};
use vnet_ebpf::{context::Route, datapath::PER_SECOND, tables::Tables};

use crate::{
    frames::{ACK, ETHERNET, L4, L4_AT, Packet, SYN, judge},
    packets::{KEPT, at, incoming, outgoing, server, syn, udp},
    world::{
        Arrival, BY_OTHER_UPLINK, EXTERNAL, Fate, GATEWAY, GUEST1, GUEST2, HOST_ONLY_GATEWAY, HOST_ONLY_GUEST,
        ROUTED_GATEWAY, ROUTED_GUEST1, SERVER, UNREACHABLE, UPLINK, World, ip,
    },
};

const NET_UNREACHABLE: (u8, u8) = (3, 0);
const HOST_UNREACHABLE: (u8, u8) = (3, 1);
const TOO_BIG: (u8, u8) = (3, 4);
const PROHIBITED: (u8, u8) = (3, 13);
const TTL_EXCEEDED: (u8, u8) = (11, 0);

/// Bytes of the headers before a quotation, and of the longest quotation.
const HEADERS: usize = 28;
const QUOTED: usize = 576 - HEADERS;

/// The error about a frame that a router sends back on its link.
fn error(frame: &[u8], router: Ipv4Addr, (kind, code): (u8, u8), mtu: u16) -> Vec<u8> {
    let packet = &frame[ETHERNET..];
    let quoted = &packet[..packet.len().min(QUOTED)];
    let [m0, m1] = mtu.to_be_bytes();
    let message = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: [0, 0, m0, m1] };
    let icmp = Icmpv4Header::with_checksum(message, quoted);
    let to = packet[12..16].try_into().unwrap();
    let length = u16::try_from(icmp.header_len() + quoted.len()).unwrap();
    let mut header = Ipv4Header::new(length, 64, IpNumber::ICMP, router.octets(), to).unwrap();
    // Precedence "internetwork control".
    header.dscp = 0x30.try_into().unwrap();
    header.dont_fragment = false;
    header.identification = u16::from_be_bytes([packet[4], packet[5]]);
    header.header_checksum = header.calc_header_checksum();
    [&frame[6..12], &frame[..6], &[8, 0], &header.to_bytes()[..], &icmp.to_bytes()[..], quoted].concat()
}

/// The one answer to a frame that is dropped, if there is one.
fn answer(world: &World, from: VportId, arrival: impl Into<Arrival>, reason: DropReason) -> Option<Vec<u8>> {
    world.replies.take();
    assert_eq!(world.tc(from, arrival), Fate::Dropped(reason));
    let mut replies = world.replies.take();
    assert!(replies.len() < 2);
    replies.pop()
}

type Preparation = fn(&World);
/// Before, the packet and where it comes from; what must come of it, and the router that says so.
type Refusal = (Preparation, VportId, Packet, DropReason, (u8, u8), u16, Ipv4Addr);

#[test]
fn every_reason_that_the_sender_can_be_told_has_its_error() {
    let guest = |to: Ipv4Addr| outgoing(GUEST1, L4::Udp, KEPT, at(to, 9));
    let host_only = outgoing(HOST_ONLY_GUEST, L4::Udp, KEPT, server());
    let to_routed = |length| incoming(L4::Udp, server(), at(ip(ROUTED_GUEST1), 9)).length(length);
    let small_guest: Preparation = |world| world.change_vport(ROUTED_GUEST1, |vport| vport.mtu = 1280);
    let no_route: Preparation = |world| world.kernel.set_route(ip(ROUTED_GUEST1).into(), 128, Route::None);
    let no_address: Preparation = |world| world.change_vport(UPLINK, |vport| vport.external = Default::default());
    let exhausted: Preparation = |world| {
        world.change_network(1, |network| network.nat.last_port = network.nat.first_port);
        world.tc(GUEST2, udp(GUEST2, 1).bytes());
    };
    let full: Preparation = |world| world.tables.connections().set_capacity(0);
    let nothing: Preparation = |_| {};
    let cases: [Refusal; 11] = [
        (nothing, GUEST1, guest(SERVER).ttl(1), TtlExceeded, TTL_EXCEEDED, 0, ip(GATEWAY)),
        (nothing, UPLINK, to_routed(100).ttl(1), TtlExceeded, TTL_EXCEEDED, 0, EXTERNAL),
        (nothing, GUEST1, guest(SERVER).length(1501), OverMtu, TOO_BIG, 1500, ip(GATEWAY)),
        (small_guest, UPLINK, to_routed(1281), OverMtu, TOO_BIG, 1280, EXTERNAL),
        (nothing, GUEST1, guest(UNREACHABLE), NoRoute, NET_UNREACHABLE, 0, ip(GATEWAY)),
        (no_route, UPLINK, to_routed(100), NoRoute, HOST_UNREACHABLE, 0, EXTERNAL),
        (nothing, GUEST1, guest(BY_OTHER_UPLINK), NotAnUplink, NET_UNREACHABLE, 0, ip(GATEWAY)),
        (no_address, GUEST1, guest(SERVER), NoExternalAddress, NET_UNREACHABLE, 0, ip(GATEWAY)),
        (nothing, HOST_ONLY_GUEST, host_only, OutsideRefused, PROHIBITED, 0, ip(HOST_ONLY_GATEWAY)),
        (exhausted, GUEST1, guest(SERVER), PortsExhausted, PROHIBITED, 0, ip(GATEWAY)),
        (full, GUEST1, guest(SERVER), TableFull, PROHIBITED, 0, ip(GATEWAY)),
    ];
    for (number, (prepare, from, packet, reason, kind, mtu, router)) in cases.into_iter().enumerate() {
        let world = World::new();
        prepare(&world);
        let expected = error(&packet.bytes(), router, kind, mtu);
        assert_eq!(judge(&expected), Ok(()));
        assert_eq!(answer(&world, from, packet.bytes(), reason), Some(expected), "case {number}: {reason:?}");
        assert_eq!(world.event(EventCount::IcmpErrorsSent), u64::from(world.stats(from).drops[reason as usize] > 0));
        assert_eq!(world.xdp(from, packet.bytes()), Fate::PassUp, "case {number}");
    }
}

/// Does with a quoted partial checksum what a device does: it knows where the quoted segment begins (behind two
/// headers more than before) and takes all to the end for it.
fn finish_quoted(frame: &mut [u8], field: usize) {
    let segment = L4_AT + HEADERS;
    let mut words: u64 = frame[segment..]
        .chunks(2)
        .map(|two| u64::from(two[0]) << 8 | two.get(1).map_or(0, |low| u64::from(*low)))
        .sum();
    while words > 0xffff {
        words = (words & 0xffff) + (words >> 16);
    }
    frame[segment + field..segment + field + 2].copy_from_slice(&(!(words as u16)).to_be_bytes());
}

#[test]
fn an_error_about_a_partial_checksum_is_right_once_the_device_has_completed_it() {
    for (l4, field, length) in
        [(L4::Tcp(SYN), 16, 40), (L4::Tcp(SYN), 16, 41), (L4::Tcp(ACK), 16, 1400), (L4::Udp, 6, 33), (L4::Udp, 6, 900)]
    {
        let packet = outgoing(GUEST1, l4, KEPT, server()).length(length).ttl(1).partial();
        let arrival = Arrival::from(packet.bytes()).partial().linear(98);
        let mut reply = answer(&World::new(), GUEST1, arrival, TtlExceeded).unwrap();
        assert_eq!(reply[ETHERNET + HEADERS..], packet.bytes()[ETHERNET..][..length.min(QUOTED)], "{l4:?} {length}");
        finish_quoted(&mut reply, field);
        assert_eq!(judge(&reply), Ok(()), "{l4:?} {length}");
    }
}

#[test]
fn a_gso_frame_too_big_in_its_segments_is_answered_by_one_packet() {
    let world = World::new();
    world.tc(GUEST1, syn(GUEST1, KEPT).bytes());
    world.change_vport(UPLINK, |vport| vport.mtu = 1400);
    for (gso_size, expected) in [(1360, None), (1361, Some(OverMtu))] {
        world.replies.take();
        let packet = outgoing(GUEST1, L4::Tcp(ACK), KEPT, server()).length(30_000).partial();
        let fate = world.tc(GUEST1, Arrival::from(packet.bytes()).gso(gso_size).partial());
        assert_eq!(matches!(fate, Fate::Dropped(_)), expected.is_some(), "{gso_size}: {fate:?}");
        let replies = world.replies.take();
        assert_eq!(replies.len(), usize::from(expected.is_some()));
        for mut reply in replies {
            assert_eq!(reply.len(), ETHERNET + 576);
            assert_eq!(reply[L4_AT..L4_AT + 2], [3, 4]);
            assert_eq!(reply[L4_AT + 6..L4_AT + 8], 1400_u16.to_be_bytes());
            finish_quoted(&mut reply, 16);
            assert_eq!(judge(&reply), Ok(()));
        }
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let error_about = |kind: u8| {
        let mut frame = outgoing(GUEST1, L4::EchoRequest, KEPT, server()).ttl(1).bytes();
        frame[L4_AT] = kind;
        frame
    };
    let mut frames: Vec<(String, VportId, Vec<u8>)> =
        [3, 4, 5, 11, 12, 19, 255].map(|kind| (format!("ICMP type {kind}"), GUEST1, error_about(kind))).into();
    let later = |more| outgoing(GUEST1, L4::Udp, KEPT, server()).ttl(1).fragment(3, more).bytes();
    let routed = |src: Ipv4Addr, dst: Ipv4Addr| incoming(L4::Udp, at(src, 9), at(dst, 9)).ttl(1).bytes();
    let [a, b, c, _] = ip(ROUTED_GUEST1).octets();
    frames.extend([
        ("a middle fragment".to_owned(), GUEST1, later(true)),
        ("the last fragment".to_owned(), GUEST1, later(false)),
        ("a broadcast destination".to_owned(), UPLINK, routed(SERVER, Ipv4Addr::new(a, b, c, 255))),
        (
            "the gateway's source".to_owned(),
            GUEST1,
            outgoing(GUEST1, L4::Udp, KEPT, server()).src(at(ip(GATEWAY), 9)).ttl(1).bytes(),
        ),
    ]);
    for src in [[127, 0, 0, 1], [0, 0, 0, 1], [224, 0, 0, 9], [255; 4], EXTERNAL.octets(), ip(ROUTED_GATEWAY).octets()]
    {
        let src = Ipv4Addr::from(src);
        frames.push((format!("source {src}"), UPLINK, routed(src, ip(ROUTED_GUEST1))));
    }
    for (name, from, frame) in frames {
        let world = World::new();
        assert_eq!(answer(&world, from, frame, TtlExceeded), None, "{name}");
        assert_eq!(world.event(EventCount::IcmpErrorsSent) + world.event(EventCount::IcmpErrorsLimited), 0, "{name}");
    }
}

#[test]
fn an_outside_without_address_to_speak_from_gets_no_error() {
    let world = World::new();
    world.change_vport(UPLINK, |vport| vport.external = Default::default());
    let packet = incoming(L4::Udp, server(), at(ip(ROUTED_GUEST1), 9)).ttl(1);
    assert_eq!(answer(&world, UPLINK, packet.bytes(), TtlExceeded), None);
}

#[test]
fn bridged_frames_that_are_dropped_get_no_error() {
    use crate::world::mac;
    let world = World::new();
    let between = Packet::new(L4::Udp, at(ip(GUEST1), 9), at(ip(GUEST2), 9)).link(mac(GUEST2), mac(GUEST1));
    assert_eq!(answer(&world, GUEST1, between.length(1501).bytes(), OverMtu), None);
}

#[test]
fn errors_are_limited_by_port_and_second_and_the_rest_is_counted() {
    let world = World::new();
    let ends = |guest| udp(guest, KEPT).ttl(1).bytes();
    for second in 1..=3 {
        world.wait(1);
        for _ in 0..PER_SECOND + 7 {
            world.tc(GUEST1, ends(GUEST1));
        }
        assert_eq!(world.event(EventCount::IcmpErrorsSent), second * u64::from(PER_SECOND));
        assert_eq!(world.event(EventCount::IcmpErrorsLimited), second * 7);
    }
    assert_eq!(world.stats(GUEST1).drops[TtlExceeded as usize], 3 * u64::from(PER_SECOND + 7));
    assert!(answer(&world, GUEST2, ends(GUEST2), TtlExceeded).is_some(), "another guest has a budget of its own");
}

#[test]
fn an_error_quotes_the_packet_as_it_came_and_not_as_it_was_translated() {
    let world = World::new();
    world.tc(GUEST1, udp(GUEST1, 7).bytes());
    let packet = udp(GUEST1, 7).ttl(1);
    let expected = error(&packet.bytes(), ip(GATEWAY), TTL_EXCEEDED, 0);
    assert_eq!(answer(&world, GUEST1, packet.bytes(), TtlExceeded), Some(expected));
}
