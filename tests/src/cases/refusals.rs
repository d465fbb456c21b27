//! ICMP errors that vnet sends about packets that it cannot route, and those that it must not send.

use std::net::Ipv4Addr;

use vnet_common::DropReason::*;

use super::{Case, NET_UNREACHABLE, PROHIBITED, TOO_BIG, TTL_EXCEEDED, at, from_outside, to_gateway};
use crate::{
    frame::{ICMP, Ipv4, SCTP, UDP},
    switch::{GATEWAY_MAC, GUEST1, Port, UNREACHABLE},
    topology::{GATEWAY, HOST, OUTSIDE},
};

const SYN: u8 = 0x02;
/// "Don't fragment".
const DF: u16 = 0x4000;
const MORE: u16 = 0x2000;

pub fn cases() -> Vec<Case> {
    [contents(), too_big(), silent(), from_the_wire()].concat()
}

fn udp(payload: &[u8]) -> Ipv4 {
    Ipv4::udp(at(GUEST1.1, 50_000), at(OUTSIDE, 53), payload)
}

/// A packet whose TTL ends here.
fn ends(name: impl Into<String>, packet: Ipv4) -> Case {
    Case::refuses(name, Port::Guest1, to_gateway(&packet.ttl(1)), TtlExceeded, TTL_EXCEEDED)
}

/// What the quotation holds: as much as there is, 548 bytes at most, options and odd ends too.
fn contents() -> Vec<Case> {
    let options = [1, 1, 1, 0];
    let mut cases: Vec<_> = [0, 1, 2, 3, 4, 5, 519, 520, 521, 700, 1472]
        .into_iter()
        .map(|length| ends(format!("TTL ends, {length} bytes of payload"), udp(&vec![0xa5; length])))
        .collect();
    let mut padded = to_gateway(&udp(b"a").ttl(1));
    let quoted = padded.clone();
    padded.extend([0xee; 20]);
    let mut with_padding = Case::refuses("padding is not quoted", Port::Guest1, quoted, TtlExceeded, TTL_EXCEEDED);
    with_padding.frame = padded;
    cases.extend([
        with_padding,
        ends("TTL ends, IP options", udp(b"abc").options(&options)),
        ends("TTL ends, type of service", Ipv4 { tos: 0xb8, ..udp(b"abcd") }),
        ends("TTL ends, no UDP checksum", udp(b"abcd").spoil(6, &[0, 0])),
        ends("TTL ends, a wrong UDP checksum", udp(b"abcd").spoil(6, &[1, 1])),
        ends("TTL ends, TCP", Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), SYN, b"")),
        ends("TTL ends, echo", Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 7, b"ping")),
        ends("TTL ends, SCTP", Ipv4::sctp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), 1, &[7; 16])),
        ends("TTL ends, another protocol", Ipv4::new(GUEST1.1, OUTSIDE, 47, vec![9; 21])),
        ends("TTL ends, a first fragment", udp(b"abcdabcd").fragment(MORE)),
        ends("TTL ends on a known flow, untranslated", udp(b"again"))
            .setup(|setup| setup.snat = (60_000, 60_000))
            .after(Port::Guest1, to_gateway(&udp(b"first"))),
        Case::refuses(
            "no route for TCP",
            Port::Guest1,
            to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(UNREACHABLE, 80), SYN, b"")),
            NoRoute,
            NET_UNREACHABLE,
        ),
        Case::refuses(
            "no outside for a host-only guest's echo",
            Port::Guest1,
            to_gateway(&Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 7, b"ping")),
            OutsideRefused,
            PROHIBITED,
        )
        .setup(|setup| setup.mode = 4),
    ]);
    cases
}

/// Path-MTU discovery: the next hop's MTU is told (RFC 1191).
fn too_big() -> Vec<Case> {
    let small_uplink = |case: Case| case.setup(|setup| setup.mtus = vec![(Port::Uplink, 1400)]);
    let datagram = |length: usize| to_gateway(&udp(&vec![0; length - 28]).fragment(DF));
    let segments = to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), 0x10, &[0x5a; 3000]).fragment(DF));
    let refused = |name: &str, frame: Vec<u8>| {
        small_uplink(Case::refuses_with_mtu(name, Port::Guest1, frame, OverMtu, (TOO_BIG, 1400)))
    };
    let syn = to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), SYN, b""));
    vec![
        refused("a byte more than the uplink carries", datagram(1401)),
        refused("too big for the uplink, without DF", to_gateway(&udp(&[0; 1400]))),
        // The kernel's route look-up has a word to say about such lengths, too.
        Case::refuses_with_mtu("far too big", Port::Guest1, datagram(1600), OverMtu, (TOO_BIG, 1500)),
        refused("too big on a known flow", datagram(1500)).after(Port::Guest1, to_gateway(&udp(b"first"))),
        refused("GSO in segments too big for the uplink", segments).gso(1361).after(Port::Guest1, syn),
        Case::refuses_with_mtu(
            "an answer too big for the guest",
            Port::Uplink,
            from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, 50_000), &[1; 1273]).fragment(DF)),
            OverMtu,
            (TOO_BIG, 1300),
        )
        .setup(|setup| setup.mtus = vec![(Port::Guest1, 1300)])
        .after(Port::Guest1, to_gateway(&udp(b"first"))),
    ]
}

/// What RFC 1122 3.2.2 forbids to answer.
fn silent() -> Vec<Case> {
    let ends = |name: &str, packet: Ipv4| {
        Case::drops(format!("not answered: {name}"), Port::Guest1, to_gateway(&packet.ttl(1)), TtlExceeded)
    };
    let error = |kind: u8| {
        let quoted = Ipv4::udp(at(OUTSIDE, 53), at(GUEST1.1, 50_000), b"abcd").packet();
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        Ipv4::new(GUEST1.1, OUTSIDE, ICMP, message).with_l4_checksum(2)
    };
    let mut cases: Vec<_> =
        [3, 4, 5, 11, 12, 40].into_iter().map(|kind| ends(&format!("ICMP type {kind}"), error(kind))).collect();
    cases.extend([
        ends("a later fragment", udp(b"abcdabcd").fragment(MORE | 4)),
        ends("the last fragment", udp(b"abcdabcd").fragment(4)),
        ends("a later fragment of an echo", Ipv4::new(GUEST1.1, OUTSIDE, ICMP, vec![8; 16]).fragment(4)),
        ends("the gateway's own address as source", Ipv4::udp(at(GATEWAY, 50_000), at(OUTSIDE, 53), b"abcd")),
        ends(
            "the subnet's broadcast address as source",
            Ipv4::udp(at(Ipv4Addr::new(10, 77, 0, 255), 50_000), at(OUTSIDE, 53), b"abcd"),
        ),
        Case::drops(
            "not answered: a foreign source",
            Port::Guest1,
            Ipv4::udp(at(OUTSIDE, 9), at(OUTSIDE, 53), b"abcd").ttl(1).frame(GATEWAY_MAC, GUEST1.0),
            ForeignSource,
        ),
    ]);
    cases
}

/// Towards the outside it is the uplink's address that speaks.
fn from_the_wire() -> Vec<Case> {
    let routed = |case: Case| case.setup(|setup| setup.mode = 3);
    let to = |last: u8| Ipv4::udp(at(OUTSIDE, 53), at(Ipv4Addr::new(10, 77, 0, last), 9), b"abcd");
    let too_big = Ipv4::new(OUTSIDE, GUEST1.1, SCTP, vec![6; 1481]).fragment(DF);
    let later = Ipv4::new(OUTSIDE, GUEST1.1, UDP, vec![6; 16]).fragment(4).ttl(1);
    let source = |src: Ipv4Addr| from_outside(&Ipv4::udp(at(src, 53), at(GUEST1.1, 9), b"abcd").ttl(1));
    let mut cases = vec![
        routed(Case::refuses_with_mtu(
            "too big for a routed guest",
            Port::Uplink,
            from_outside(&too_big),
            OverMtu,
            (TOO_BIG, 1500),
        )),
        routed(Case::drops("a later fragment for a routed guest", Port::Uplink, from_outside(&later), TtlExceeded)),
        routed(Case::drops(
            "TTL ends for a routed subnet's broadcast",
            Port::Uplink,
            from_outside(&to(255).ttl(1)),
            TtlExceeded,
        )),
        routed(Case::refuses(
            "TTL ends for a routed guest",
            Port::Uplink,
            from_outside(&to(11).ttl(1)),
            TtlExceeded,
            TTL_EXCEEDED,
        )),
    ];
    for src in [[127, 0, 0, 1], [0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], HOST.octets()] {
        let src = Ipv4Addr::from(src);
        let name = format!("TTL ends for {src}, which is not one host elsewhere");
        cases.push(routed(Case::drops(name, Port::Uplink, source(src), TtlExceeded)));
    }
    cases
}
