//! Frames that must not enter: truncated ones, wrong sources, control addresses; and tags.

use vnet_common::{DropReason, Mac, fdb::FdbKind, vport::VportId};
use vnet_ebpf::tables::Tables as _;

use crate::{
    case::{self, Case},
    frames::{L4, L4_AT, Packet, arp_request, ethernet, tagged},
    packets::{at, outgoing, ping, server, syn, udp},
    world::*,
};

const TEST: u16 = 0x88b5;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

#[test]
fn a_source_that_no_honest_guest_has_is_refused() {
    let frame = |src| ethernet(mac(GUEST2), src, TEST, &[0; 46]);
    let group = Mac([3, 0, 0, 0, 0, 1]);
    let elsewhere = |src| move |world: &World| assert!(world.fdb(NAT, 0, src).is_none(), "learned");
    case::run(vec![
        Case::dropped("group address", GUEST1, frame(group), DropReason::GroupSource).then(elsewhere(group)),
        Case::dropped("broadcast", GUEST1, frame(Mac::BROADCAST), DropReason::GroupSource)
            .then(elsewhere(Mac::BROADCAST)),
        Case::dropped("zero", GUEST1, frame(Mac::ZERO), DropReason::GroupSource).then(elsewhere(Mac::ZERO)),
        Case::dropped("the gateway's", GUEST1, frame(mac(GATEWAY)), DropReason::GatewaySource)
            .then(|world| assert_eq!(world.fdb(NAT, 0, mac(GATEWAY)).unwrap().vport(), GATEWAY)),
        Case::new("group address from the wire", BRIDGE_UPLINK, frame(group), Fate::ToHost),
        Case::new("zero from the wire", BRIDGE_UPLINK, frame(Mac::ZERO), Fate::ToHost),
    ]);
}

#[test]
fn control_addresses_are_never_forwarded() {
    let mut cases = Vec::new();
    for last in 0..=0x0f_u8 {
        let control = Mac([0x01, 0x80, 0xc2, 0, 0, last]);
        let frame = |from| ethernet(control, mac(from), TEST, &[0; 46]);
        let name = |from: &str| format!("{control} from {from}");
        cases.extend([
            Case::dropped(name("a guest"), GUEST1, frame(GUEST1), DropReason::LinkLocalControl),
            Case::new(name("the wire"), BRIDGE_UPLINK, ethernet(control, ROUTER_MAC, TEST, &[]), Fate::ToHost),
            Case::new(name("the host"), BRIDGE_UPLINK, frame(BRIDGE_UPLINK), Fate::ToHost).at(Hook::UplinkEgress),
        ]);
    }
    let next = ethernet(Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]), mac(GUEST1), TEST, &[]);
    cases.push(Case::new("the one after", GUEST1, next, Fate::Flooded(vec![GATEWAY, GUEST2, GUEST3])));
    case::run(cases);
}

/// Puts a guest's address on a VLAN, too.
fn on_vlan(vlan: u16, vport: VportId) -> impl Fn(&World) {
    use vnet_common::fdb::{FdbEntry, FdbKey};
    move |world| {
        let key = FdbKey::new(network_of(vport), vlan, mac(vport));
        world.tables.fdb().put(key, FdbEntry::new(vport, FdbKind::Learned, START));
    }
}

#[test]
fn a_tag_stays_and_its_vlan_is_part_of_every_address() {
    let plain = udp(GUEST1, 1000).link(mac(GUEST2), mac(GUEST1)).bytes();
    let everyone = vec![GATEWAY, GUEST2, GUEST3];
    // Priority and DEI bits are no part of the VLAN.
    let tci = 0xf000 | 5;
    let in_bytes = tagged(VLAN, tci, &plain);
    let service = tagged(SERVICE_VLAN, 5, &tagged(VLAN, 6, &plain));
    let priority = tagged(VLAN, 0xe000, &plain);
    let learned_on = |vlan| move |world: &World| assert!(world.fdb(NAT, vlan, mac(GUEST1)).is_some());
    case::run(vec![
        Case::new("in the bytes", GUEST1, in_bytes.clone(), Fate::Sent(GUEST2, in_bytes.clone()))
            .given(on_vlan(5, GUEST1))
            .given(on_vlan(5, GUEST2))
            .accelerated(),
        Case::new("beside the bytes", GUEST1, Arrival::from(plain.clone()).tag(tci), Fate::Sent(GUEST2, plain.clone()))
            .given(on_vlan(5, GUEST2))
            .then(learned_on(5)),
        Case::new("another VLAN's address is not known", GUEST1, in_bytes.clone(), Fate::Flooded(everyone.clone()))
            .given(on_vlan(6, GUEST2))
            .then(learned_on(5)),
        Case::new("a service tag counts, the inner one does not", GUEST1, service.clone(), Fate::Sent(GUEST2, service))
            .given(on_vlan(5, GUEST2)),
        Case::new("a priority tag is on no VLAN", GUEST1, priority.clone(), Fate::Sent(GUEST2, priority))
            .given(on_vlan(0, GUEST1))
            .accelerated(),
        Case::dropped("nothing behind the tag", GUEST1, in_bytes.get(..17).unwrap(), DropReason::TruncatedVlan),
    ]);
}

#[test]
fn a_tagged_frame_for_the_gateway_is_not_routed() {
    let packet = udp(GUEST1, 1000).bytes();
    let question = arp_request((mac(GUEST1), ip(GUEST1)), ip(GATEWAY));
    case::run(vec![
        Case::dropped("in the bytes", GUEST1, tagged(VLAN, 5, &packet), DropReason::VlanNotRouted),
        Case::dropped("beside the bytes", GUEST1, Arrival::from(packet).tag(5), DropReason::VlanNotRouted),
        Case::new(
            "ARP is flooded on its VLAN",
            GUEST1,
            tagged(VLAN, 5, &question),
            Fate::Flooded(vec![GATEWAY, GUEST2, GUEST3]),
        ),
        Case::new(
            "ARP with the tag beside it",
            GUEST1,
            Arrival::from(question).tag(5),
            Fate::Flooded(vec![GATEWAY, GUEST2, GUEST3]),
        ),
    ]);
}

/// Valid frames of every kind, with the offset at which their L4 header ends.
fn valid_frames() -> Vec<(&'static str, Vec<u8>, usize)> {
    let options = |packet: Packet| packet.options(&[1; 40]);
    vec![
        ("udp", udp(GUEST1, 1000).bytes(), L4_AT + 8),
        ("tcp", syn(GUEST1, 1000).bytes(), L4_AT + 20),
        ("echo", ping(GUEST1, 1000).bytes(), L4_AT + 8),
        ("udp with options", options(udp(GUEST1, 1000)).bytes(), L4_AT + 48),
        ("tcp with options", options(syn(GUEST1, 1000)).bytes(), L4_AT + 60),
        ("echo with options", options(ping(GUEST1, 1000)).bytes(), L4_AT + 48),
    ]
}

#[test]
fn a_packet_for_the_gateway_cut_off_anywhere_is_dropped_with_the_reason() {
    let mut cases = Vec::new();
    for (name, whole, _) in valid_frames() {
        for length in 0..whole.len() {
            let reason = match length {
                0..14 => DropReason::TruncatedEthernet,
                _ => DropReason::TruncatedIpv4,
            };
            let cut = whole.get(..length).unwrap();
            cases.push(Case::dropped(format!("{name} of {length} bytes"), GUEST1, cut, reason));
        }
    }
    case::run(cases);
}

#[test]
fn a_packet_whose_total_length_ends_within_the_l4_header_is_dropped_with_the_reason() {
    let mut cases = Vec::new();
    for (name, whole, l4_end) in valid_frames() {
        let header = usize::from(whole[14] & 0x0f) * 4;
        for length in 14 + header..whole.len() {
            // Cut off, and the total length says so.
            let mut cut = whole.get(..length).unwrap().to_vec();
            cut[16..18].copy_from_slice(&u16::try_from(length - 14).unwrap().to_be_bytes());
            let name = format!("{name} of {length} bytes");
            if length < l4_end {
                cases.push(Case::dropped(name, GUEST1, cut, DropReason::TruncatedL4));
            } else {
                let world = World::new();
                assert!(matches!(world.tc(GUEST1, cut), Fate::Sent(UPLINK, _)), "{name}");
            }
        }
    }
    case::run(cases);
}

#[test]
fn padding_is_no_l4_header() {
    let mut cases = Vec::new();
    for (name, whole, l4_end) in valid_frames() {
        let header = usize::from(whole[14] & 0x0f) * 4;
        for l4_length in 0..l4_end - 14 - header {
            // The frame is whole, but its packet is said to end within the header.
            let mut padded = whole.clone();
            padded[16..18].copy_from_slice(&u16::try_from(header + l4_length).unwrap().to_be_bytes());
            let name = format!("{name}, {l4_length} bytes of it");
            cases.push(Case::dropped(name, GUEST1, padded, DropReason::TruncatedL4));
        }
    }
    case::run(cases);
}

#[test]
fn a_frame_cut_off_anywhere_does_no_harm_at_any_hook() {
    let mut frames: Vec<Vec<u8>> = valid_frames().into_iter().map(|(_, frame, _)| frame).collect();
    frames.extend([
        tagged(VLAN, 5, &udp(GUEST1, 1000).bytes()),
        arp_request((mac(GUEST1), ip(GUEST1)), ip(GATEWAY)),
        tagged(SERVICE_VLAN, 5, &arp_request((mac(GUEST1), ip(GUEST1)), ip(GATEWAY))),
    ]);
    for frame in frames {
        for length in 0..=frame.len() {
            let cut = frame.get(..length).unwrap();
            let world = World::new();
            for vport in VPORTS {
                world.tc(vport, cut);
                world.xdp(vport, cut);
                world.tc(vport, Arrival::from(cut).gso(100));
                world.tc(vport, Arrival::from(cut).linear(0));
                world.run::<true>(Hook::GatewayEgress, vport, &cut.into());
                world.run::<true>(Hook::UplinkEgress, vport, &cut.into());
            }
        }
    }
}

#[test]
fn what_is_cut_off_from_the_outside_is_the_hosts() {
    let mut cases = Vec::new();
    for (name, whole, _) in valid_frames() {
        let whole = [&UPLINK_MAC.0[..], &ROUTER_MAC.0, whole.get(12..).unwrap()].concat();
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap();
            cases.push(Case::new(format!("{name} of {length} bytes"), UPLINK, cut, Fate::ToHost));
        }
    }
    case::run(cases);
}

#[test]
fn an_ipv4_header_that_contradicts_itself_is_dropped() {
    let good = udp(GUEST1, 1000).bytes();
    let spoilt = |offset: usize, byte: u8| {
        let mut frame = good.clone();
        frame[offset] = byte;
        frame
    };
    let total_length = |length: u16| {
        let mut frame = good.clone();
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame
    };
    let whole = u16::try_from(good.len() - 14).unwrap();
    let gso_zero = Arrival::from(total_length(0)).gso(20).partial();
    let mut cases = vec![
        Case::dropped("version 6", GUEST1, spoilt(14, 0x65), DropReason::InvalidIpv4),
        Case::dropped("version 0", GUEST1, spoilt(14, 0x05), DropReason::InvalidIpv4),
        Case::dropped("total length of nothing", GUEST1, total_length(0), DropReason::InvalidIpv4),
        Case::dropped("total length within the header", GUEST1, total_length(19), DropReason::InvalidIpv4),
        Case::dropped("total length behind the end", GUEST1, total_length(whole + 1), DropReason::TruncatedIpv4),
        Case::dropped("total length far behind the end", GUEST1, total_length(u16::MAX), DropReason::TruncatedIpv4),
        Case::dropped(
            "header behind the end",
            GUEST1,
            good.get(..40)
                .map(|cut| {
                    let mut cut = cut.to_vec();
                    (cut[14], cut[17]) = (0x4f, 26);
                    cut
                })
                .unwrap(),
            DropReason::InvalidIpv4,
        ),
        Case::dropped(
            "a header of options only, cut off",
            GUEST1,
            {
                let mut cut = good.clone();
                (cut[14], cut[16], cut[17]) = (0x4f, 0, 60);
                cut.truncate(14 + 59);
                cut
            },
            DropReason::TruncatedIpv4,
        ),
    ];
    for ihl in 0..5 {
        cases.push(Case::dropped(format!("IHL {ihl}"), GUEST1, spoilt(14, 0x40 | ihl), DropReason::InvalidIpv4));
    }
    case::run(cases);
    // BIG TCP (kernel 6.3) leaves the total length at 0, on GSO frames only.
    assert!(matches!(World::new().tc(GUEST1, gso_zero), Fate::Sent(UPLINK, _)));
}

#[test]
fn headers_beyond_the_linear_part_are_pulled_in() {
    let long = outgoing(GUEST1, L4::Tcp(2), 1000, server()).options(&[1; 40]).length(1400).bytes();
    let bridged = outgoing(GUEST1, L4::Udp, 1000, at(ip(GUEST2), 9)).link(mac(GUEST2), mac(GUEST1)).bytes();
    for linear in 0..98 {
        let fate = World::new().tc(GUEST1, Arrival::from(long.clone()).linear(linear));
        assert!(matches!(fate, Fate::Sent(UPLINK, _)), "{linear} linear bytes: {fate:?}");
        let fate = World::new().tc(GUEST1, Arrival::from(bridged.clone()).linear(linear));
        assert!(matches!(fate, Fate::Sent(GUEST2, _)), "{linear} linear bytes: {fate:?}");
    }
}

#[test]
fn headers_of_small_frames_beyond_the_linear_part_are_pulled_in() {
    for (name, frame, _) in valid_frames() {
        for linear in 0..frame.len() {
            let fate = World::new().tc(GUEST1, Arrival::from(frame.clone()).linear(linear));
            assert!(matches!(fate, Fate::Sent(UPLINK, _)), "{name}, {linear} linear bytes: {fate:?}");
        }
    }
}
