//! From a NAT network to the outside: creation, translation, refusals.

use vnet_common::{DropReason, fdb::FdbKind, stats::EventCount, vport::VportId};
use vnet_ebpf::tables::Tables as _;

use crate::{
    case::{self, Case},
    frames::{ACK, FIN, L4, Packet, RST, SYN, ethernet},
    packets::{KEPT, answer, at, on_the_wire, outgoing, ping, server, syn, to_guest, udp},
    world::*,
};

/// A packet that opens a connection by its own port.
fn opens(name: &str, packet: Packet) -> Case {
    let sent = on_the_wire(packet.clone(), KEPT).bytes();
    Case::new(name, GUEST1, packet.bytes(), Fate::Sent(UPLINK, sent)).counts(EventCount::ConnectionsCreated)
}

#[test]
fn a_connection_goes_out_by_the_external_address_and_the_guests_own_port() {
    case::run(vec![
        opens("tcp", syn(GUEST1, KEPT)),
        opens("udp", udp(GUEST1, KEPT)),
        opens("udp without checksum", outgoing(GUEST1, L4::UdpWithoutChecksum, KEPT, server())),
        opens("udp without payload", udp(GUEST1, KEPT).payload(&[])),
        opens("udp of odd length", udp(GUEST1, KEPT).payload(&[7])),
        opens("echo", ping(GUEST1, KEPT)),
        opens("IP options", syn(GUEST1, KEPT).options(&[1; 12])),
        opens("as many IP options as there are", udp(GUEST1, KEPT).options(&[1; 40])),
        opens("the last hop but one", udp(GUEST1, KEPT).ttl(2)),
        opens("a hop to spare", udp(GUEST1, KEPT).ttl(255)),
        opens("as long as it may be", udp(GUEST1, KEPT).length(1500)),
        opens("simultaneous open of another kind", outgoing(GUEST1, L4::Tcp(SYN), KEPT, at(SERVER2, 443))),
    ]);
}

#[test]
fn both_directions_of_an_established_connection_need_one_record() {
    for packet in [syn(GUEST1, KEPT), udp(GUEST1, KEPT), ping(GUEST1, KEPT)] {
        let sent = on_the_wire(packet.clone(), KEPT);
        let reply = answer(&sent);
        let expected = to_guest(reply.clone(), GUEST1, KEPT);
        let world = World::new();
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, sent.bytes()));
        assert_eq!(world.tables.connections().len(), 1);
        assert_eq!(world.tables.bindings().len(), 1);
        let questions = world.kernel.queries.borrow().len();
        assert_eq!(world.tc(UPLINK, reply.bytes()), Fate::Sent(GUEST1, expected.bytes()));
        assert_eq!(world.tc(GUEST1, packet.bytes()), Fate::Sent(UPLINK, sent.bytes()));
        assert_eq!(world.kernel.queries.borrow().len(), questions, "nothing more was asked");
        assert_eq!(world.tables.connections().len(), 1);
        assert_eq!(world.event(EventCount::ConnectionsCreated), 1);
    }
}

#[test]
fn established_udp_and_echo_are_accelerated_both_ways() {
    for packet in [udp(GUEST1, KEPT), ping(GUEST1, KEPT)] {
        let sent = on_the_wire(packet.clone(), KEPT);
        let reply = answer(&sent);
        let received = to_guest(reply.clone(), GUEST1, KEPT);
        case::run(vec![
            Case::new("out", GUEST1, packet.bytes(), Fate::Sent(UPLINK, sent.bytes()))
                .after(GUEST1, packet.bytes())
                .accelerated(),
            Case::new("the first reply changes the state", UPLINK, reply.bytes(), Fate::Sent(GUEST1, received.bytes()))
                .after(GUEST1, packet.bytes()),
            Case::new("back", UPLINK, reply.bytes(), Fate::Sent(GUEST1, received.bytes()))
                .after(GUEST1, packet.bytes())
                .after(UPLINK, reply.bytes())
                .accelerated(),
            Case::dropped("out, the last hop", GUEST1, packet.clone().ttl(1).bytes(), DropReason::TtlExceeded)
                .after(GUEST1, packet.bytes()),
            Case::dropped("back, the last hop", UPLINK, reply.clone().ttl(1).bytes(), DropReason::TtlExceeded)
                .after(GUEST1, packet.bytes())
                .after(UPLINK, reply.bytes()),
        ]);
    }
}

#[test]
fn an_established_packet_that_xdp_cannot_judge_is_left_to_tc() {
    let packet = udp(GUEST1, KEPT);
    let sent = |packet: &Packet| Fate::Sent(UPLINK, on_the_wire(packet.clone(), KEPT).bytes());
    let (partial, options) = (packet.clone().partial(), packet.clone().options(&[1; 4]));
    let established =
        |name: &str, arrival: Arrival, sent| Case::new(name, GUEST1, arrival, sent).after(GUEST1, packet.bytes());
    case::run(vec![
        established("a partial checksum", Arrival::from(partial.bytes()).partial(), sent(&partial)).left_to_tc(),
        established("options", options.bytes().into(), sent(&options)),
        established("too long", packet.clone().length(1501).bytes().into(), Fate::Dropped(DropReason::OverMtu)),
    ]);
}

#[test]
fn the_way_out_is_asked_for_by_the_packets_own_tuple() {
    let world = World::new();
    world.tc(GUEST1, syn(GUEST1, KEPT).bytes());
    let queries = world.kernel.queries.borrow();
    let [query] = queries.as_slice() else { panic!("asked {} times", queries.len()) };
    assert_eq!((query.src, query.dst), (ip(GUEST1).into(), SERVER.into()));
    assert_eq!((query.src_port.get(), query.dst_port.get(), query.protocol), (KEPT, 80, 6));
    assert_eq!(query.ifindex, ifindex(GATEWAY));
}

#[test]
fn an_unresolved_router_is_left_to_the_kernel() {
    let packet = outgoing(GUEST1, L4::Udp, KEPT, at(BY_SILENT_ROUTER, 53));
    // The link addresses are the kernel's to write.
    let sent = on_the_wire(packet.clone(), KEPT).link(packet.dst_mac, packet.src_mac).bytes();
    let expected = Fate::Resolved(UPLINK, SILENT_ROUTER, sent);
    case::run(vec![
        Case::new("first", GUEST1, packet.bytes(), expected.clone()).counts(EventCount::ConnectionsCreated),
        Case::new("asked again as long as it is silent", GUEST1, packet.bytes(), expected)
            .after(GUEST1, packet.bytes())
            .counts(EventCount::PathDecidedAgain),
    ]);
}

/// A packet that is refused: nothing of it must be left.
fn refused(name: &str, packet: Packet, reason: DropReason) -> Case {
    Case::dropped(name, GUEST1, packet.bytes(), reason).then(|world| {
        assert!(world.tables.connections().is_empty(), "connections");
        assert!(world.tables.bindings().is_empty(), "bindings");
    })
}

#[test]
fn what_cannot_go_out_is_dropped_with_the_reason_and_leaves_nothing() {
    let to = |address| outgoing(GUEST1, L4::Udp, KEPT, at(address, 53));
    let tcp = |flags| outgoing(GUEST1, L4::Tcp(flags), KEPT, server());
    let absent = |vport| move |world: &World| world.change_vport(vport, |entry| entry.ifindex = 0);
    let shown =
        |address: vnet_common::Ip| move |world: &World| world.change_vport(UPLINK, |entry| entry.external = address);
    let none = vnet_common::Ip::UNSPECIFIED;
    let foreign = udp(GUEST1, KEPT).src(at("192.168.1.1".parse().unwrap(), 1));
    case::run(vec![
        refused("TTL of 1", udp(GUEST1, KEPT).ttl(1), DropReason::TtlExceeded),
        refused("TTL of 0", udp(GUEST1, KEPT).ttl(0), DropReason::TtlExceeded),
        refused("a foreign source", foreign, DropReason::ForeignSource),
        refused("another network's source", udp(GUEST1, KEPT).src(at(ip(OTHER_GUEST), 1)), DropReason::ForeignSource),
        refused("a sibling", to(ip(GUEST2)), DropReason::GuestsApart),
        refused("multicast", to("224.0.0.251".parse().unwrap()), DropReason::MulticastNotRouted),
        refused("broadcast", to("255.255.255.255".parse().unwrap()), DropReason::MulticastNotRouted),
        refused("no route", to(UNREACHABLE), DropReason::NoRoute),
        refused("a route by a device that is none of ours", to(BY_STRANGER), DropReason::NotAnUplink),
        refused("a route by an uplink of others", to(BY_OTHER_UPLINK), DropReason::NotAnUplink),
        refused("a guest of another network", to(ip(OTHER_GUEST)), DropReason::NotAnUplink),
        refused("a guest of a routed network", to(ip(ROUTED_GUEST1)), DropReason::NotAnUplink),
        refused("no gateway device", udp(GUEST1, KEPT), DropReason::NoRoute).given(absent(GATEWAY)),
        refused("an uplink that is gone", udp(GUEST1, KEPT), DropReason::NotAnUplink).given(absent(UPLINK)),
        refused("an uplink without address", udp(GUEST1, KEPT), DropReason::NoExternalAddress).given(shown(none)),
        refused("another protocol", outgoing(GUEST1, L4::Other(50), 0, server()), DropReason::UnsupportedProtocol),
        refused(
            "an echo reply that nobody asked for",
            outgoing(GUEST1, L4::EchoReply, 0, at(SERVER, 7)),
            DropReason::NoConnection,
        ),
        refused(
            "an echo reply with the identifier 0",
            outgoing(GUEST1, L4::EchoReply, 0, at(SERVER, 0)),
            DropReason::NoConnection,
        ),
        refused("too long for the uplink", udp(GUEST1, KEPT).length(1501), DropReason::OverMtu),
        refused("ACK", tcp(ACK), DropReason::NoConnection),
        refused("RST", tcp(RST), DropReason::NoConnection),
        refused("SYN and RST", tcp(SYN | RST), DropReason::NoConnection),
        refused("SYN and ACK", tcp(SYN | ACK), DropReason::NoConnection),
        refused("FIN", tcp(FIN | ACK), DropReason::NoConnection),
        refused("no flags", tcp(0), DropReason::NoConnection),
    ]);
}

#[test]
fn what_is_for_the_host_goes_up_by_the_gateway() {
    let delivered =
        |name: &str, packet: Vec<u8>| Case::new(name, GUEST1, packet.clone(), Fate::Delivered(GATEWAY, packet));
    let to = |address| outgoing(GUEST1, L4::Udp, 1000, at(address, 53)).bytes();
    let v6 = ethernet(mac(GATEWAY), mac(GUEST1), 0x86dd, &[0x60; 60]);
    let other = ethernet(mac(GATEWAY), mac(GUEST1), 0x88b5, &[0; 46]);
    let last_hop = outgoing(GUEST1, L4::Udp, 1000, at(ip(GATEWAY), 53)).ttl(1).bytes();
    case::run(vec![
        delivered("the gateway's own address", to(ip(GATEWAY))),
        delivered("the last hop is no matter", last_hop),
        delivered("the address that it shows outside", to(EXTERNAL)),
        delivered("another address of the host", to(SECOND_ADDRESS)),
        delivered("another network's gateway", to(ip(OTHER_GATEWAY))),
        delivered("IPv6", v6),
        delivered("no IP", other),
        Case::dropped("the gateway's device is gone", GUEST1, to(ip(GATEWAY)), DropReason::PortAbsent)
            .given(|world| world.change_vport(GATEWAY, |vport| vport.ifindex = 0)),
    ]);
}

#[test]
fn only_modes_that_reach_the_outside_do() {
    let packet = outgoing(HOST_ONLY_GUEST, L4::Udp, KEPT, server()).bytes();
    let to_host = outgoing(HOST_ONLY_GUEST, L4::Udp, KEPT, at(ip(HOST_ONLY_GATEWAY), 53)).bytes();
    case::run(vec![
        Case::dropped("host-only", HOST_ONLY_GUEST, packet.clone(), DropReason::OutsideRefused),
        Case::dropped("host-only, even with an uplink", HOST_ONLY_GUEST, packet, DropReason::OutsideRefused)
            .given(|world| world.change_network(HOST_ONLY, |network| network.uplinks[0] = UPLINK)),
        Case::new(
            "the host of host-only",
            HOST_ONLY_GUEST,
            to_host.clone(),
            Fate::Delivered(HOST_ONLY_GATEWAY, to_host),
        ),
    ]);
}

#[test]
fn modes_without_gateway_bridge_what_is_for_any_router() {
    let frame = |from: VportId, dst| Packet::new(L4::Udp, at(ip(from), 1), server()).link(dst, mac(from)).bytes();
    let unknown = frame(ISOLATED_GUEST1, mac(GATEWAY));
    let by_router = frame(BRIDGE_GUEST1, ROUTER_MAC);
    case::run(vec![
        Case::new("isolated", ISOLATED_GUEST1, unknown, Fate::Flooded(vec![ISOLATED_GUEST2])),
        Case::new("bridge", BRIDGE_GUEST1, by_router.clone(), Fate::Sent(BRIDGE_UPLINK, by_router))
            .given(|world| world.learn(BRIDGE_UPLINK, ROUTER_MAC, FdbKind::Learned)),
    ]);
}

#[test]
fn a_gso_frame_goes_out_whole_if_its_segments_fit() {
    let bulk = outgoing(GUEST1, L4::Tcp(ACK), KEPT, server()).partial().length(60_000);
    let sent = on_the_wire(bulk.clone(), KEPT).bytes();
    let arrival = |size| Arrival::from(bulk.bytes()).gso(size).partial().linear(200);
    case::run(vec![
        Case::new("segments that fit", GUEST1, arrival(1460), Fate::Sent(UPLINK, sent))
            .after(GUEST1, syn(GUEST1, KEPT).bytes()),
        Case::dropped("segments a byte too long", GUEST1, arrival(1461), DropReason::OverMtu)
            .after(GUEST1, syn(GUEST1, KEPT).bytes()),
    ]);
}

#[test]
fn a_network_with_two_uplinks_shows_the_address_of_the_one_that_it_leaves_by() {
    let by_first = outgoing(OTHER_GUEST, L4::Udp, KEPT, at(BY_OTHER_UPLINK, 53));
    let sent = by_first.clone().link(ROUTER_MAC, mac(OTHER_UPLINK)).src(at(OTHER_EXTERNAL, KEPT)).ttl(63).bytes();
    let by_second = outgoing(OTHER_GUEST, L4::Udp, KEPT + 1, server());
    case::run(vec![
        Case::new("by its first", OTHER_GUEST, by_first.bytes(), Fate::Sent(OTHER_UPLINK, sent))
            .counts(EventCount::ConnectionsCreated),
        Case::new(
            "by its second",
            OTHER_GUEST,
            by_second.bytes(),
            Fate::Sent(UPLINK, on_the_wire(by_second, KEPT + 1).bytes()),
        )
        .counts(EventCount::ConnectionsCreated),
    ]);
}
