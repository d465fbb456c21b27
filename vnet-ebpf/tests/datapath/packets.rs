//! Packets as they are seen on the ways through the world.

use std::net::{Ipv4Addr, SocketAddrV4};

use vnet_common::vport::VportId;

use crate::{
    frames::{ACK, L4, Packet, SYN},
    world::{
        EXTERNAL, GATEWAY, HOST_ONLY, HOST_ONLY_GATEWAY, NAT, OTHER_GATEWAY, OTHER_NAT, ROUTED_GATEWAY, ROUTER_MAC,
        SERVER, UPLINK_MAC, ip, mac, network_of,
    },
};

/// A port inside the range of external ones, which a guest therefore keeps.
pub const KEPT: u16 = 50_123;

pub fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

pub fn server() -> SocketAddrV4 {
    at(SERVER, 80)
}

fn gateway_of(guest: VportId) -> VportId {
    match network_of(guest) {
        NAT => GATEWAY,
        OTHER_NAT => OTHER_GATEWAY,
        HOST_ONLY => HOST_ONLY_GATEWAY,
        _ => ROUTED_GATEWAY,
    }
}

/// From a guest, to its gateway's MAC address.
pub fn outgoing(guest: VportId, l4: L4, port: u16, dst: SocketAddrV4) -> Packet {
    Packet::new(l4, at(ip(guest), port), dst).link(mac(gateway_of(guest)), mac(guest))
}

pub fn syn(guest: VportId, port: u16) -> Packet {
    outgoing(guest, L4::Tcp(SYN), port, server())
}

pub fn udp(guest: VportId, port: u16) -> Packet {
    outgoing(guest, L4::Udp, port, server())
}

/// An echo request; the identifier stands for the port.
pub fn ping(guest: VportId, identifier: u16) -> Packet {
    outgoing(guest, L4::EchoRequest, identifier, at(SERVER, 0))
}

/// The packet as it leaves by the uplink, by way of the router, from an external port.
pub fn on_the_wire(packet: Packet, port: u16) -> Packet {
    let ttl = packet.ttl - 1;
    packet.link(ROUTER_MAC, UPLINK_MAC).src(at(EXTERNAL, port)).ttl(ttl)
}

/// From the outside, by way of the router.
pub fn incoming(l4: L4, src: SocketAddrV4, dst: SocketAddrV4) -> Packet {
    Packet::new(l4, src, dst).link(UPLINK_MAC, ROUTER_MAC)
}

/// The packet as it reaches a guest.
pub fn to_guest(packet: Packet, guest: VportId, port: u16) -> Packet {
    let ttl = packet.ttl - 1;
    packet.link(mac(guest), mac(gateway_of(guest))).dst(at(ip(guest), port)).ttl(ttl)
}

/// The answer to a packet as it came out on the wire (or, to a guest).
pub fn answer(packet: &Packet) -> Packet {
    let l4 = match packet.l4 {
        L4::Tcp(SYN) => L4::Tcp(SYN | ACK),
        L4::Tcp(_) => L4::Tcp(ACK),
        L4::EchoRequest => L4::EchoReply,
        other => other,
    };
    Packet { l4, src: packet.dst, dst: packet.src, ttl: 64, ..packet.clone() }.link(packet.src_mac, packet.dst_mac)
}
