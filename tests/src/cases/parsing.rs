//! Frames that are cut off, malformed or forged.

use std::net::Ipv4Addr;

use vnet_common::DropReason::{self, *};

use super::{Case, Expect, NET_UNREACHABLE, PROHIBITED, TTL_EXCEEDED, at, from_outside, on_the_wire, to_gateway};
use crate::{
    frame::{ETHERTYPE_TEST, ICMP, Ipv4, Mac, TCP, UDP, arp, arp_request, ethernet, tagged},
    switch::{ELSEWHERE, GATEWAY_MAC, GUEST1, GUEST2, Port, UNREACHABLE},
    topology::{GATEWAY, HOST, OUTSIDE},
};

pub fn cases() -> Vec<Case> {
    [truncated(), malformed(), forged(), arp_cases(), not_routed(), from_the_wire()].concat()
}

fn guest_drops(name: impl Into<String>, frame: Vec<u8>, reason: DropReason) -> Case {
    Case::drops(name, Port::Guest1, frame, reason)
}

fn udp() -> Ipv4 {
    Ipv4::udp(at(GUEST1.1, 50_000), at(OUTSIDE, 53), b"abcd")
}

/// Shortest IPv4 frame that a test run takes; shorter ones come by the wire (`netns_bridge`).
const SHORTEST_IPV4: usize = 34;

/// Frames below 14 bytes are not for the kernel to hand over.
fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    let whole = tagged(5, &ethernet(GUEST2.0, GUEST1.0, ETHERTYPE_TEST, &[]));
    for length in 14..18 {
        cases.push(guest_drops(format!("VLAN tag cut at {length}"), whole[..length].to_vec(), TruncatedVlan));
    }
    let whole = arp_request(GUEST1, GATEWAY);
    for length in 14..whole.len() {
        cases.push(guest_drops(format!("ARP cut at {length}"), whole[..length].to_vec(), TruncatedArp));
    }
    let whole = to_gateway(&udp());
    for length in SHORTEST_IPV4..whole.len() {
        cases.push(guest_drops(format!("IPv4 cut at {length}"), whole[..length].to_vec(), TruncatedIpv4));
    }
    for (name, protocol, header) in [("UDP", UDP, 8), ("TCP", TCP, 20), ("ICMP", ICMP, 8)] {
        for length in 0..header {
            let packet = Ipv4::new(GUEST1.1, OUTSIDE, protocol, vec![0; length]);
            cases.push(guest_drops(format!("{name} header of {length} bytes"), to_gateway(&packet), TruncatedL4));
        }
    }
    cases
}

/// A good frame with some bytes changed.
fn spoilt(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = to_gateway(&udp());
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

fn malformed() -> Vec<Case> {
    let fragment = |flags| to_gateway(&udp().fragment(flags));
    vec![
        guest_drops("IHL 0", spoilt(14, &[0x40]), InvalidIpv4),
        guest_drops("IHL 4", spoilt(14, &[0x44]), InvalidIpv4),
        guest_drops("IHL beyond the packet", spoilt(14, &[0x4f]), InvalidIpv4),
        guest_drops("version 6 in an IPv4 frame", spoilt(14, &[0x65]), InvalidIpv4),
        guest_drops("version 0", spoilt(14, &[0x05]), InvalidIpv4),
        guest_drops("total length 0", spoilt(16, &[0, 0]), InvalidIpv4),
        guest_drops("total length below the header's", spoilt(16, &[0, 19]), InvalidIpv4),
        guest_drops("total length beyond the frame", spoilt(16, &[0, 33]), TruncatedIpv4),
        guest_drops("total length far beyond the frame", spoilt(16, &[0xff, 0xff]), TruncatedIpv4),
        Case::new("middle fragment before the first", Port::Guest1, fragment(0x2001), Expect::Kept),
        Case::new("last fragment before the first", Port::Guest1, fragment(0x0001), Expect::Kept),
        guest_drops(
            "first fragment with half a header",
            to_gateway(&Ipv4::new(GUEST1.1, OUTSIDE, UDP, vec![0; 4]).fragment(0x2000)),
            TruncatedL4,
        ),
        guest_drops("GRE", to_gateway(&Ipv4::new(GUEST1.1, OUTSIDE, 47, vec![0; 20])), UnsupportedProtocol),
        guest_drops(
            "ICMP destination unreachable",
            to_gateway(&Ipv4::new(GUEST1.1, OUTSIDE, ICMP, vec![3; 36]).with_l4_checksum(2)),
            IcmpErrorStray,
        ),
        // "Don't fragment" is no fragment, and padding behind the packet is none of it.
        Case::new(
            "don't fragment, and padding",
            Port::Guest1,
            [fragment(0x4000), vec![0xee; 14]].concat(),
            Expect::Sends(
                Port::Uplink,
                [on_the_wire(Ipv4::udp(at(HOST, 50_000), at(OUTSIDE, 53), b"abcd").fragment(0x4000)), vec![0xee; 14]]
                    .concat(),
            ),
        ),
    ]
}

fn forged() -> Vec<Case> {
    let from = |src: Mac| ethernet(GUEST2.0, src, ETHERTYPE_TEST, &[0; 46]);
    let to = |dst: Mac| ethernet(dst, GUEST1.0, ETHERTYPE_TEST, &[0; 46]);
    let mut cases = vec![
        guest_drops("group source", from(Mac([0x03, 0, 0, 0, 0, 1])), GroupSource),
        guest_drops("broadcast source", from(Mac::BROADCAST), GroupSource),
        guest_drops("zero source", from(Mac([0; 6])), GroupSource),
        guest_drops("the gateway's MAC as source", from(GATEWAY_MAC), GatewaySource),
        guest_drops(
            "ARP with the gateway's MAC as source",
            arp_request((GATEWAY_MAC, GUEST1.1), GUEST2.1),
            GatewaySource,
        ),
    ];
    for last in [0x00, 0x01, 0x02, 0x03, 0x0e, 0x0f] {
        let control = Mac([1, 0x80, 0xc2, 0, 0, last]);
        cases.push(guest_drops(format!("control address {control}"), to(control), LinkLocalControl));
    }
    cases
}

fn arp_cases() -> Vec<Case> {
    let request = arp_request(GUEST1, GATEWAY);
    let reply = ethernet(GUEST1.0, GATEWAY_MAC, 0x0806, &arp(2, (GATEWAY_MAC, GATEWAY), GUEST1));
    let unicast = ethernet(GATEWAY_MAC, GUEST1.0, 0x0806, &arp(1, GUEST1, (GATEWAY_MAC, GATEWAY)));
    let with_padding = |frame: &[u8]| [frame, &[0xaa; 18]].concat();
    let everyone_else = vec![Port::Guest2, Port::Guest3, Port::Gateway];
    let mut spoilt = request.clone();
    spoilt[18] = 7;
    let probe = arp_request((GUEST1.0, Ipv4Addr::UNSPECIFIED), GATEWAY);
    let probe_reply =
        ethernet(GUEST1.0, GATEWAY_MAC, 0x0806, &arp(2, (GATEWAY_MAC, GATEWAY), (GUEST1.0, Ipv4Addr::UNSPECIFIED)));
    vec![
        Case::new("ARP for the gateway", Port::Guest1, request.clone(), Expect::Answers(reply.clone())),
        Case::new(
            "ARP for the gateway with padding",
            Port::Guest1,
            with_padding(&request),
            Expect::Answers(with_padding(&reply)),
        ),
        Case::new("ARP for the gateway sent to its MAC", Port::Guest1, unicast, Expect::Answers(reply)),
        Case::new("ARP probe for the gateway", Port::Guest1, probe, Expect::Answers(probe_reply)),
        Case::new(
            "ARP for another guest",
            Port::Guest1,
            arp_request(GUEST1, GUEST2.1),
            Expect::Floods(everyone_else.clone()),
        ),
        Case::new("ARP for nobody", Port::Guest1, arp_request(GUEST1, HOST), Expect::Floods(everyone_else.clone())),
        Case::new(
            "ARP for the gateway on a VLAN",
            Port::Guest1,
            tagged(5, &request),
            Expect::Floods(everyone_else.clone()),
        ),
        Case::new("ARP with a hardware length of 7", Port::Guest1, spoilt, Expect::Floods(everyone_else)),
        Case::new(
            "ARP of the host for a guest",
            Port::Gateway,
            arp_request((GATEWAY_MAC, GATEWAY), GUEST1.1),
            Expect::Floods(vec![Port::Guest1, Port::Guest2, Port::Guest3]),
        ),
    ]
}

fn guest_refuses(name: &str, frame: Vec<u8>, reason: vnet_common::DropReason, kind: [u8; 2]) -> Case {
    Case::refuses(name, Port::Guest1, frame, reason, kind)
}

fn not_routed() -> Vec<Case> {
    let to = |dst: Ipv4Addr| to_gateway(&Ipv4::udp(at(GUEST1.1, 50_000), at(dst, 53), b"abcd"));
    let foreign = Ipv4::udp(at(Ipv4Addr::new(10, 99, 0, 1), 50_000), at(OUTSIDE, 53), b"abcd");
    let tcp = |flags| to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), flags, b""));
    vec![
        guest_refuses("TTL 1", to_gateway(&udp().ttl(1)), TtlExceeded, TTL_EXCEEDED),
        guest_refuses("TTL 0", to_gateway(&udp().ttl(0)), TtlExceeded, TTL_EXCEEDED),
        guest_drops("multicast to the gateway", to(Ipv4Addr::new(224, 0, 0, 251)), MulticastNotRouted),
        guest_drops("broadcast to the gateway", to(Ipv4Addr::BROADCAST), MulticastNotRouted),
        guest_drops("class E to the gateway", to(Ipv4Addr::new(240, 0, 0, 1)), MulticastNotRouted),
        guest_drops("another guest by way of the gateway", to(GUEST2.1), GuestsApart),
        guest_drops("a foreign source address", to_gateway(&foreign), ForeignSource),
        guest_refuses("an unreachable route", to(UNREACHABLE), NoRoute, NET_UNREACHABLE),
        guest_refuses("a route out of no uplink", to(ELSEWHERE), NotAnUplink, NET_UNREACHABLE),
        guest_drops("a tagged packet for the gateway", tagged(5, &to(OUTSIDE)), VlanNotRouted),
        guest_drops("ACK of no connection", tcp(0x10), NoConnection),
        guest_drops("RST of no connection", tcp(0x04), NoConnection),
        guest_drops("SYN/ACK of no connection", tcp(0x12), NoConnection),
        guest_drops("FIN of no connection", tcp(0x11), NoConnection),
        guest_drops(
            "echo reply of no connection",
            to_gateway(&Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 0, 7, b"")),
            NoConnection,
        ),
        guest_drops("a stopped network", to(OUTSIDE), NoNetwork).setup(|setup| setup.mode = 0),
        guest_refuses("host-only", to(OUTSIDE), OutsideRefused, PROHIBITED).setup(|setup| setup.mode = 4),
        guest_refuses("an uplink without address", to(OUTSIDE), NoExternalAddress, NET_UNREACHABLE)
            .setup(|setup| setup.external = None),
    ]
}

/// What the datapath does not understand on an uplink belongs to the host.
fn from_the_wire() -> Vec<Case> {
    let whole = from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, 50_000), b"abcd"));
    let mut cases: Vec<_> = (SHORTEST_IPV4..whole.len())
        .map(|length| {
            let name = format!("IPv4 from outside cut at {length}");
            Case::new(name, Port::Uplink, whole[..length].to_vec(), Expect::ToHost)
        })
        .collect();
    let mut bad_ihl = whole.clone();
    bad_ihl[14] = 0x43;
    let elsewhere = Ipv4::udp(at(OUTSIDE, 53), at(HOST, 50_000), b"abcd").frame(Mac([2, 0, 0, 0, 0xee, 1]), GUEST1.0);
    let frames = [
        ("a datagram of no connection", whole.clone()),
        ("IHL 3", bad_ihl),
        ("a tagged datagram", tagged(5, &whole)),
        ("a datagram for another MAC", elsewhere),
        ("ARP", arp_request((GUEST1.0, OUTSIDE), HOST)),
        ("group source", ethernet(Mac::BROADCAST, Mac::BROADCAST, ETHERTYPE_TEST, &[0; 46])),
        ("a control frame", ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0]), GUEST1.0, ETHERTYPE_TEST, &[0; 46])),
    ];
    for (name, frame) in frames {
        cases.push(Case::new(format!("{name} from outside"), Port::Uplink, frame, Expect::ToHost));
    }
    cases
}
