//! ARP: the gateway answers, everybody else is asked.

use std::net::Ipv4Addr;

use vnet_common::{DropReason, Mac, config::Subnet, vport::VportId};

use crate::{
    case::{self, Case},
    frames::{arp, arp_request, tagged},
    world::*,
};

/// The gateway's answer, whole.
fn answer(to: VportId, address: Ipv4Addr) -> Vec<u8> {
    arp(2, (mac(to), mac(GATEWAY)), (mac(GATEWAY), address), (mac(to), ip(to)))
}

fn question(from: VportId, address: Ipv4Addr) -> Vec<u8> {
    arp_request((mac(from), ip(from)), address)
}

fn floods(name: &str, from: VportId, frame: impl Into<Arrival>, to: &[VportId]) -> Case {
    Case::new(name, from, frame, Fate::Flooded(to.to_vec()))
}

#[test]
fn the_gateway_is_answered_for_in_place() {
    let second = Ipv4Addr::new(10, 1, 1, 1);
    let probe = arp_request((mac(GUEST1), Ipv4Addr::UNSPECIFIED), ip(GATEWAY));
    let probe_answer =
        arp(2, (mac(GUEST1), mac(GATEWAY)), (mac(GATEWAY), ip(GATEWAY)), (mac(GUEST1), Ipv4Addr::UNSPECIFIED));
    let unicast = arp(1, (mac(GATEWAY), mac(GUEST1)), (mac(GUEST1), ip(GUEST1)), (mac(GATEWAY), ip(GATEWAY)));
    let padded = [question(GUEST1, ip(GATEWAY)), vec![0; 18]].concat();
    let padded_answer = [answer(GUEST1, ip(GATEWAY)), vec![0; 18]].concat();
    case::run(vec![
        Case::new("asked", GUEST1, question(GUEST1, ip(GATEWAY)), Fate::Sent(GUEST1, answer(GUEST1, ip(GATEWAY)))),
        Case::new(
            "asked by another",
            GUEST3,
            question(GUEST3, ip(GATEWAY)),
            Fate::Sent(GUEST3, answer(GUEST3, ip(GATEWAY))),
        ),
        Case::new("asked with padding", GUEST1, padded, Fate::Sent(GUEST1, padded_answer)),
        Case::new("asked without an address yet", GUEST1, probe, Fate::Sent(GUEST1, probe_answer)),
        Case::new("asked again, by unicast", GUEST1, unicast, Fate::Sent(GUEST1, answer(GUEST1, ip(GATEWAY)))),
        Case::new(
            "asked for a second address",
            GUEST1,
            question(GUEST1, second),
            Fate::Sent(GUEST1, answer(GUEST1, second)),
        )
        .given(move |world| {
            world.change_network(NAT, |network| {
                network.subnets[3] = Subnet { gateway: second.into(), length: 96 + 24, pad: [0; 3] };
            });
        }),
    ]);
}

#[test]
fn a_question_teaches_where_the_asker_is() {
    let world = World::new();
    world.forget(GUEST1);
    world.tc(GUEST1, question(GUEST1, ip(GATEWAY)));
    assert_eq!(world.fdb(NAT, 0, mac(GUEST1)).unwrap().vport(), GUEST1);
}

#[test]
fn everybody_is_asked_for_everything_else() {
    let gratuitous = arp_request((mac(GUEST1), ip(GUEST1)), ip(GUEST1));
    let from_gateway = question(GUEST1, ip(GATEWAY));
    let reply = arp(2, (Mac::BROADCAST, mac(GUEST1)), (mac(GUEST1), ip(GUEST1)), (Mac::ZERO, ip(GATEWAY)));
    let spoilt = |offset: usize, byte: u8| {
        let mut frame = question(GUEST1, ip(GATEWAY));
        frame[offset] = byte;
        frame
    };
    let others = [GATEWAY, GUEST2, GUEST3];
    case::run(vec![
        floods("a guest", GUEST1, question(GUEST1, ip(GUEST2)), &others),
        floods("oneself", GUEST1, gratuitous, &others),
        floods("an address of the host elsewhere", GUEST1, question(GUEST1, EXTERNAL), &others),
        floods("another network's gateway", GUEST1, question(GUEST1, ip(OTHER_GATEWAY)), &others),
        floods("an answer is no question", GUEST1, reply, &others),
        floods("not Ethernet", GUEST1, spoilt(15, 6), &others),
        floods("not IPv4", GUEST1, spoilt(16, 0x86), &others),
        floods("long hardware addresses", GUEST1, spoilt(18, 8), &others),
        floods("long protocol addresses", GUEST1, spoilt(19, 16), &others),
        floods("reverse ARP", GUEST1, spoilt(21, 3), &others),
        floods("on a VLAN", GUEST1, tagged(0x8100, 7, &from_gateway), &others),
        floods("no gateway here", ISOLATED_GUEST1, question(ISOLATED_GUEST1, ip(GATEWAY)), &[ISOLATED_GUEST2]),
        floods(
            "no address at all",
            ISOLATED_GUEST1,
            question(ISOLATED_GUEST1, Ipv4Addr::UNSPECIFIED),
            &[ISOLATED_GUEST2],
        ),
        floods(
            "the host asks",
            GATEWAY,
            arp_request((mac(GATEWAY), ip(GATEWAY)), ip(GUEST1)),
            &[GUEST1, GUEST2, GUEST3],
        )
        .at(Hook::GatewayEgress),
    ]);
}

#[test]
fn a_question_cut_off_anywhere_is_dropped_with_the_reason() {
    let whole = question(GUEST1, ip(GATEWAY));
    let case = |length: usize| {
        let reason = if length < 14 { DropReason::TruncatedEthernet } else { DropReason::TruncatedArp };
        Case::dropped(format!("{length} bytes"), GUEST1, whole.get(..length).unwrap(), reason)
    };
    case::run((0..whole.len()).map(case).collect());
}
