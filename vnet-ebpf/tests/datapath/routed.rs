//! Routed networks: both ways, untranslated.

use vnet_common::DropReason;
use vnet_ebpf::context::Route;

use crate::{
    case::{self, Case},
    frames::{L4, Packet},
    packets::{at, incoming, outgoing, server},
    world::*,
};

fn out(l4: L4) -> Packet {
    outgoing(ROUTED_GUEST1, l4, 1000, server())
}

/// As it leaves by the uplink.
fn sent(packet: Packet) -> Fate {
    Fate::Sent(UPLINK, packet.link(ROUTER_MAC, UPLINK_MAC).ttl(63).bytes())
}

fn to(guest: u32, l4: L4) -> Packet {
    incoming(l4, server(), at(ip(guest), 1000))
}

fn received(packet: Packet) -> Fate {
    Fate::Sent(ROUTED_GUEST1, packet.link(mac(ROUTED_GUEST1), mac(ROUTED_GATEWAY)).ttl(63).bytes())
}

/// Everything that NAT could not carry, too.
fn packets(make: impl Fn(L4) -> Packet) -> Vec<(&'static str, Packet)> {
    vec![
        ("udp", make(L4::Udp)),
        ("udp without checksum", make(L4::UdpWithoutChecksum)),
        ("tcp in the middle of a connection", make(L4::Tcp(0x10))),
        ("echo", make(L4::EchoRequest)),
        ("another protocol", make(L4::Other(50))),
        ("a first fragment", make(L4::Udp).fragment(0, true)),
        ("a later fragment", make(L4::Udp).fragment(5, false)),
        ("options", make(L4::Udp).options(&[1; 8])),
    ]
}

#[test]
fn packets_pass_both_ways_as_they_are_but_for_a_hop() {
    let mut cases = Vec::new();
    for (name, packet) in packets(out) {
        cases.push(Case::new(format!("{name}, out"), ROUTED_GUEST1, packet.bytes(), sent(packet)));
    }
    for (name, packet) in packets(|l4| to(ROUTED_GUEST1, l4)) {
        cases.push(Case::new(format!("{name}, in"), UPLINK, packet.bytes(), received(packet)));
    }
    case::run(cases);
}

#[test]
fn what_cannot_be_routed_is_dropped_with_the_reason_or_is_the_hosts() {
    let dropped = |name: &str, packet: Packet, reason| Case::dropped(name, ROUTED_GUEST1, packet.bytes(), reason);
    let refused = |name: &str, packet: Packet, reason| Case::dropped(name, UPLINK, packet.bytes(), reason);
    let to_host = |name: &str, packet: Packet| Case::new(name, UPLINK, packet.bytes(), Fate::ToHost);
    let inbound = to(ROUTED_GUEST1, L4::Udp);
    let towards = |address| outgoing(ROUTED_GUEST1, L4::Udp, 1000, at(address, 53));
    case::run(vec![
        dropped("the last hop, out", out(L4::Udp).ttl(1), DropReason::TtlExceeded),
        dropped("too long, out", out(L4::Udp).length(1501), DropReason::OverMtu),
        dropped("a foreign source", out(L4::Udp).src(at(ip(GUEST1), 1)), DropReason::ForeignSource),
        dropped("a sibling by the gateway", towards(ip(ROUTED_GUEST2)), DropReason::GuestsApart),
        dropped("a guest of another network", towards(ip(GUEST1)), DropReason::NotAnUplink),
        dropped("an uplink of others", towards(BY_OTHER_UPLINK), DropReason::NotAnUplink),
        dropped("no route", towards(UNREACHABLE), DropReason::NoRoute),
        refused("the last hop, in", inbound.clone().ttl(1), DropReason::TtlExceeded),
        refused("too long, in", inbound.clone().length(1401), DropReason::OverMtu)
            .given(|world| world.change_vport(ROUTED_GUEST1, |vport| vport.mtu = 1400)),
        refused("a guest that is gone", inbound.clone(), DropReason::PortAbsent)
            .given(|world| world.change_vport(ROUTED_GUEST1, |vport| vport.ifindex = 0)),
        refused("no route, in", inbound.clone(), DropReason::NoRoute)
            .given(|world| world.kernel.set_route(ip(ROUTED_GUEST1).into(), 128, Route::None)),
        to_host("the gateway's own address", to(ROUTED_GATEWAY, L4::Udp)),
        to_host("the gateway's own address, the last hop", to(ROUTED_GATEWAY, L4::Udp).ttl(1)),
        to_host("an uplink that does not serve it", inbound.clone())
            .given(|world| world.change_network(ROUTED, |network| network.uplinks = [OTHER_UPLINK, 0, 0, 0])),
        to_host("a network that became another", inbound)
            .given(|world| world.change_network(ROUTED, |network| network.mode = 2)),
    ]);
}

#[test]
fn unknown_neighbours_are_the_kernels_to_find() {
    let out = outgoing(ROUTED_GUEST1, L4::Udp, 1000, at(BY_SILENT_ROUTER, 53));
    let inbound = to(200, L4::Udp).dst(at("198.51.100.200".parse().unwrap(), 1000));
    let forgotten = to(ROUTED_GUEST1, L4::Udp);
    let resolved = |by, next_hop, packet: &Packet| Fate::Resolved(by, next_hop, packet.clone().ttl(63).bytes());
    case::run(vec![
        Case::new("router", ROUTED_GUEST1, out.bytes(), resolved(UPLINK, SILENT_ROUTER, &out)),
        Case::new("guest", UPLINK, inbound.bytes(), resolved(ROUTED_GATEWAY, *inbound.dst.ip(), &inbound)),
        Case::new(
            "guest without FDB entry",
            UPLINK,
            forgotten.bytes(),
            resolved(ROUTED_GATEWAY, ip(ROUTED_GUEST1), &forgotten),
        )
        .given(|world| world.forget(ROUTED_GUEST1)),
    ]);
}

#[test]
fn a_guest_that_moved_is_found_where_it_is() {
    let packet = to(ROUTED_GUEST1, L4::Udp);
    let moved = Fate::Sent(ROUTED_GUEST2, packet.clone().link(mac(ROUTED_GUEST1), mac(ROUTED_GATEWAY)).ttl(63).bytes());
    case::run(vec![Case::new("moved", UPLINK, packet.bytes(), moved).given(|world| {
        world.learn(ROUTED_GUEST2, mac(ROUTED_GUEST1), vnet_common::fdb::FdbKind::Learned);
    })]);
}

#[test]
fn a_forward_into_a_routed_network_is_translated_both_ways_and_nothing_else_is() {
    let world = World::new();
    world.forward(17, (None, 8080), (ROUTED_GUEST1, 1000));
    let asked = incoming(L4::Udp, server(), at(EXTERNAL, 8080));
    let arrives = asked.clone().dst(at(ip(ROUTED_GUEST1), 1000));
    let other = incoming(L4::Udp, at(SERVER2, 80), at(ip(ROUTED_GUEST1), 1000));
    for _ in 0..2 {
        assert_eq!(world.tc(UPLINK, asked.bytes()), received(arrives.clone()));
        assert_eq!(world.tc(ROUTED_GUEST1, out(L4::Udp).bytes()), sent(out(L4::Udp).src(at(EXTERNAL, 8080))));
        assert_eq!(world.tc(UPLINK, other.bytes()), received(other.clone()));
    }
    assert!(matches!(world.xdp(UPLINK, asked.bytes()), Fate::Sent(ROUTED_GUEST1, _)));
    assert!(matches!(world.xdp(ROUTED_GUEST1, out(L4::Udp).bytes()), Fate::Sent(UPLINK, _)));
    assert_eq!(world.xdp(UPLINK, other.bytes()), Fate::PassUp);
}
