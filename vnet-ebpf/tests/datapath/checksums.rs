//! Checksums after translation, judged by full computation.

use proptest::prelude::*;

use crate::{
    frames::{self, ACK, L4, Packet, TCP_CHECKSUM_AT, UDP_CHECKSUM_AT},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

/// The bytes of a frame that was sent out of a vport.
fn sent(fate: Fate, by: u32) -> Vec<u8> {
    match fate {
        Fate::Sent(to, bytes) if to == by => bytes,
        other => panic!("not sent by {by}: {other:?}"),
    }
}

#[test]
fn a_partial_checksum_stays_partial_both_ways() {
    for packet in [syn(GUEST1, KEPT), udp(GUEST1, KEPT), syn(GUEST1, 1000), udp(GUEST1, 1000)] {
        let world = World::new();
        let mut out = sent(world.tc(GUEST1, Arrival::from(packet.clone().partial().bytes()).partial()), UPLINK);
        let port = u16::from_be_bytes([out[34], out[35]]);
        let on_wire = on_the_wire(packet.clone(), port);
        assert_eq!(out, on_wire.clone().partial().bytes(), "out, as the device gets it");
        frames::finish_partial(&mut out);
        assert_eq!(out, on_wire.bytes(), "out, as the device sends it");
        let reply = answer(&on_wire);
        let received = to_guest(reply.clone(), GUEST1, packet.src.port());
        let back = world.tc(UPLINK, Arrival::from(reply.partial().bytes()).partial());
        assert_eq!(back, Fate::Sent(GUEST1, received.partial().bytes()), "back");
    }
}

#[test]
fn a_partial_checksum_stays_partial_through_a_forward() {
    let world = World::new();
    world.forward(17, (None, 8080), (GUEST1, 80));
    let packet = incoming(L4::Udp, at(SERVER, 40_000), at(EXTERNAL, 8080));
    let received = to_guest(packet.clone(), GUEST1, 80);
    let arrival = Arrival::from(packet.partial().bytes()).partial();
    assert_eq!(world.tc(UPLINK, arrival), Fate::Sent(GUEST1, received.partial().bytes()));
}

#[test]
fn a_gso_frame_keeps_its_partial_checksum_whatever_its_length() {
    for length in [1501, 30_000, 65_535, 66_000, 200_000] {
        let world = World::new();
        world.tc(GUEST1, syn(GUEST1, KEPT).bytes());
        let bulk = outgoing(GUEST1, L4::Tcp(ACK), KEPT, server()).length(length).partial();
        let out = world.tc(GUEST1, Arrival::from(bulk.bytes()).gso(1448).partial().linear(100));
        assert_eq!(out, Fate::Sent(UPLINK, on_the_wire(bulk, KEPT).bytes()), "{length}");
    }
}

/// `packet` with a payload for which `checksum` holds of its checksum once it is on the wire.
fn with_checksum(packet: &Packet, offset: usize, checksum: [u8; 2]) -> Packet {
    let find = (0..=u16::MAX).map(|word| packet.clone().payload(&word.to_be_bytes())).find(|packet| {
        let bytes = on_the_wire(packet.clone(), KEPT).bytes();
        bytes[offset..offset + 2] == checksum
    });
    find.expect("some payload has it")
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
    // The builder does what RFC 768 says: the computed sum is 0.
    let packet = with_checksum(&udp(GUEST1, KEPT), UDP_CHECKSUM_AT, [0xff, 0xff]);
    let world = World::new();
    let out = sent(world.tc(GUEST1, packet.bytes()), UPLINK);
    assert_eq!(out[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2], [0xff, 0xff]);
    assert_eq!(out, on_the_wire(packet.clone(), KEPT).bytes());
    assert_eq!(sent(world.xdp(GUEST1, packet.bytes()), UPLINK), out);
}

#[test]
fn a_tcp_checksum_that_becomes_zero_stays_zero() {
    let packet = with_checksum(&syn(GUEST1, KEPT), TCP_CHECKSUM_AT, [0, 0]);
    let out = sent(World::new().tc(GUEST1, packet.bytes()), UPLINK);
    assert_eq!(out[TCP_CHECKSUM_AT..TCP_CHECKSUM_AT + 2], [0, 0]);
}

#[test]
fn a_udp_checksum_of_all_ones_is_a_sum_like_any_other() {
    let packet = (0..=u16::MAX)
        .map(|word| udp(GUEST1, KEPT).payload(&word.to_be_bytes()))
        .find(|packet| packet.bytes()[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2] == [0xff, 0xff])
        .expect("some payload has it");
    let out = sent(World::new().tc(GUEST1, packet.bytes()), UPLINK);
    assert_eq!(out, on_the_wire(packet, KEPT).bytes());
}

#[test]
fn no_udp_checksum_stays_none_both_ways() {
    for port in [KEPT, 1000] {
        let world = World::new();
        let packet = outgoing(GUEST1, L4::UdpWithoutChecksum, port, server());
        let out = sent(world.tc(GUEST1, packet.bytes()), UPLINK);
        assert_eq!(out[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2], [0, 0]);
        let external = u16::from_be_bytes([out[34], out[35]]);
        let reply = answer(&on_the_wire(packet, external));
        let back = sent(world.tc(UPLINK, reply.bytes()), GUEST1);
        assert_eq!(back[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2], [0, 0]);
    }
}

fn any_l4() -> impl Strategy<Value = L4> {
    prop_oneof![Just(L4::Tcp(frames::SYN)), Just(L4::Udp), Just(L4::UdpWithoutChecksum), Just(L4::EchoRequest)]
}

proptest! {
    #![proptest_config(crate::deterministic(256))]

    #[test]
    fn every_translation_has_right_checksums(
        l4 in any_l4(),
        port in 1..=u16::MAX,
        external in any::<u32>(),
        server_port in 1..=u16::MAX,
        ttl in 2..=u8::MAX,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        words in 0..4_usize,
        partial in any::<bool>(),
        complete_at_xdp in any::<bool>(),
    ) {
        let world = World::new();
        world.change_vport(UPLINK, |vport| vport.external = vnet_common::Ip::from_v4_raw(external));
        let ping = matches!(l4, L4::EchoRequest);
        let packet = if ping { ping_of(port) } else { outgoing(GUEST1, l4, port, at(SERVER, server_port)) };
        let packet = packet.ttl(ttl).payload(&payload).options(&vec![1; words * 4]);
        let can_be_partial = matches!(l4, L4::Tcp(_) | L4::Udp);
        let packet = if partial && can_be_partial { packet.partial() } else { packet };
        let mut arrival = Arrival::from(packet.bytes());
        arrival.is_partial = packet.is_partial;
        let mut out = sent(world.tc(GUEST1, arrival), UPLINK);
        if packet.is_partial {
            frames::finish_partial(&mut out);
        }
        prop_assert_eq!(frames::judge(&out), Ok(()));
        // Once more, by the established path.
        if complete_at_xdp && !packet.is_partial
            && let Fate::Sent(_, again) = world.xdp(GUEST1, packet.bytes())
        {
            prop_assert_eq!(again, out);
        }
    }
}

fn ping_of(identifier: u16) -> Packet {
    ping(GUEST1, identifier)
}
