//! Bridging: unicast, floods, refusals, lengths.

use vnet_common::{DropReason, Mac, fdb::FdbKind, stats::EventCount, vport::VportId};

use crate::frames::{L4, Packet};
use crate::{
    case::{self, Case},
    frames::{ethernet, tagged},
    packets::at,
    world::*,
};

/// IEEE 802 local experimental ethertype: means nothing to anybody.
const TEST: u16 = 0x88b5;

fn frame(from: VportId, dst: Mac) -> Vec<u8> {
    ethernet(dst, mac(from), TEST, &[0xa5; 46])
}

/// A UDP packet between neighbours.
fn udp(from: VportId, to: VportId) -> Packet {
    Packet::new(L4::Udp, at(ip(from), 1000), at(ip(to), 2000)).link(mac(to), mac(from))
}

fn floods(name: &str, from: VportId, frame: Vec<u8>, members: &[VportId]) -> Case {
    Case::new(name, from, frame, Fate::Flooded(members.to_vec()))
}

#[test]
fn a_known_address_is_reached_by_its_port() {
    let between_guests = udp(GUEST1, GUEST2).bytes();
    let other = frame(GUEST1, mac(GUEST2));
    let to_wire = udp(BRIDGE_GUEST1, BRIDGE_UPLINK).link(ROUTER_MAC, mac(BRIDGE_GUEST1)).bytes();
    let from_wire = udp(BRIDGE_UPLINK, BRIDGE_GUEST1).link(mac(BRIDGE_GUEST1), ROUTER_MAC).bytes();
    let know_router = |world: &World| world.learn(BRIDGE_UPLINK, ROUTER_MAC, FdbKind::Learned);
    let icmp = Packet { l4: L4::EchoRequest, ..udp(GUEST1, GUEST2) }.bytes();
    let esp = Packet { l4: L4::Other(50), ..udp(GUEST1, GUEST2) }.bytes();
    let fragment = udp(GUEST1, GUEST2).fragment(3, false).bytes();
    let partial = udp(GUEST1, GUEST2).partial().bytes();
    case::run(vec![
        Case::new("udp", GUEST1, between_guests.clone(), Fate::Sent(GUEST2, between_guests)).accelerated(),
        Case::new("icmp", GUEST1, icmp.clone(), Fate::Sent(GUEST2, icmp)).accelerated(),
        Case::new("another protocol", GUEST1, esp.clone(), Fate::Sent(GUEST2, esp)).left_to_tc(),
        Case::new("fragment", GUEST1, fragment.clone(), Fate::Sent(GUEST2, fragment)).left_to_tc(),
        Case::new("partial checksum", GUEST1, Arrival::from(partial.clone()).partial(), Fate::Sent(GUEST2, partial))
            .left_to_tc(),
        Case::new("no IPv4", GUEST1, other.clone(), Fate::Sent(GUEST2, other)).left_to_tc(),
        Case::new("guest to the wire", BRIDGE_GUEST1, to_wire.clone(), Fate::Sent(BRIDGE_UPLINK, to_wire))
            .given(know_router)
            .accelerated(),
        Case::new("wire to a guest", BRIDGE_UPLINK, from_wire.clone(), Fate::Sent(BRIDGE_GUEST1, from_wire))
            .given(know_router)
            .accelerated(),
    ]);
}

#[test]
fn what_has_no_known_place_floods_to_all_but_the_sender() {
    let nobody = Mac([2, 9, 9, 9, 9, 9]);
    let multicast = Mac([0x01, 0, 0x5e, 0, 0, 0xfb]);
    case::run(vec![
        floods("unknown unicast", GUEST1, frame(GUEST1, nobody), &[GATEWAY, GUEST2, GUEST3]),
        floods("broadcast", GUEST3, frame(GUEST3, Mac::BROADCAST), &[GATEWAY, GUEST1, GUEST2]),
        floods("multicast", GUEST2, frame(GUEST2, multicast), &[GATEWAY, GUEST1, GUEST3]),
        floods("in a network without gateway", ISOLATED_GUEST1, frame(ISOLATED_GUEST1, nobody), &[ISOLATED_GUEST2]),
        floods(
            "to the wire of a bridge and its host",
            BRIDGE_GUEST1,
            frame(BRIDGE_GUEST1, Mac::BROADCAST),
            &[BRIDGE_UPLINK, BRIDGE_HOST, BRIDGE_GUEST2],
        ),
        floods(
            "unknown unicast on a bridge",
            BRIDGE_GUEST2,
            frame(BRIDGE_GUEST2, nobody),
            &[BRIDGE_UPLINK, BRIDGE_HOST, BRIDGE_GUEST1],
        ),
        floods("from the host", GATEWAY, frame(GATEWAY, Mac::BROADCAST), &[GUEST1, GUEST2, GUEST3])
            .at(Hook::GatewayEgress),
        Case::new(
            "from the wire, and to the host",
            BRIDGE_UPLINK,
            ethernet(Mac::BROADCAST, ROUTER_MAC, TEST, &[0; 46]),
            Fate::FloodedAndToHost(vec![BRIDGE_GUEST1, BRIDGE_GUEST2]),
        ),
        Case::new(
            "from the host on the NIC, and to the wire",
            BRIDGE_UPLINK,
            ethernet(Mac::BROADCAST, mac(BRIDGE_UPLINK), TEST, &[0; 46]),
            Fate::FloodedAndToHost(vec![BRIDGE_GUEST1, BRIDGE_GUEST2]),
        )
        .at(Hook::UplinkEgress),
    ]);
}

#[test]
fn a_member_that_cannot_take_a_copy_costs_only_itself() {
    let broadcast = frame(GUEST1, Mac::BROADCAST);
    let long = ethernet(Mac::BROADCAST, mac(GUEST1), TEST, &[0; 1400]);
    let refuse = |vport| {
        move |world: &World| {
            world.kernel.refuses_copies.borrow_mut().insert(ifindex(vport));
        }
    };
    let remove = |vport| move |world: &World| world.change_vport(vport, |entry| entry.ifindex = 0);
    let shorten = |vport| move |world: &World| world.change_vport(vport, |entry| entry.mtu = 1280);
    case::run(vec![
        floods("first refuses", GUEST1, broadcast.clone(), &[GUEST2, GUEST3])
            .given(refuse(GATEWAY))
            .counts(EventCount::FloodRefused),
        floods("one in the middle refuses", GUEST1, broadcast.clone(), &[GATEWAY, GUEST3])
            .given(refuse(GUEST2))
            .counts(EventCount::FloodRefused),
        floods("one is absent", GUEST1, broadcast.clone(), &[GATEWAY, GUEST3]).given(remove(GUEST2)),
        floods("the list names a free slot", GUEST1, broadcast.clone(), &[GUEST3])
            .given(|world| world.tables.set_members(NAT, vec![4000, GUEST1, GUEST3, 9999])),
        floods("one has a small MTU", GUEST1, long, &[GATEWAY, GUEST3]).given(shorten(GUEST2)),
        Case::dropped("nobody else", GUEST1, broadcast.clone(), DropReason::NoMembers)
            .given(|world| world.tables.set_members(NAT, vec![GUEST1])),
        Case::dropped("no list", GUEST1, broadcast.clone(), DropReason::NoMembers)
            .given(|world| world.tables.set_members(NAT, vec![])),
        Case::dropped("all refuse", ISOLATED_GUEST1, frame(ISOLATED_GUEST1, Mac::BROADCAST), DropReason::NoMembers)
            .given(refuse(ISOLATED_GUEST2))
            .counts(EventCount::FloodRefused),
        Case::new(
            "no guests on the wire's network",
            BRIDGE_UPLINK,
            ethernet(Mac::BROADCAST, ROUTER_MAC, TEST, &[]),
            Fate::ToHost,
        )
        .given(|world| world.tables.set_members(BRIDGE, vec![BRIDGE_UPLINK])),
    ]);
}

#[test]
fn a_frame_never_goes_back() {
    let neighbour = Mac([2, 0, 0, 0, 7, 7]);
    let learned_here = move |world: &World| world.learn(GUEST1, neighbour, FdbKind::Learned);
    case::run(vec![
        Case::dropped("to oneself", GUEST1, frame(GUEST1, mac(GUEST1)), DropReason::SamePort),
        Case::dropped("to a neighbour behind the same port", GUEST1, frame(GUEST1, neighbour), DropReason::SamePort)
            .given(learned_here),
        Case::new(
            "wire to wire is the host's to discard",
            BRIDGE_UPLINK,
            ethernet(neighbour, ROUTER_MAC, TEST, &[]),
            Fate::ToHost,
        )
        .given(move |world| world.learn(BRIDGE_UPLINK, neighbour, FdbKind::Learned)),
        Case::new(
            "host to wire takes the wire",
            BRIDGE_UPLINK,
            ethernet(ROUTER_MAC, mac(BRIDGE_UPLINK), TEST, &[]),
            Fate::ToHost,
        )
        .given(|world| world.learn(BRIDGE_UPLINK, ROUTER_MAC, FdbKind::Learned))
        .at(Hook::UplinkEgress),
    ]);
}

#[test]
fn the_host_takes_part_in_a_bridge_network_on_its_own_nic() {
    let from_guest = frame(BRIDGE_GUEST1, mac(BRIDGE_UPLINK));
    let from_host = ethernet(mac(BRIDGE_GUEST1), mac(BRIDGE_UPLINK), TEST, &[0; 46]);
    let from_wire = ethernet(mac(BRIDGE_UPLINK), ROUTER_MAC, TEST, &[0; 46]);
    case::run(vec![
        Case::new(
            "guest to host",
            BRIDGE_GUEST1,
            from_guest.clone(),
            Fate::Delivered(BRIDGE_UPLINK, from_guest.clone()),
        ),
        Case::new("the same, handed in by ourselves", BRIDGE_UPLINK, Arrival::from(from_guest).marked(), Fate::NotOurs),
        Case::new("wire to host", BRIDGE_UPLINK, from_wire, Fate::ToHost),
        Case::new("host to guest", BRIDGE_UPLINK, from_host.clone(), Fate::Sent(BRIDGE_GUEST1, from_host))
            .at(Hook::UplinkEgress),
        Case::new(
            "guest's frame on its way out",
            BRIDGE_UPLINK,
            Arrival::from(frame(BRIDGE_GUEST1, ROUTER_MAC)).marked(),
            Fate::NotOurs,
        )
        .at(Hook::UplinkEgress),
        Case::new(
            "host to a guest that is gone",
            BRIDGE_UPLINK,
            frame(BRIDGE_UPLINK, mac(BRIDGE_GUEST2)),
            Fate::Dropped(DropReason::PortAbsent),
        )
        .given(|world| world.change_vport(BRIDGE_GUEST2, |vport| vport.ifindex = 0))
        .at(Hook::UplinkEgress),
    ]);
}

#[test]
fn the_host_reaches_guests_by_the_gateway() {
    let known = frame(GATEWAY, mac(GUEST2));
    let nobody = frame(GATEWAY, Mac([2, 9, 9, 9, 9, 9]));
    case::run(vec![
        Case::new("known", GATEWAY, known.clone(), Fate::Sent(GUEST2, known)).at(Hook::GatewayEgress),
        floods("unknown", GATEWAY, nobody, &[GUEST1, GUEST2, GUEST3]).at(Hook::GatewayEgress),
        Case::new("a guest's device has no such hook", GUEST1, frame(GUEST1, mac(GUEST2)), Fate::NotOurs)
            .at(Hook::GatewayEgress),
        Case::new("a routed uplink has no such hook", UPLINK, frame(UPLINK, ROUTER_MAC), Fate::NotOurs)
            .at(Hook::UplinkEgress),
        Case::new("the gateway's ingress is not ours", GATEWAY, frame(GUEST1, mac(GATEWAY)), Fate::NotOurs),
    ]);
}

#[test]
fn the_gateways_device_is_reached_by_its_other_addresses_as_well() {
    let other = Mac([2, 0, 0, 0, 0, 0x99]);
    let to_host = udp(GUEST1, GUEST2).link(other, mac(GUEST1)).bytes();
    case::run(vec![
        Case::new("a static entry", GUEST1, to_host.clone(), Fate::Delivered(GATEWAY, to_host))
            .given(move |world| world.learn(GATEWAY, other, FdbKind::Static)),
        Case::dropped("the host to itself", GATEWAY, frame(GATEWAY, mac(GATEWAY)), DropReason::SamePort)
            .at(Hook::GatewayEgress),
    ]);
}

#[test]
fn length_is_judged_by_the_mtu_of_the_device_that_it_leaves_by() {
    let packet = |length| udp(GUEST1, GUEST2).length(length).bytes();
    let tcp = |length| Packet { l4: L4::Tcp(0x10), ..udp(GUEST1, GUEST2) }.length(length).bytes();
    let with_mtu = |mtu| move |world: &World| world.change_vport(GUEST2, |vport| vport.mtu = mtu);
    let sent = |frame: &Vec<u8>| Fate::Sent(GUEST2, frame.clone());
    let gso = |frame: &Vec<u8>, size| Arrival::from(frame.clone()).gso(size).linear(128).partial();
    let (fits, long, big) = (packet(1500), packet(1501), tcp(60_000));
    let in_bytes = tagged(0x8100, 5, &fits);
    let huge = Packet { l4: L4::Tcp(0x10), ..udp(GUEST1, GUEST2) }.partial().length(70_000).bytes();
    let v6 = {
        // IPv6, TCP behind it, 60 bytes of headers.
        let mut payload = vec![0; 30_000];
        (payload[0], payload[6], payload[52]) = (0x60, 6, 0x50);
        ethernet(mac(GUEST2), mac(GUEST1), 0x86dd, &payload)
    };
    let know_vlan = |world: &World| {
        let key = vnet_common::fdb::FdbKey::new(NAT, 5, mac(GUEST2));
        vnet_ebpf::tables::Tables::fdb(&world.tables)
            .put(key, vnet_common::fdb::FdbEntry::new(GUEST2, FdbKind::Learned, START));
    };
    case::run(vec![
        Case::new("as long as it may be", GUEST1, fits.clone(), sent(&fits)).accelerated(),
        Case::dropped("a byte more", GUEST1, long.clone(), DropReason::OverMtu),
        Case::new("a jumbo device takes it", GUEST1, long.clone(), sent(&long)).given(with_mtu(9000)).accelerated(),
        Case::dropped("the smaller MTU counts", GUEST1, fits.clone(), DropReason::OverMtu).given(with_mtu(1499)),
        Case::new("a tag in the bytes is not counted", GUEST1, in_bytes.clone(), sent(&in_bytes)).given(know_vlan),
        Case::new("a tag beside the bytes neither", GUEST1, Arrival::from(fits.clone()).tag(5), sent(&fits))
            .given(know_vlan),
        Case::new("segments that fit", GUEST1, gso(&big, 1460), sent(&big)),
        Case::dropped("segments a byte too long", GUEST1, gso(&big, 1461), DropReason::OverMtu),
        Case::new("more than 64 KiB in segments", GUEST1, gso(&huge, 1448), sent(&huge)),
        Case::new("UDP segments that fit", GUEST1, Arrival::from(packet(50_000)).gso(1472), sent(&packet(50_000))),
        Case::dropped(
            "UDP segments a byte too long",
            GUEST1,
            Arrival::from(packet(50_000)).gso(1473),
            DropReason::OverMtu,
        ),
        Case::new("IPv6 segments that fit", GUEST1, gso(&v6, 1440), sent(&v6)),
        Case::dropped("IPv6 segments a byte too long", GUEST1, gso(&v6, 1441), DropReason::OverMtu),
        Case::dropped(
            "a GSO frame without headers",
            GUEST1,
            Arrival::from(ethernet(mac(GUEST2), mac(GUEST1), 0x0800, &[0x45; 1600])).gso(100).linear(14),
            DropReason::OverMtu,
        )
        .given(with_mtu(100)),
    ]);
}

#[test]
fn a_port_without_device_is_named_as_the_reason() {
    let to_guest = frame(GUEST1, mac(GUEST2));
    let to_host = frame(BRIDGE_GUEST1, mac(BRIDGE_UPLINK));
    let remove = |vport| move |world: &World| world.change_vport(vport, |entry| entry.ifindex = 0);
    case::run(vec![
        Case::dropped("the slot is free", GUEST1, to_guest.clone(), DropReason::PortAbsent)
            .given(|world| world.tables.set_vport(GUEST2, Default::default())),
        Case::dropped("guest's device is gone", GUEST1, to_guest.clone(), DropReason::PortAbsent).given(remove(GUEST2)),
        Case::dropped("no such slot", GUEST1, to_guest, DropReason::PortAbsent)
            .given(|world| world.learn(5000, mac(GUEST2), FdbKind::Learned))
            .given(|world| {
                let key = vnet_common::fdb::FdbKey::new(NAT, 0, mac(GUEST2));
                vnet_ebpf::tables::Tables::fdb(&world.tables)
                    .put(key, vnet_common::fdb::FdbEntry::new(5000, FdbKind::Learned, START));
            }),
        Case::dropped("the NIC is gone", BRIDGE_GUEST1, to_host, DropReason::PortAbsent).given(remove(BRIDGE_UPLINK)),
    ]);
}

#[test]
fn a_frame_of_no_port_or_of_a_stopped_network_is_told_apart() {
    let any = frame(GUEST1, Mac::BROADCAST);
    let stop = |network| move |world: &World| world.change_network(network, |entry| entry.mode = 0);
    case::run(vec![
        Case::new("not a port", STRANGER, any.clone(), Fate::NotOurs),
        Case::new("not a port, host side", STRANGER, any.clone(), Fate::NotOurs).at(Hook::GatewayEgress),
        Case::new("not a port, NIC side", STRANGER, any.clone(), Fate::NotOurs).at(Hook::UplinkEgress),
        Case::dropped("a guest of a stopped network", GUEST1, any.clone(), DropReason::NoNetwork).given(stop(NAT)),
        Case::new("the NIC of a stopped network", BRIDGE_UPLINK, any.clone(), Fate::NotOurs).given(stop(BRIDGE)),
        Case::new("its host side", BRIDGE_UPLINK, any.clone(), Fate::NotOurs)
            .given(stop(BRIDGE))
            .at(Hook::UplinkEgress),
        Case::new("a role of the future", GUEST1, any, Fate::NotOurs)
            .given(|world| world.change_vport(GUEST1, |vport| vport.role = 77)),
    ]);
}
