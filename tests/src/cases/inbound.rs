//! Packets from the outside: forwards.

use vnet_common::DropReason::*;

use super::{Case, Expect, TTL_EXCEEDED, at, from_outside, on_the_wire, to_gateway, to_guest};
use crate::{
    frame::{Ipv4, TCP, UDP, tagged},
    switch::{GUEST1, GUEST3, HOST2, Port, Setup},
    topology::{GATEWAY, HOST, INTERNET, OUTSIDE},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn forwards(setup: &mut Setup) {
    setup.forwards = vec![
        (TCP, None, 8080, GUEST1.1, 80),
        (UDP, None, 5353, GUEST1.1, 53),
        (TCP, Some(HOST2), 9090, GUEST1.1, 90),
        (TCP, Some(HOST2), 8081, GUEST1.1, 80),
        (UDP, None, 5454, GUEST3.1, 54),
    ];
}

fn from_wire(name: &str, packet: &Ipv4, expect: Expect) -> Case {
    Case::new(name, Port::Uplink, from_outside(packet), expect).setup(forwards)
}

fn arrives(packet: Ipv4) -> Expect {
    Expect::Sends(Port::Guest1, to_guest(GUEST1.0, packet))
}

pub fn cases() -> Vec<Case> {
    [opening(), not_forwarded(), answers()].concat()
}

fn syn(to: std::net::SocketAddrV4) -> Ipv4 {
    Ipv4::tcp(at(OUTSIDE, 40_000), to, SYN, b"")
}

fn opening() -> Vec<Case> {
    let udp = |to| Ipv4::udp(at(INTERNET, 40_000), to, b"question");
    let options = [7, 3, 4, 0];
    vec![
        from_wire("a forwarded SYN", &syn(at(HOST, 8080)), arrives(syn(at(GUEST1.1, 80)))),
        from_wire("a forwarded SYN, once more", &syn(at(HOST, 8080)), arrives(syn(at(GUEST1.1, 80))))
            .after(Port::Uplink, from_outside(&syn(at(HOST, 8080)))),
        from_wire("a forward on any address", &syn(at(HOST2, 8080)), arrives(syn(at(GUEST1.1, 80)))),
        from_wire("a forward on one address", &syn(at(HOST2, 9090)), arrives(syn(at(GUEST1.1, 90)))),
        from_wire("a forwarded datagram", &udp(at(HOST, 5353)), arrives(udp(at(GUEST1.1, 53)))),
        from_wire(
            "a forwarded datagram without checksum",
            &udp(at(HOST, 5353)).spoil(6, &[0, 0]),
            arrives(udp(at(GUEST1.1, 53)).spoil(6, &[0, 0])),
        ),
        from_wire(
            "a forwarded datagram with IP options",
            &udp(at(HOST, 5353)).options(&options),
            arrives(udp(at(GUEST1.1, 53)).options(&options)),
        ),
        from_wire("a forwarded datagram on a known flow", &udp(at(HOST, 5353)), arrives(udp(at(GUEST1.1, 53))))
            .after(Port::Uplink, from_outside(&udp(at(HOST, 5353))))
            .accelerated(),
        // Nobody knows the guest's MAC address yet: the kernel asks for it.
        from_wire(
            "a forward to a guest that has not spoken",
            &udp(at(HOST, 5454)),
            Expect::Resolves(Port::Gateway, to_guest(GUEST3.0, udp(at(GUEST3.1, 54)))),
        ),
        from_wire(
            "a forward to a guest that the switch has forgotten",
            &udp(at(HOST, 5353)),
            Expect::Resolves(Port::Gateway, to_guest(GUEST1.0, udp(at(GUEST1.1, 53)))),
        )
        .setup(|setup| setup.learned.clear()),
    ]
}

fn not_forwarded() -> Vec<Case> {
    let segment = |flags| Ipv4::tcp(at(OUTSIDE, 40_000), at(HOST, 8080), flags, b"");
    let mut cases = vec![
        Case::refuses(
            "a forwarded SYN with TTL 1",
            Port::Uplink,
            from_outside(&syn(at(HOST, 8080)).ttl(1)),
            TtlExceeded,
            TTL_EXCEEDED,
        )
        .setup(forwards),
        // Two forwards lead to one guest's port: the second connection from there cannot be told apart.
        Case::drops("a tuple that is taken", Port::Uplink, from_outside(&syn(at(HOST2, 8081))), TupleTaken)
            .setup(forwards)
            .after(Port::Uplink, from_outside(&syn(at(HOST, 8080)))),
        Case::drops("a forward to a port without device", Port::Uplink, from_outside(&syn(at(HOST, 8080))), PortAbsent)
            .setup(forwards)
            .setup(|setup| setup.absent = Some(Port::Guest1)),
        Case::new("a tagged SYN", Port::Uplink, tagged(5, &from_outside(&syn(at(HOST, 8080)))), Expect::ToHost)
            .setup(forwards),
    ];
    for (name, packet) in [
        ("another port", syn(at(HOST, 8082))),
        ("another address", syn(at(HOST, 9090))),
        ("no address of the host", syn(at(INTERNET, 8080))),
        ("another protocol", syn(at(HOST, 5353))),
        ("ACK of no connection", segment(ACK)),
        ("RST of no connection", segment(0x04)),
        ("SYN/ACK", segment(SYN | ACK)),
        ("the guest itself", syn(at(GUEST1.1, 80))),
        ("the gateway", syn(at(GATEWAY, 22))),
    ] {
        cases.push(from_wire(&format!("not forwarded: {name}"), &packet, Expect::ToHost));
    }
    cases.push(from_wire("a fragment before its first", &syn(at(HOST, 8080)).fragment(0x0003), Expect::Kept));
    cases
}

fn answers() -> Vec<Case> {
    let question = Ipv4::udp(at(OUTSIDE, 40_000), at(HOST, 5353), b"question");
    let answer = Ipv4::udp(at(GUEST1.1, 53), at(OUTSIDE, 40_000), b"answer");
    let answer_out = Ipv4::udp(at(HOST, 5353), at(OUTSIDE, 40_000), b"answer");
    let syn_ack = Ipv4::tcp(at(GUEST1.1, 80), at(OUTSIDE, 40_000), SYN | ACK, b"");
    let syn_ack_out = Ipv4::tcp(at(HOST, 8080), at(OUTSIDE, 40_000), SYN | ACK, b"");
    let own = Ipv4::udp(at(GUEST1.1, 53), at(INTERNET, 40_000), b"own");
    let own_out = Ipv4::udp(at(HOST, 60_000), at(INTERNET, 40_000), b"own");
    let guest = |name: &str, packet: &Ipv4, out: Ipv4| {
        Case::new(name, Port::Guest1, to_gateway(packet), Expect::Sends(Port::Uplink, on_the_wire(out))).setup(forwards)
    };
    vec![
        guest("a forwarded datagram's answer", &answer, answer_out.clone())
            .after(Port::Uplink, from_outside(&question)),
        guest("a forwarded datagram's second answer", &answer, answer_out)
            .after(Port::Uplink, from_outside(&question))
            .after(Port::Guest1, to_gateway(&answer))
            .accelerated(),
        guest("a forwarded SYN's answer", &syn_ack, syn_ack_out)
            .after(Port::Uplink, from_outside(&syn(at(HOST, 8080)))),
        guest(
            "routed: a forwarded datagram's answer",
            &answer,
            Ipv4::udp(at(HOST, 5353), at(OUTSIDE, 40_000), b"answer"),
        )
        .setup(|setup| setup.mode = 3)
        .after(Port::Uplink, from_outside(&question)),
        guest("the guest's own flow from a forwarded port", &own, own_out)
            .setup(|setup| setup.snat = (60_000, 60_000))
            .after(Port::Uplink, from_outside(&question)),
    ]
}
