//! From the outside: what belongs to a connection, to a forward, to the host.

use std::net::{Ipv4Addr, SocketAddrV4};

use vnet_common::{DropReason, stats::EventCount};
use vnet_ebpf::tables::Tables as _;

use crate::{
    case::{self, Case},
    frames::{ACK, L4, Packet, RST, SYN, ethernet, tagged},
    packets::{KEPT, answer, at, incoming, outgoing, to_guest},
    world::*,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where forwards listen.
const LISTEN: u16 = 8080;

fn client() -> SocketAddrV4 {
    at(SERVER, 40_000)
}

fn listener() -> SocketAddrV4 {
    at(EXTERNAL, LISTEN)
}

fn open(l4: L4) -> Packet {
    incoming(l4, client(), listener())
}

fn forwarded(protocol: u8, address: Option<Ipv4Addr>) -> impl Fn(&World) {
    move |world| world.forward(protocol, (address, LISTEN), (GUEST1, 80))
}

fn to_host(name: &str, packet: Packet) -> Case {
    Case::new(name, UPLINK, packet.bytes(), Fate::ToHost).then(leaves_nothing)
}

fn leaves_nothing(world: &World) {
    assert!(world.tables.connections().is_empty(), "connections");
}

#[test]
fn what_matches_nothing_is_the_hosts() {
    let udp = |dst| incoming(L4::Udp, client(), dst);
    let other_mac = udp(listener()).link(mac(GUEST1), ROUTER_MAC);
    case::run(vec![
        to_host("no connection, no forward", udp(listener())),
        to_host("a port of the SNAT range that nobody has", udp(at(EXTERNAL, KEPT))),
        to_host("the last hop", udp(listener()).ttl(1)),
        to_host("another protocol", incoming(L4::Other(50), client(), listener())),
        to_host("an echo request", incoming(L4::EchoRequest, at(SERVER, 7), at(EXTERNAL, 0))),
        to_host("an echo reply that nobody asked for", incoming(L4::EchoReply, at(SERVER, 0), at(EXTERNAL, 7))),
        to_host("a fragment", udp(listener()).fragment(0, true)),
        to_host("a guest's own address", udp(at(ip(GUEST1), 80))),
        to_host("another MAC address", other_mac),
        Case::new("a tag", UPLINK, tagged(0x8100, 3, &udp(listener()).bytes()), Fate::ToHost),
        Case::new("a tag beside the bytes", UPLINK, Arrival::from(udp(listener()).bytes()).tag(3), Fate::ToHost),
        Case::new("ARP", UPLINK, ethernet(UPLINK_MAC, ROUTER_MAC, 0x0806, &[0; 28]), Fate::ToHost),
        Case::new("IPv6", UPLINK, ethernet(UPLINK_MAC, ROUTER_MAC, 0x86dd, &[0; 60]), Fate::ToHost),
        Case::new(
            "broadcast",
            UPLINK,
            ethernet(vnet_common::Mac::BROADCAST, ROUTER_MAC, 0x0800, &[0; 60]),
            Fate::ToHost,
        ),
    ]);
}

#[test]
fn a_forward_leads_to_its_guest_and_keeps_the_clients_address() {
    let opens = |name: &str, l4, address| {
        let packet = open(l4);
        let sent = to_guest(packet.clone(), GUEST1, 80).bytes();
        let protocol = if matches!(l4, L4::Tcp(_)) { TCP } else { UDP };
        Case::new(name, UPLINK, packet.bytes(), Fate::Sent(GUEST1, sent))
            .given(forwarded(protocol, address))
            .counts(EventCount::ConnectionsCreated)
            .then(|world| assert_eq!((world.tables.connections().len(), world.tables.bindings().len()), (1, 0)))
    };
    let elsewhere = incoming(L4::Tcp(SYN), client(), at(SECOND_ADDRESS, LISTEN));
    let not_ours = incoming(L4::Tcp(SYN), client(), at("203.0.113.99".parse().unwrap(), LISTEN));
    case::run(vec![
        opens("tcp on an address", L4::Tcp(SYN), Some(EXTERNAL)),
        opens("tcp on all addresses", L4::Tcp(SYN), None),
        opens("udp on an address", L4::Udp, Some(EXTERNAL)),
        opens("udp on all addresses", L4::Udp, None),
        opens("udp without checksum", L4::UdpWithoutChecksum, None),
        opens("the address comes before all addresses", L4::Tcp(SYN), Some(EXTERNAL))
            .given(|world| world.forward(TCP, (None, LISTEN), (GUEST2, 99))),
        Case::new(
            "a second address of the host",
            UPLINK,
            elsewhere.bytes(),
            Fate::Sent(GUEST1, to_guest(elsewhere.clone(), GUEST1, 80).bytes()),
        )
        .given(forwarded(TCP, None))
        .counts(EventCount::ConnectionsCreated),
        Case::new("a second address, but the forward is on the first", UPLINK, elsewhere.bytes(), Fate::ToHost)
            .given(forwarded(TCP, Some(EXTERNAL))),
        Case::new("no address of the host", UPLINK, not_ours.bytes(), Fate::ToHost).given(forwarded(TCP, None)),
        Case::new("another protocol", UPLINK, open(L4::Udp).bytes(), Fate::ToHost).given(forwarded(TCP, None)),
        Case::new("another port", UPLINK, incoming(L4::Udp, client(), at(EXTERNAL, 81)).bytes(), Fate::ToHost)
            .given(forwarded(UDP, None)),
    ]);
}

#[test]
fn what_cannot_pass_a_forward_is_told_apart_and_leaves_nothing() {
    let given = |name: &str, packet: Packet, fate| {
        Case::new(name, UPLINK, packet.bytes(), fate)
            .given(forwarded(TCP, None))
            .given(forwarded(UDP, None))
            .then(leaves_nothing)
    };
    let dropped = Fate::Dropped;
    case::run(vec![
        given("ACK is the host's to reset", open(L4::Tcp(ACK)), Fate::ToHost),
        given("RST", open(L4::Tcp(RST)), Fate::ToHost),
        given("SYN and ACK", open(L4::Tcp(SYN | ACK)), Fate::ToHost),
        given("the last hop", open(L4::Tcp(SYN)).ttl(1), dropped(DropReason::TtlExceeded)),
        given("a guest that is gone", open(L4::Tcp(SYN)), dropped(DropReason::PortAbsent))
            .given(|world| world.change_vport(GUEST1, |vport| vport.ifindex = 0)),
        given("no gateway device", open(L4::Tcp(SYN)), dropped(DropReason::NoRoute))
            .given(|world| world.change_vport(GATEWAY, |vport| vport.ifindex = 0)),
        given("too long for the guest", open(L4::Udp).length(1401), dropped(DropReason::OverMtu))
            .given(|world| world.change_vport(GUEST1, |vport| vport.mtu = 1400)),
        given("a network that this uplink does not serve", open(L4::Tcp(SYN)), Fate::ToHost)
            .given(|world| world.change_network(NAT, |network| network.uplinks = [OTHER_UPLINK, 0, 0, 0])),
        given("a network that is gone", open(L4::Tcp(SYN)), Fate::ToHost)
            .given(|world| world.change_network(NAT, |network| network.uplinks = [0; 4])),
        given("a guest for which there is no route", open(L4::Udp), dropped(DropReason::NoRoute))
            .given(|world| world.kernel.set_route(ip(GUEST1).into(), 128, vnet_ebpf::context::Route::None)),
        given("a guest whose route leads elsewhere", open(L4::Udp), dropped(DropReason::NoRoute)).given(|world| {
            let elsewhere =
                vnet_ebpf::context::Route::Via { ifindex: ifindex(UPLINK), src_mac: UPLINK_MAC, dst_mac: ROUTER_MAC };
            world.kernel.set_route(ip(GUEST1).into(), 128, elsewhere);
        }),
    ]);
}

#[test]
fn a_guest_that_the_kernel_must_look_for_is_reached_by_the_gateways_device() {
    let packet = open(L4::Udp);
    // The link addresses are the kernel's to write.
    let sent = to_guest(packet.clone(), GUEST1, 80).link(packet.dst_mac, packet.src_mac).bytes();
    let expected = Fate::Resolved(GATEWAY, ip(GUEST1), sent);
    let silent = |world: &World| {
        let unresolved =
            vnet_ebpf::context::Route::Unresolved { ifindex: ifindex(GATEWAY), next_hop: ip(GUEST1).into() };
        world.kernel.set_route(ip(GUEST1).into(), 128, unresolved);
    };
    let case = |name: &str| Case::new(name, UPLINK, packet.bytes(), expected.clone()).given(forwarded(UDP, None));
    case::run(vec![
        case("no MAC address").given(silent).counts(EventCount::ConnectionsCreated),
        case("no FDB entry").given(|world| world.forget(GUEST1)).counts(EventCount::ConnectionsCreated),
        case("still none").given(silent).after(UPLINK, packet.bytes()).counts(EventCount::PathDecidedAgain),
    ]);
}

#[test]
fn the_guests_answer_shows_the_address_that_was_asked() {
    for (protocol, l4) in [(TCP, L4::Tcp(SYN)), (UDP, L4::Udp)] {
        let packet = open(l4);
        let reply = answer(&to_guest(packet.clone(), GUEST1, 80));
        let sent = reply.clone().link(ROUTER_MAC, UPLINK_MAC).src(listener()).ttl(63);
        let world = World::new();
        forwarded(protocol, None)(&world);
        assert!(matches!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST1, _)));
        assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(UPLINK, sent.bytes()));
        assert_eq!(world.tables.bindings().len(), 0, "a forward needs none");
        // Asked once for the guest, once for the way back, not again.
        let questions = world.kernel.queries.borrow().len();
        assert_eq!(questions, 2);
        assert_eq!(world.tc(UPLINK, packet.bytes()), Fate::Sent(GUEST1, to_guest(packet, GUEST1, 80).bytes()));
        assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(UPLINK, sent.bytes()));
        assert_eq!(world.kernel.queries.borrow().len(), questions);
    }
}

#[test]
fn an_established_forward_is_accelerated() {
    let packet = open(L4::Udp);
    let received = to_guest(packet.clone(), GUEST1, 80);
    let reply = answer(&received);
    let sent = reply.clone().link(ROUTER_MAC, UPLINK_MAC).src(listener()).ttl(63);
    case::run(vec![
        Case::new("in", UPLINK, packet.bytes(), Fate::Sent(GUEST1, received.bytes()))
            .given(forwarded(UDP, None))
            .after(UPLINK, packet.bytes())
            .accelerated(),
        Case::new("out", GUEST1, reply.bytes(), Fate::Sent(UPLINK, sent.bytes()))
            .given(forwarded(UDP, None))
            .after(UPLINK, packet.bytes())
            .after(GUEST1, reply.bytes())
            .accelerated(),
    ]);
}

#[test]
fn a_tuple_that_another_connection_uses_is_refused() {
    let second = incoming(L4::Tcp(SYN), client(), at(EXTERNAL, LISTEN + 1));
    let from_guest = outgoing(GUEST1, L4::Tcp(SYN), 80, client());
    case::run(vec![
        Case::dropped("two forwards to one guest's port", UPLINK, second.bytes(), DropReason::TupleTaken)
            .given(forwarded(TCP, None))
            .given(|world| world.forward(TCP, (None, LISTEN + 1), (GUEST1, 80)))
            .after(UPLINK, open(L4::Tcp(SYN)).bytes())
            .then(|world| assert_eq!(world.tables.connections().len(), 1)),
        Case::dropped(
            "the guest has called that client itself",
            UPLINK,
            open(L4::Tcp(SYN)).bytes(),
            DropReason::TupleTaken,
        )
        .given(forwarded(TCP, None))
        .after(GUEST1, from_guest.bytes())
        .then(|world| assert_eq!(world.tables.connections().len(), 1)),
    ]);
}

#[test]
fn a_full_table_refuses_a_forwarded_connection_and_keeps_nothing_of_it() {
    let world = World::new();
    forwarded(TCP, None)(&world);
    world.tables.connections().refuse_insert_after(0);
    let packet = open(L4::Tcp(SYN)).bytes();
    assert_eq!(world.tc(UPLINK, packet.clone()), Fate::Dropped(DropReason::TableFull));
    assert_eq!(world.check_empty(), Ok(()));
    assert_eq!(world.event(EventCount::ConnectionsCreated), 0);
    assert!(matches!(world.tc(UPLINK, packet), Fate::Sent(GUEST1, _)), "the next one finds room");
}

#[test]
fn a_deleted_forward_admits_no_new_connection() {
    let world = World::new();
    forwarded(TCP, None)(&world);
    world.tc(UPLINK, open(L4::Tcp(SYN)).bytes());
    let key = vnet_common::forward::ForwardKey::new(vnet_common::Ip::UNSPECIFIED, vnet_common::Be16::new(LISTEN), TCP);
    world.tables.remove_forward(&key);
    let other = incoming(L4::Tcp(SYN), at(SERVER2, 1), listener()).bytes();
    assert_eq!(world.tc(UPLINK, other), Fate::ToHost);
    assert!(matches!(world.tc(UPLINK, open(L4::Tcp(ACK)).bytes()), Fate::Sent(GUEST1, _)));
}
