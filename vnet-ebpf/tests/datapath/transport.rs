//! MSS clamping with the checksums that offloads leave, and SCTP.

use proptest::prelude::*;
use vnet_common::conntrack::protocol::SCTP;

use crate::{
    deterministic,
    frames::{ACK, ETHERNET, L4, L4_AT, Packet, SYN, finish_partial, judge, make_partial},
    packets::{KEPT, at, incoming, outgoing, server},
    world::{Arrival, EXTERNAL, Fate, GUEST1, SNAT_FIRST, SNAT_LAST, UPLINK, World, ip},
};

/// A SYN's frame with these options (a multiple of four bytes) and a right checksum.
fn with_options(packet: &Packet, options: &[u8]) -> Vec<u8> {
    // The options are the payload that follows a header which says that it is longer.
    let mut frame = packet.clone().payload(options).bytes();
    frame[L4_AT + 12] = ((5 + options.len() / 4) as u8) << 4;
    make_partial(&mut frame);
    finish_partial(&mut frame);
    frame
}

fn sent(fate: Fate) -> Vec<u8> {
    match fate {
        Fate::Sent(_, frame) => frame,
        other => panic!("{other:?}"),
    }
}

/// The size that the options ask for, read as RFC 9293 has it.
fn size(options: &[u8]) -> Option<u16> {
    match options {
        [0, ..] | [] => None,
        [1, rest @ ..] => size(rest),
        [2, 4, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        [2, ..] => None,
        [_, length, ..] if *length >= 2 => size(options.get(usize::from(*length)..)?),
        _ => None,
    }
}

#[test]
fn what_looks_like_a_size_is_none_where_the_options_are_malformed_or_over() {
    let world = World::new();
    world.change_vport(UPLINK, |vport| vport.mtu = 1400);
    let syn = outgoing(GUEST1, L4::Tcp(SYN), KEPT, server());
    // The bytes behind the header, and how many of them are options.
    let cases: [(&[u8], u8); 5] = [
        (&[3, 1, 2, 4, 0x05, 0xb4, 1, 1], 8),
        (&[3, 0, 2, 4, 0x05, 0xb4, 1, 1], 8),
        (&[1, 1, 2, 4, 0x05, 0xb4, 1, 1], 4),
        (&[1, 1, 1, 2, 4, 0x05, 0xb4, 1], 4),
        (&[2, 4, 0x05, 0xb4], 0),
    ];
    for (bytes, options) in cases {
        let mut frame = with_options(&syn, bytes);
        frame[L4_AT + 12] = (5 + options / 4) << 4;
        make_partial(&mut frame);
        finish_partial(&mut frame);
        let out = sent(world.tc(GUEST1, frame));
        assert_eq!(&out[L4_AT + 20..], bytes);
        assert_eq!(judge(&out), Ok(()));
    }
}

#[test]
fn a_syn_and_its_answer_are_clamped_whatever_their_checksum_is() {
    for is_partial in [false, true] {
        let world = World::new();
        world.change_vport(UPLINK, |vport| vport.mtu = 1400);
        let arrival = |mut frame: Vec<u8>| {
            if is_partial {
                make_partial(&mut frame);
                Arrival::from(frame).partial().linear(60)
            } else {
                Arrival::from(frame)
            }
        };
        let finished = |mut frame: Vec<u8>| {
            if is_partial {
                finish_partial(&mut frame);
            }
            frame
        };
        let syn = outgoing(GUEST1, L4::Tcp(SYN), KEPT, server());
        let answer = incoming(L4::Tcp(SYN | ACK), server(), at(EXTERNAL, KEPT));
        for (from, packet) in [(GUEST1, syn), (UPLINK, answer)] {
            for options in [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4, 1, 1, 1]] {
                let frame = with_options(&packet, options);
                assert_eq!(judge(&frame), Ok(()));
                let out = finished(sent(world.tc(from, arrival(frame.clone()))));
                assert_eq!(judge(&out), Ok(()), "{options:?}");
                assert_eq!(size(&out[L4_AT + 20..]), Some(1360), "{options:?}");
                assert_eq!(world.xdp(from, frame), Fate::PassUp, "every SYN is TC's");
            }
        }
    }
}

proptest! {
    #![proptest_config(deterministic(512))]

    #[test]
    fn any_options_come_out_as_they_were_but_for_a_size_that_is_too_large(
        words in proptest::collection::vec(prop_oneof![
            any::<[u8; 4]>(),
            any::<[u8; 2]>().prop_map(|[a, b]| [2, 4, a, b]),
            any::<[u8; 1]>().prop_map(|[a]| [1, 2, 4, a]),
            Just([3, 3, 7, 1]),
            Just([4, 2, 1, 1]),
        ], 0..=10),
    ) {
        let options = words.concat();
        let world = World::new();
        world.change_vport(UPLINK, |vport| vport.mtu = 1400);
        let frame = with_options(&outgoing(GUEST1, L4::Tcp(SYN), KEPT, server()), &options);
        let out = sent(world.tc(GUEST1, frame));
        prop_assert_eq!(judge(&out), Ok(()));
        let after = &out[L4_AT + 20..];
        let expected = size(&options).map(|size| size.min(1360));
        prop_assert_eq!(size(after), expected);
        let changed = options.iter().zip(after).filter(|(before, after)| before != after).count();
        prop_assert!(changed <= if size(&options) == expected { 0 } else { 2 }, "{} bytes changed", changed);
    }
}

/// The definition of CRC32c, bit by bit.
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

/// The SCTP packet of a frame with a right CRC.
fn with_crc(mut packet: Vec<u8>) -> Vec<u8> {
    packet[8..12].fill(0);
    let crc = crc32c(&packet);
    packet[8..12].copy_from_slice(&crc);
    packet
}

fn sctp(packet: Packet, (src, dst): (u16, u16), chunks: &[u8]) -> Vec<u8> {
    let header = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0, 0, 0, 9], &[0; 4]].concat();
    packet.payload(&with_crc([&header, chunks].concat())).bytes()
}

proptest! {
    #![proptest_config(deterministic(256))]

    #[test]
    fn sctp_is_translated_there_and_back_with_a_right_crc(port in 1u16.., chunks in proptest::collection::vec(any::<u8>(), 4..1400)) {
        let world = World::new();
        let init = [&[1][..], &chunks].concat();
        let frame = sctp(outgoing(GUEST1, L4::Other(SCTP), port, server()), (port, 80), &init);
        let out = sent(world.tc(GUEST1, frame));
        let segment = &out[L4_AT..];
        prop_assert_eq!(&out[ETHERNET + 12..ETHERNET + 16], &EXTERNAL.octets());
        prop_assert_eq!(segment, &with_crc(segment.to_vec())[..]);
        let external = u16::from_be_bytes([segment[0], segment[1]]);
        prop_assert!((SNAT_FIRST..=SNAT_LAST).contains(&external));
        let back = sctp(incoming(L4::Other(SCTP), server(), at(EXTERNAL, external)), (80, external), &chunks);
        let arrived = sent(world.tc(UPLINK, back));
        let segment = &arrived[L4_AT..];
        prop_assert_eq!(&arrived[ETHERNET + 16..ETHERNET + 20], &ip(GUEST1).octets());
        prop_assert_eq!(u16::from_be_bytes([segment[2], segment[3]]), port);
        prop_assert_eq!(segment, &with_crc(segment.to_vec())[..]);
    }
}

#[test]
fn sctp_whose_crc_is_left_to_the_device_keeps_the_field_zero_and_is_not_xdps() {
    let world = World::new();
    let mut frame = sctp(outgoing(GUEST1, L4::Other(SCTP), 7, server()), (7, 80), &[1, 0, 0, 4]);
    frame[L4_AT + 8..L4_AT + 12].fill(0);
    for _ in 0..2 {
        let out = sent(world.tc(GUEST1, frame.clone()));
        assert_eq!(out[L4_AT + 8..L4_AT + 12], [0; 4]);
        assert_ne!(out[L4_AT..L4_AT + 2], frame[L4_AT..L4_AT + 2]);
    }
    assert_eq!(world.xdp(GUEST1, frame), Fate::PassUp);
}

#[test]
fn an_sctp_gso_frame_passes_whatever_its_length() {
    let world = World::new();
    // INIT opens the association.
    let mut frame = sctp(outgoing(GUEST1, L4::Other(SCTP), KEPT, server()), (KEPT, 80), &[1; 9000]);
    frame[L4_AT + 8..L4_AT + 12].fill(0);
    // GSO_BY_FRAGS.
    let out = sent(world.tc(GUEST1, Arrival::from(frame.clone()).gso(0xffff)));
    assert_eq!(out.len(), frame.len());
}
