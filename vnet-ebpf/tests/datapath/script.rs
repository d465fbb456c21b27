//! Random scripts: packets of guests and outside hosts on few ports, and all that happens around them.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use vnet_common::{Mac, config::NatPolicy, vport::VportId};

use crate::{
    frames::{self, ACK, FIN, L4, Packet, RST, SYN, arp_request, ethernet},
    packets::{at, incoming, outgoing},
    world::*,
};

/// External ports, of which there are few.
pub const FIRST: u16 = 50_000;
pub const LAST: u16 = 50_003;
/// Where forwards listen; the last one has none.
pub const LISTENERS: [u16; 3] = [8080, 8081, 8082];

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Frame(Sent),
    Wait(u32),
    /// The daemon offers everything for expiry.
    Expire,
    /// The daemon ends one of the connections that there are.
    Flush(usize),
    /// Routes have changed.
    Bump,
    /// The route to the outside, by number.
    Route(u8),
    /// The daemon makes room: it ends what can be spared.
    Spare,
    /// The NAT network's policy is another one.
    Policy(NatPolicy),
    /// Room for so many connections and bindings.
    Room(usize, usize),
    /// A guest's device goes, or comes back.
    Toggle(VportId),
}

/// A frame that somebody sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: VportId,
    pub arrival: Arrival,
    /// Its checksums are right (or properly partial).
    pub is_valid: bool,
}

fn guests() -> impl Strategy<Value = VportId> {
    prop_oneof![6 => Just(GUEST1), 2 => Just(GUEST2), 1 => Just(GUEST3), 2 => Just(OTHER_GUEST)]
}

fn tcp_flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(SYN),
        3 => Just(SYN | ACK),
        6 => Just(ACK),
        2 => Just(FIN | ACK),
        1 => Just(RST),
        1 => any::<u8>().prop_map(|flags| flags & (FIN | SYN | RST | ACK)),
    ]
}

fn l4() -> impl Strategy<Value = L4> {
    prop_oneof![
        6 => tcp_flags().prop_map(L4::Tcp),
        4 => Just(L4::Udp),
        1 => Just(L4::UdpWithoutChecksum),
        2 => Just(L4::EchoRequest),
        2 => Just(L4::EchoReply),
        1 => Just(L4::Other(50)),
    ]
}

fn outside() -> impl Strategy<Value = (Ipv4Addr, u16)> {
    (prop_oneof![4 => Just(SERVER), 1 => Just(SERVER2)], prop_oneof![6 => Just(80), 1 => Just(FIRST)])
}

fn destinations() -> impl Strategy<Value = (Ipv4Addr, u16)> {
    let own_ports = prop_oneof![2 => FIRST..=LAST, 1 => proptest::sample::select(&LISTENERS[..])];
    let own_addresses = prop_oneof![4 => Just(EXTERNAL), 1 => Just(SECOND_ADDRESS)];
    prop_oneof![
        12 => outside(),
        2 => (own_addresses, own_ports),
        1 => prop_oneof![Just(UNREACHABLE), Just(BY_STRANGER), Just(BY_OTHER_UPLINK), Just(BY_SILENT_ROUTER)].prop_map(|to| (to, 80)),
        1 => prop_oneof![Just(EXTERNAL), Just(ip(GATEWAY)), Just(ip(GUEST2)), Just(ip(OTHER_GUEST)), Just(ip(ROUTED_GUEST1))].prop_map(|to| (to, 80)),
    ]
}

/// From a guest by its gateway.
fn outbound() -> BoxedStrategy<(VportId, Packet)> {
    let port = prop_oneof![2 => Just(80), 6 => Just(FIRST), 1 => Just(FIRST + 1), 1 => Just(7)];
    (guests(), l4(), port, destinations())
        .prop_map(|(guest, l4, port, (address, dst_port))| (guest, outgoing(guest, l4, port, at(address, dst_port))))
        .boxed()
}

/// From the outside to the host's address.
fn inbound() -> BoxedStrategy<(VportId, Packet)> {
    let port = prop_oneof![6 => Just(FIRST), 2 => FIRST..=LAST, 3 => proptest::sample::select(&LISTENERS[..])];
    let address = prop_oneof![16 => Just(EXTERNAL), 1 => Just(SECOND_ADDRESS), 1 => Just(ip(ROUTED_GUEST1)), 1 => Just(OTHER_EXTERNAL)];
    (l4(), outside(), address, port)
        .prop_map(|(l4, (address, src_port), dst, port)| (UPLINK, incoming(l4, at(address, src_port), at(dst, port))))
        .boxed()
}

/// Between neighbours, or from guests that are routed or kept in.
fn inside() -> BoxedStrategy<(VportId, Packet)> {
    let bridged = (GUEST1..=GUEST3, GUEST1..=GUEST3, l4())
        .prop_map(|(from, to, l4)| (from, Packet::new(l4, at(ip(from), 5), at(ip(to), 80)).link(mac(to), mac(from))));
    let by_wire = (BRIDGE_UPLINK..=BRIDGE_GUEST2, BRIDGE_UPLINK..=BRIDGE_GUEST2, l4()).prop_map(|(from, to, l4)| {
        let src = if from == BRIDGE_UPLINK { ROUTER_MAC } else { mac(from) };
        (from, Packet::new(l4, at(ip(from), 5), at(ip(to), 80)).link(mac(to), src))
    });
    let moved = (GUEST1..=GUEST3, GUEST1..=GUEST3, l4()).prop_map(|(from, as_if, l4)| {
        (from, Packet::new(l4, at(ip(as_if), 5), at(SERVER, 80)).link(mac(GATEWAY), mac(as_if)))
    });
    let routed = l4().prop_map(|l4| (ROUTED_GUEST1, outgoing(ROUTED_GUEST1, l4, 80, at(SERVER, 80))));
    let kept_in = l4().prop_map(|l4| (HOST_ONLY_GUEST, outgoing(HOST_ONLY_GUEST, l4, 80, at(SERVER, 80))));
    prop_oneof![3 => bridged, 3 => by_wire, 1 => moved, 1 => routed, 1 => kept_in].boxed()
}

/// What makes a packet unusual.
#[derive(Clone, Copy, Debug)]
enum Twist {
    None,
    Ttl(u8),
    Options,
    Fragment,
    Long,
    /// One GSO frame of segments of this size.
    Gso(u32),
    Partial,
    Tag(u16),
    Linear(usize),
}

fn twists() -> impl Strategy<Value = Twist> {
    prop_oneof![
        16 => Just(Twist::None),
        1 => (0..3_u8).prop_map(Twist::Ttl),
        1 => Just(Twist::Options),
        1 => Just(Twist::Fragment),
        1 => Just(Twist::Long),
        1 => prop_oneof![Just(1448), Just(1500), Just(200)].prop_map(Twist::Gso),
        2 => Just(Twist::Partial),
        1 => any::<u16>().prop_map(Twist::Tag),
        1 => (100..200_usize).prop_map(Twist::Linear),
    ]
}

fn twisted(packet: Packet, twist: Twist) -> Arrival {
    let can_be_partial = matches!(packet.l4, L4::Tcp(_) | L4::Udp);
    match twist {
        Twist::Ttl(ttl) => packet.ttl(ttl).bytes().into(),
        Twist::Options => packet.options(&[1; 8]).bytes().into(),
        Twist::Fragment => packet.fragment(0, true).bytes().into(),
        Twist::Long => packet.length(1501).bytes().into(),
        Twist::Gso(size) if can_be_partial => {
            Arrival::from(packet.partial().length(1400).bytes()).gso(size.min(1000)).partial()
        }
        Twist::Partial if can_be_partial => Arrival::from(packet.partial().bytes()).partial(),
        Twist::Tag(tci) => Arrival::from(packet.bytes()).tag(tci),
        Twist::Linear(linear) => Arrival::from(packet.length(1400).bytes()).linear(linear),
        _ => packet.bytes().into(),
    }
}

fn valid() -> BoxedStrategy<Sent> {
    let packet = prop_oneof![6 => outbound(), 5 => inbound(), 3 => inside()];
    (packet, twists())
        .prop_map(|((from, packet), twist)| Sent { from, arrival: twisted(packet, twist), is_valid: true })
        .boxed()
}

/// Frames that are not IPv4.
fn other() -> BoxedStrategy<Sent> {
    let asked = prop_oneof![Just(ip(GATEWAY)), Just(ip(GUEST2)), Just(EXTERNAL)];
    let arp = (guests(), asked).prop_map(|(from, address)| (from, arp_request((mac(from), ip(from)), address)));
    let types = prop_oneof![Just(0x86dd), Just(0x88b5)];
    let any_frame = (guests(), types, any::<bool>()).prop_map(|(from, ether_type, is_broadcast)| {
        let dst = if is_broadcast { Mac::BROADCAST } else { mac(GUEST1) };
        (from, ethernet(dst, mac(from), ether_type, &[0x60; 60]))
    });
    prop_oneof![arp, any_frame].prop_map(|(from, bytes)| Sent { from, arrival: bytes.into(), is_valid: true }).boxed()
}

/// Valid frames with bytes changed or cut off.
fn spoilt() -> BoxedStrategy<Sent> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (valid(), changes, prop::option::of(any::<prop::sample::Index>()))
        .prop_map(|(mut sent, changes, cut)| {
            for (at, byte) in changes {
                let at = at.index(sent.arrival.bytes.len());
                sent.arrival.bytes[at] = byte;
            }
            if let Some(cut) = cut {
                let length = cut.index(sent.arrival.bytes.len());
                sent.arrival.bytes.truncate(length);
                sent.arrival.tag = None;
            }
            // Whether the checksum was partial once is nothing that it could still say.
            sent.arrival.is_partial = false;
            Sent { is_valid: false, ..sent }
        })
        .boxed()
}

pub fn frames() -> BoxedStrategy<Sent> {
    prop_oneof![16 => valid(), 1 => other(), 2 => spoilt()].boxed()
}

fn policies() -> impl Strategy<Value = NatPolicy> {
    let quota = || prop_oneof![3 => Just(0_u32), 1 => 1..4_u32];
    let pool = prop_oneof![2 => Just(None), 1 => Just(Some((EXTERNAL, SECOND_ADDRESS)))];
    (0..2_u8, 0..3_u8, 0..2_u8, (quota(), quota(), quota()), pool).prop_map(
        |(mapping, filtering, inbound_refresh, (connections, ports, new), pool)| {
            let own = NatPolicy::new(FIRST, LAST);
            let (first, last) = pool.map_or((own.first_address, own.last_address), |(a, b)| (a.into(), b.into()));
            NatPolicy {
                first_address: first,
                last_address: last,
                mapping,
                filtering,
                inbound_refresh,
                guest_connections: connections,
                guest_bindings: ports,
                guest_new_per_second: new,
                ..own
            }
        },
    )
}

pub fn steps() -> BoxedStrategy<Step> {
    let few = (0..20_usize, 0..10_usize).prop_map(|(connections, bindings)| Step::Room(connections, bindings));
    let room = prop_oneof![few, Just(Step::Room(1000, 1000))];
    prop_oneof![
        40 => frames().prop_map(Step::Frame),
        2 => prop_oneof![Just(1), Just(3), Just(31), Just(100), Just(400)].prop_map(Step::Wait),
        2 => Just(Step::Expire),
        1 => any::<usize>().prop_map(Step::Flush),
        1 => Just(Step::Bump),
        1 => any::<u8>().prop_map(Step::Route),
        1 => room,
        1 => Just(Step::Spare),
        1 => policies().prop_map(Step::Policy),
        1 => prop_oneof![Just(GUEST1), Just(GUEST2), Just(UPLINK)].prop_map(Step::Toggle),
    ]
    .boxed()
}

/// A world with few ports and forwards on two listeners.
pub fn world() -> World {
    let world = World::new();
    for network in [NAT, OTHER_NAT] {
        world.change_network(network, |entry| (entry.nat.first_port, entry.nat.last_port) = (FIRST, LAST));
    }
    for protocol in [6, 17] {
        world.forward(protocol, (None, LISTENERS[0]), (GUEST1, 80));
        world.forward(protocol, (Some(EXTERNAL), LISTENERS[1]), (OTHER_GUEST, 80));
    }
    world.learn(BRIDGE_UPLINK, ROUTER_MAC, vnet_common::fdb::FdbKind::Learned);
    world
}

/// Judges a frame that left, if it is one that can be judged.
pub fn judge(sent: &Sent, out: &[u8]) -> Result<(), String> {
    let is_ipv4 = out.get(12..14) == Some(&[8, 0]);
    if !sent.is_valid || !is_ipv4 {
        return Ok(());
    }
    let mut out = out.to_vec();
    if sent.arrival.is_partial {
        frames::finish_partial(&mut out);
    }
    frames::judge(&out)
}
