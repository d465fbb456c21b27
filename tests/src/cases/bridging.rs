//! The switch: known, unknown, group and own addresses; VLANs; MTU.

use vnet_common::{DropReason::*, fdb::FdbKind, vport::VportRole};

use super::{Case, Expect, at};
use crate::{
    frame::{ETHERTYPE_TEST, Ipv4, Mac, ethernet, tagged},
    switch::{GATEWAY_MAC, GUEST1, GUEST2, GUEST3, OUTSIDE_MAC, Port, UPLINK_MAC},
    topology::{GATEWAY, HOST, OUTSIDE},
};

const STRANGER: Mac = Mac([2, 0, 0, 0, 0xee, 1]);
const MULTICAST: Mac = Mac([0x01, 0, 0x5e, 0, 0, 0xfb]);

/// A datagram between two guests.
fn datagram(length: usize) -> Ipv4 {
    Ipv4::udp(at(GUEST1.1, 4000), at(GUEST2.1, 5000), &vec![0x5a; length])
}

fn other(dst: Mac) -> Vec<u8> {
    ethernet(dst, GUEST1.0, ETHERTYPE_TEST, &[0x11; 46])
}

/// A change to a network whose uplink is a member.
fn bridge(setup: &mut crate::switch::Setup) {
    setup.mode = 1;
    setup.uplink_role = VportRole::BridgeUplink;
    setup.members = vec![Port::Guest1, Port::Guest2, Port::Uplink];
    setup.fdb = vec![(UPLINK_MAC, Port::Uplink, FdbKind::Local)];
}

pub fn cases() -> Vec<Case> {
    [between_guests(), mtu(), on_a_shared_wire()].concat()
}

fn between_guests() -> Vec<Case> {
    let known = datagram(100).frame(GUEST2.0, GUEST1.0);
    let all_but_guest1 = || Expect::Floods(vec![Port::Guest2, Port::Guest3, Port::Gateway]);
    let to_port = |frame: &[u8]| Expect::Sends(Port::Guest2, frame.to_vec());
    let host = Ipv4::udp(at(GUEST1.1, 4000), at(GATEWAY, 53), b"for the host").frame(GATEWAY_MAC, GUEST1.0);
    let tagged_known = tagged(0xa005, &known);
    vec![
        Case::new("a known address", Port::Guest1, known.clone(), to_port(&known)).accelerated(),
        Case::new("a known address, not IP", Port::Guest1, other(GUEST2.0), to_port(&other(GUEST2.0))),
        Case::new("14 bytes", Port::Guest1, other(GUEST2.0)[..14].to_vec(), to_port(&other(GUEST2.0)[..14])),
        Case::new("an unknown address", Port::Guest1, other(STRANGER), all_but_guest1()),
        Case::new("broadcast", Port::Guest1, other(Mac::BROADCAST), all_but_guest1()),
        Case::new("multicast", Port::Guest1, other(MULTICAST), all_but_guest1()),
        Case::new(
            "the first group address behind the control ones",
            Port::Guest1,
            other(Mac([1, 0x80, 0xc2, 0, 0, 0x10])),
            all_but_guest1(),
        ),
        Case::new("known on no VLAN only", Port::Guest1, tagged_known.clone(), all_but_guest1()),
        Case::new("known on the VLAN", Port::Guest1, tagged_known.clone(), to_port(&tagged_known))
            .after(Port::Guest2, tagged(5, &ethernet(GUEST1.0, GUEST2.0, ETHERTYPE_TEST, &[0; 46]))),
        Case::drops("back where it came from", Port::Guest1, other(GUEST3.0), SamePort)
            .setup(|setup| setup.fdb.push((GUEST3.0, Port::Guest1, FdbKind::Learned))),
        Case::drops("a port without device", Port::Guest1, known.clone(), PortAbsent)
            .setup(|setup| setup.absent = Some(Port::Guest2)),
        Case::drops("nobody else there", Port::Guest1, other(Mac::BROADCAST), NoMembers)
            .setup(|setup| setup.members = vec![Port::Guest1]),
        Case::new(
            "an absent member is passed over",
            Port::Guest1,
            other(Mac::BROADCAST),
            Expect::Floods(vec![Port::Guest3, Port::Gateway]),
        )
        .setup(|setup| setup.absent = Some(Port::Guest2)),
        Case::new("a static entry", Port::Guest1, other(STRANGER), Expect::Sends(Port::Guest2, other(STRANGER)))
            .setup(|setup| setup.fdb.push((STRANGER, Port::Guest2, FdbKind::Static))),
        Case::new(
            "a source that is not learned yet",
            Port::Guest3,
            datagram(10).frame(GUEST2.0, GUEST3.0),
            Expect::Sends(Port::Guest2, datagram(10).frame(GUEST2.0, GUEST3.0)),
        ),
        Case::new(
            "a source that has moved",
            Port::Guest3,
            datagram(10).frame(GUEST2.0, GUEST1.0),
            Expect::Sends(Port::Guest2, datagram(10).frame(GUEST2.0, GUEST1.0)),
        ),
        Case::new("for the host by the gateway", Port::Guest1, host.clone(), Expect::Sends(Port::Gateway, host)),
        Case::new(
            "from the host to a guest",
            Port::Gateway,
            datagram(10).frame(GUEST1.0, GATEWAY_MAC),
            Expect::Sends(Port::Guest1, datagram(10).frame(GUEST1.0, GATEWAY_MAC)),
        ),
        Case::new(
            "from the host to an unknown guest",
            Port::Gateway,
            datagram(10).frame(STRANGER, GATEWAY_MAC),
            Expect::Floods(vec![Port::Guest1, Port::Guest2, Port::Guest3]),
        ),
    ]
}

fn mtu() -> Vec<Case> {
    // 1500 bytes of IP packet: 20 + 8 + 1472.
    let fits = datagram(1472).frame(GUEST2.0, GUEST1.0);
    let too_long = datagram(1473).frame(GUEST2.0, GUEST1.0);
    let segment = |size: usize| {
        Ipv4::tcp(at(GUEST1.1, 4000), at(GUEST2.1, 5000), 0x18, &vec![0x5a; size]).frame(GUEST2.0, GUEST1.0)
    };
    vec![
        Case::new("as long as the MTU", Port::Guest1, fits.clone(), Expect::Sends(Port::Guest2, fits)).accelerated(),
        Case::drops("a byte longer than the MTU", Port::Guest1, too_long.clone(), OverMtu),
        Case::drops(
            "nobody takes a broadcast longer than the MTU",
            Port::Guest1,
            ethernet(Mac::BROADCAST, GUEST1.0, ETHERTYPE_TEST, &[0; 1501]),
            NoMembers,
        ),
        Case::new("GSO in segments that fit", Port::Guest1, segment(3000), Expect::Sends(Port::Guest2, segment(3000)))
            .gso(1460),
        Case::drops("GSO in segments that do not fit", Port::Guest1, segment(3001), OverMtu).gso(1461),
    ]
}

/// Bridge mode: the uplink is a member, and its own address is the host.
fn on_a_shared_wire() -> Vec<Case> {
    let to_guest = Ipv4::udp(at(OUTSIDE, 4000), at(GUEST1.1, 5000), b"in").frame(GUEST1.0, OUTSIDE_MAC);
    let to_host = Ipv4::udp(at(OUTSIDE, 4000), at(HOST, 5000), b"in").frame(UPLINK_MAC, OUTSIDE_MAC);
    let out = Ipv4::udp(at(GUEST1.1, 5000), at(OUTSIDE, 4000), b"out").frame(OUTSIDE_MAC, GUEST1.0);
    let guest_to_host = Ipv4::udp(at(GUEST1.1, 5000), at(HOST, 4000), b"up").frame(UPLINK_MAC, GUEST1.0);
    let from_wire = |dst: Mac| ethernet(dst, OUTSIDE_MAC, ETHERTYPE_TEST, &[0x22; 46]);
    let cases = vec![
        Case::new(
            "bridge: from the wire to a guest",
            Port::Uplink,
            to_guest.clone(),
            Expect::Sends(Port::Guest1, to_guest),
        ),
        Case::new("bridge: from the wire to the host", Port::Uplink, to_host.clone(), Expect::ToHost),
        Case::new(
            "bridge: broadcast from the wire",
            Port::Uplink,
            from_wire(Mac::BROADCAST),
            Expect::FloodsAndToHost(vec![Port::Guest1, Port::Guest2]),
        ),
        Case::new(
            "bridge: unknown from the wire",
            Port::Uplink,
            from_wire(STRANGER),
            Expect::FloodsAndToHost(vec![Port::Guest1, Port::Guest2]),
        ),
        Case::new(
            "bridge: control frame from the wire",
            Port::Uplink,
            from_wire(Mac([1, 0x80, 0xc2, 0, 0, 0])),
            Expect::ToHost,
        ),
        Case::new(
            "bridge: a cut-off tag from the wire",
            Port::Uplink,
            tagged(5, &from_wire(GUEST1.0))[..16].to_vec(),
            Expect::ToHost,
        ),
        Case::new("bridge: from a guest to the wire", Port::Guest1, out.clone(), Expect::Sends(Port::Uplink, out))
            .setup(|setup| setup.fdb.push((OUTSIDE_MAC, Port::Uplink, FdbKind::Learned))),
        Case::new(
            "bridge: from a guest to the host",
            Port::Guest1,
            guest_to_host.clone(),
            Expect::Sends(Port::Uplink, guest_to_host),
        ),
    ];
    cases
        .into_iter()
        .map(|case| {
            case.setup(|setup| {
                let extra = setup.fdb.split_off(1);
                bridge(setup);
                setup.fdb.extend(extra);
            })
        })
        .collect()
}
