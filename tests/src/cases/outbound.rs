//! Guests' packets to the outside: translated, and back again.

use vnet_common::DropReason::*;

use super::{Case, Expect, PROHIBITED, TOO_BIG, TTL_EXCEEDED, at, from_outside, on_the_wire, to_gateway, to_guest};
use crate::{
    checksum,
    frame::{ICMP, Ipv4, UDP},
    switch::{GATEWAY_MAC, GUEST1, GUEST2, Port},
    topology::{GATEWAY, HOST, INTERNET, OUTSIDE},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

pub fn cases() -> Vec<Case> {
    [new_flows(), checksums(), replies(), ports(), routed(), to_the_host()].concat()
}

fn sends(packet: Ipv4) -> Expect {
    Expect::Sends(Port::Uplink, on_the_wire(packet))
}

fn guest_sends(name: &str, packet: &Ipv4, expect: Expect) -> Case {
    Case::new(name, Port::Guest1, to_gateway(packet), expect)
}

fn guest_refuses(name: &str, packet: &Ipv4, reason: vnet_common::DropReason, error: ([u8; 2], u16)) -> Case {
    Case::refuses_with_mtu(name, Port::Guest1, to_gateway(packet), reason, error)
}

/// A guest's datagram, and the same with the host's address.
fn udp(payload: &[u8]) -> (Ipv4, Ipv4) {
    let to = at(OUTSIDE, 53);
    (Ipv4::udp(at(GUEST1.1, 50_000), to, payload), Ipv4::udp(at(HOST, 50_000), to, payload))
}

fn new_flows() -> Vec<Case> {
    let (inside, outside) = udp(b"abcd");
    let syn = Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), SYN, b"");
    let syn_out = Ipv4::tcp(at(HOST, 50_000), at(OUTSIDE, 80), SYN, b"");
    let echo = Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 50_000, b"ping");
    let far = Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 53), b"abcd");
    let far_out = Ipv4::udp(at(HOST, 50_000), at(INTERNET, 53), b"abcd");
    let options = [1, 1, 1, 0];
    vec![
        guest_sends("UDP opens a flow", &inside, sends(outside.clone())),
        guest_sends("UDP on a known flow", &inside, sends(outside.clone()))
            .after(Port::Guest1, to_gateway(&inside))
            .accelerated(),
        guest_sends("an empty datagram", &udp(b"").0, sends(udp(b"").1)),
        guest_sends("an odd number of bytes", &udp(b"abc").0, sends(udp(b"abc").1)),
        guest_sends("TCP SYN", &syn, sends(syn_out)),
        guest_sends("ICMP echo", &echo, sends(Ipv4::icmp_echo(HOST, OUTSIDE, 8, 50_000, b"ping"))),
        guest_sends("by a router to beyond", &far, sends(far_out)),
        guest_sends("TTL 2", &inside.clone().ttl(2), sends(outside.clone().ttl(2))),
        guest_refuses("TTL 1 on a known flow", &inside.clone().ttl(1), TtlExceeded, (TTL_EXCEEDED, 0))
            .after(Port::Guest1, to_gateway(&inside)),
        guest_sends("IP options are kept", &inside.clone().options(&options), sends(outside.options(&options))),
        guest_refuses("a datagram longer than the uplink's MTU", &udp(&[0; 1473]).0, OverMtu, (TOO_BIG, 1500)),
    ]
}

/// A datagram whose translated checksum computes to zero, and must travel as 0xffff.
fn folding_to_zero() -> (Ipv4, Ipv4) {
    (0..=u16::MAX)
        .map(|word| udp(&word.to_be_bytes()))
        .find(|(_, outside)| outside.payload[6..8] == [0xff, 0xff])
        .expect("one of all words makes the sum zero")
}

/// A datagram that has 0xffff for a checksum before it is translated.
fn folded_to_zero() -> (Ipv4, Ipv4) {
    (0..=u16::MAX)
        .map(|word| udp(&word.to_be_bytes()))
        .find(|(inside, _)| inside.payload[6..8] == [0xff, 0xff])
        .expect("one of all words makes the sum zero")
}

fn checksums() -> Vec<Case> {
    let (inside, outside) = udp(b"abcd");
    let none = |packet: Ipv4| packet.spoil(6, &[0, 0]);
    let (folding, folding_out) = folding_to_zero();
    let (folded, folded_out) = folded_to_zero();
    // The ICMP checksum has no pseudo-header: nothing changes but for the identifier.
    let echo = Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 7, b"ping");
    let echo_out = Ipv4::icmp_echo(HOST, OUTSIDE, 8, 60_000, b"ping");
    assert_eq!(checksum::judge(&to_gateway(&folded)), Ok(checksum::L4::Full));
    vec![
        guest_sends("UDP without checksum stays without", &none(inside.clone()), sends(none(outside.clone()))),
        guest_sends("UDP without checksum on a known flow", &none(inside.clone()), sends(none(outside)))
            .after(Port::Guest1, to_gateway(&inside))
            .accelerated(),
        guest_sends("a checksum that becomes zero is sent as ffff", &folding, sends(folding_out)),
        guest_sends("a checksum that was ffff", &folded, sends(folded_out)),
        guest_sends("a wrong checksum stays wrong", &inside.clone().spoil(8, b"B"), sends(wrong(&udp(b"abcd").1))),
        guest_sends("ICMP's identifier changes its checksum", &echo, sends(echo_out))
            .setup(|setup| setup.snat = (60_000, 60_000)),
    ]
}

/// Spoilt in the same way, for comparison.
fn wrong(packet: &Ipv4) -> Ipv4 {
    packet.clone().spoil(8, b"B")
}

fn replies() -> Vec<Case> {
    let (inside, _) = udp(b"abcd");
    let answer = |port: u16| from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, port), b"answer"));
    let arrives = |port: u16| {
        let packet = Ipv4::udp(at(OUTSIDE, 53), at(GUEST1.1, port), b"answer");
        Expect::Sends(Port::Guest1, to_guest(GUEST1.0, packet))
    };
    let syn = Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), SYN, b"");
    let syn_ack = Ipv4::tcp(at(OUTSIDE, 80), at(HOST, 50_000), SYN | ACK, b"");
    let syn_ack_in = Ipv4::tcp(at(OUTSIDE, 80), at(GUEST1.1, 50_000), SYN | ACK, b"");
    let ack = Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), ACK, b"data");
    let ack_out = Ipv4::tcp(at(HOST, 50_000), at(OUTSIDE, 80), ACK, b"data");
    let echo = Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 7, b"ping");
    let echo_reply = Ipv4::icmp_echo(OUTSIDE, HOST, 0, 60_000, b"pong");
    let echo_reply_in = Ipv4::icmp_echo(OUTSIDE, GUEST1.1, 0, 7, b"pong");
    let open = (Port::Guest1, to_gateway(&inside));
    let case = |name: &str, frame: Vec<u8>, expect: Expect| Case::new(name, Port::Uplink, frame, expect);
    let mut cases = vec![
        case("UDP's answer", answer(50_000), arrives(50_000)).after(open.0, open.1.clone()),
        case("UDP's second answer", answer(50_000), arrives(50_000))
            .after(open.0, open.1.clone())
            .after(Port::Uplink, answer(50_000))
            .accelerated(),
        case("UDP's answer to a guest's other port", answer(60_000), arrives(4000))
            .setup(|setup| setup.snat = (60_000, 60_000))
            .after(Port::Guest1, to_gateway(&Ipv4::udp(at(GUEST1.1, 4000), at(OUTSIDE, 53), b"abcd"))),
        case("TCP's SYN/ACK", from_outside(&syn_ack), Expect::Sends(Port::Guest1, to_guest(GUEST1.0, syn_ack_in)))
            .after(Port::Guest1, to_gateway(&syn)),
        guest_sends("TCP data", &ack, sends(ack_out))
            .after(Port::Guest1, to_gateway(&syn))
            .after(Port::Uplink, from_outside(&syn_ack))
            .after(Port::Guest1, to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), ACK, b"")))
            .accelerated(),
        case(
            "ICMP's echo reply",
            from_outside(&echo_reply),
            Expect::Sends(Port::Guest1, to_guest(GUEST1.0, echo_reply_in)),
        )
        .setup(|setup| setup.snat = (60_000, 60_000))
        .after(Port::Guest1, to_gateway(&echo)),
        Case::refuses("an answer with TTL 1", Port::Uplink, ttl_1(), TtlExceeded, TTL_EXCEEDED)
            .after(open.0, open.1.clone()),
    ];
    // What differs in one field from the answer is the host's.
    for (name, packet) in [
        ("another port", Ipv4::udp(at(OUTSIDE, 53), at(HOST, 50_001), b"answer")),
        ("another protocol", Ipv4::tcp(at(OUTSIDE, 53), at(HOST, 50_000), ACK, b"answer")),
        ("the guest's own address", Ipv4::udp(at(OUTSIDE, 53), at(GUEST1.1, 50_000), b"answer")),
    ] {
        cases.push(
            case(&format!("no answer: {name}"), from_outside(&packet), Expect::ToHost).after(open.0, open.1.clone()),
        );
    }
    // Filtering is address-dependent (RFC 4787 REQ-8).
    let other_port = |dst| Ipv4::udp(at(OUTSIDE, 54), dst, b"other");
    let other_address = Ipv4::udp(at(INTERNET, 53), at(HOST, 50_000), b"answer");
    cases.extend([
        case(
            "an address that the guest has sent to, from another port",
            from_outside(&other_port(at(HOST, 50_000))),
            Expect::Sends(Port::Guest1, to_guest(GUEST1.0, other_port(at(GUEST1.1, 50_000)))),
        )
        .after(open.0, open.1.clone()),
        case("another address", from_outside(&other_address), Expect::Drop(Filtered)).after(open.0, open.1),
    ]);
    cases
}

fn ttl_1() -> Vec<u8> {
    from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, 50_000), b"answer").ttl(1))
}

fn ports() -> Vec<Case> {
    let low = Ipv4::udp(at(GUEST1.1, 53), at(OUTSIDE, 53), b"abcd");
    let from_guest2 = Ipv4::udp(at(GUEST2.1, 4000), at(OUTSIDE, 53), b"two").frame(GATEWAY_MAC, GUEST2.0);
    let (inside, _) = udp(b"abcd");
    let to_internet = Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 99), b"same");
    let to_internet_out = Ipv4::udp(at(HOST, 60_000), at(INTERNET, 99), b"same");
    let one = |case: Case| case.setup(|setup| setup.snat = (60_000, 60_000));
    vec![
        one(guest_sends(
            "a port below the range gets one of the range",
            &low,
            sends(Ipv4::udp(at(HOST, 60_000), at(OUTSIDE, 53), b"abcd")),
        )),
        one(guest_sends("one binding for every destination", &to_internet, sends(to_internet_out)))
            .after(Port::Guest1, to_gateway(&inside)),
        one(Case::refuses("the range is used up", Port::Guest2, from_guest2.clone(), PortsExhausted, PROHIBITED))
            .after(Port::Guest1, to_gateway(&inside)),
        one(Case::new(
            "TCP's ports are not UDP's",
            Port::Guest2,
            Ipv4::tcp(at(GUEST2.1, 4000), at(OUTSIDE, 80), SYN, b"").frame(GATEWAY_MAC, GUEST2.0),
            sends(Ipv4::tcp(at(HOST, 60_000), at(OUTSIDE, 80), SYN, b"")),
        ))
        .after(Port::Guest1, to_gateway(&inside)),
        Case::new(
            "two guests with one port get two",
            Port::Guest2,
            from_guest2,
            sends(Ipv4::udp(at(HOST, 60_001), at(OUTSIDE, 53), b"two")),
        )
        .setup(|setup| setup.snat = (60_000, 60_001))
        .after(Port::Guest1, to_gateway(&Ipv4::udp(at(GUEST1.1, 60_000), at(OUTSIDE, 53), b"one"))),
    ]
}

fn routed() -> Vec<Case> {
    let routed = |case: Case| case.setup(|setup| setup.mode = 3);
    let (inside, _) = udp(b"abcd");
    let fragment = inside.clone().fragment(0x2000);
    let gre = Ipv4::new(GUEST1.1, OUTSIDE, 47, vec![9; 20]);
    let back = Ipv4::udp(at(OUTSIDE, 53), at(GUEST1.1, 50_000), b"back");
    vec![
        routed(guest_sends("routed: untranslated", &inside, sends(inside.clone()))),
        routed(guest_sends("routed: fragments pass", &fragment, sends(fragment.clone()))),
        routed(guest_sends("routed: any protocol passes", &gre, sends(gre.clone()))),
        routed(Case::new(
            "routed: the way back",
            Port::Uplink,
            from_outside(&back),
            Expect::Sends(Port::Guest1, to_guest(GUEST1.0, back.clone())),
        )),
        routed(Case::refuses(
            "routed: TTL 1 on the way back",
            Port::Uplink,
            from_outside(&back.ttl(1)),
            TtlExceeded,
            TTL_EXCEEDED,
        )),
        routed(Case::new(
            "routed: the gateway's own address",
            Port::Uplink,
            from_outside(&Ipv4::icmp_echo(OUTSIDE, GATEWAY, 8, 7, b"ping")),
            Expect::ToHost,
        )),
    ]
}

fn to_the_host() -> Vec<Case> {
    let up = |name: &str, packet: Ipv4| {
        let frame = to_gateway(&packet);
        Case::new(name, Port::Guest1, frame.clone(), Expect::Sends(Port::Gateway, frame))
    };
    vec![
        up("ping of the gateway", Ipv4::icmp_echo(GUEST1.1, GATEWAY, 8, 7, b"ping")),
        up("the host's address on the uplink", Ipv4::udp(at(GUEST1.1, 50_000), at(HOST, 53), b"abcd")),
        up("TTL 1 for the host", Ipv4::udp(at(GUEST1.1, 50_000), at(HOST, 53), b"abcd").ttl(1)),
        up("a fragment for the host", Ipv4::new(GUEST1.1, HOST, UDP, vec![0; 16]).fragment(0x2000)),
        up("an ICMP error for the host", Ipv4::new(GUEST1.1, HOST, ICMP, vec![3; 36]).with_l4_checksum(2)),
    ]
}
