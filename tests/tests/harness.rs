//! The harness itself, proved on what the kernel brings along: linux-bridge and netfilter.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use vnet_tests::{
    alternative,
    capture::{Capture, marker},
    checksum::{self, L4},
    frame::{Ipv4, Mac, UDP, ethernet, tagged},
    guest_nic::GuestNic,
    namespace::Namespace,
    peers,
    reflector::{Reflector, ask, udp},
    snapshot::Snapshot,
    stream::Stream,
    topology::{GATEWAY, HOST, INTERNET, OUTSIDE, Topology},
    transfer::{BULK, Talk},
    vnet_header::VnetHeader,
};

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn socket(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), port)
}

#[test]
fn built_frames_are_what_another_builder_makes() -> Result<()> {
    let payload = b"an odd number of bytes!";
    let headers = || {
        etherparse::PacketBuilder::ethernet2(A.0, B.0).ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                identification: 0x1234,
                source: [10, 0, 0, 1],
                destination: [10, 0, 0, 2],
                ..etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber(UDP), [0; 4], [0; 4])
                    .expect("a header without payload")
            },
            Default::default(),
        ))
    };
    let mut udp = Vec::new();
    headers().udp(4000, 53).write(&mut udp, payload)?;
    let mut ours = Ipv4::udp(socket(1, 4000), socket(2, 53), payload).frame(B, A);
    // etherparse sets "don't fragment"; take it over, with the checksum.
    ours[14..34].copy_from_slice(&udp[14..34]);
    assert_eq!(ours, udp);

    let mut echo = Vec::new();
    headers().icmpv4_echo_request(77, 7).write(&mut echo, payload)?;
    let ours = Ipv4::icmp_echo(*socket(1, 0).ip(), *socket(2, 0).ip(), 8, 77, payload).frame(B, A);
    assert_eq!(ours[34..], echo[34..]);
    assert_eq!(checksum::judge(&ours), Ok(L4::Full));
    Ok(())
}

#[test]
fn spoilt_frames_are_found_out() {
    let good = Ipv4::tcp(socket(1, 4000), socket(2, 80), 0x18, b"data");
    let frame = |packet: &Ipv4| packet.frame(B, A);
    assert_eq!(checksum::judge(&frame(&good)), Ok(L4::Full));
    assert!(matches!(checksum::judge(&frame(&good.clone().spoil(20, b"D"))), Ok(L4::Wrong { .. })));
    let pseudo = checksum::sum(&[&checksum::pseudo_header(&good.packet(), good.payload.len())]);
    assert_eq!(checksum::judge(&frame(&good.clone().spoil(16, &pseudo.to_be_bytes()))), Ok(L4::Partial));
    let mut bad_header = frame(&good);
    bad_header[22] -= 1;
    assert!(checksum::judge(&bad_header).is_err());
    let zero = Ipv4::udp(socket(1, 1), socket(2, 2), b"x").spoil(6, &[0, 0]);
    assert_eq!(checksum::judge(&tagged(7, &frame(&zero))), Ok(L4::Absent));
}

#[test]
fn a_frame_that_only_claims_to_be_complete_is_found_out() {
    let packet = Ipv4::tcp(socket(1, 4000), socket(2, 80), 0x18, b"data");
    let pseudo = checksum::sum(&[&checksum::pseudo_header(&packet.packet(), packet.payload.len())]);
    let mut partial = packet.clone().spoil(16, &pseudo.to_be_bytes()).frame(B, A);
    let header = VnetHeader { flags: 1, csum_start: 34, csum_offset: 16, ..VnetHeader::default() };
    assert!(header.judge(&partial, 1514).is_ok());
    assert!(VnetHeader::default().judge(&partial, 1514).is_err());
    vnet_tests::vnet_header::complete(&header, &mut partial).expect("a whole frame");
    assert_eq!(partial, packet.frame(B, A));
    assert!(header.judge(&partial, 1514).is_err());
    assert_eq!(VnetHeader::parse(&header.bytes(12)).expect("12 bytes"), header);
}

#[test]
fn guests_talk_over_a_linux_bridge() -> Result<()> {
    let world = Topology::new().guests(3).quiet().build()?;
    alternative::linux_bridge(&world)?;
    let [a, b, c] = [1, 2, 3].map(|number| world.guest(number));
    peers::reaches(a, b.address)?;
    Talk::new(a, b, b.address, 5000).upload(BULK)?;
    Talk::new(a, b, b.address, 5000).download(BULK)?;

    let [from, to, third] = [a, b, c].map(|guest| Capture::open(guest, "eth0"));
    let (from, to, third) = (from?, to?, third?);
    let unicast = tagged(0x6005, &ethernet(b.mac, a.mac, 0x88b5, &[7; 60]));
    from.send(&unicast)?;
    to.wait_for_bytes("the tagged frame", &unicast)?;
    from.send(&marker(a.mac, 1))?;
    let seen = third.before(&marker(a.mac, 1))?;
    ensure!(seen.iter().all(|packet| packet.bytes != unicast), "a learned unicast reached a third guest");
    Ok(())
}

#[test]
fn guests_reach_the_outside_through_masquerading() -> Result<()> {
    let world = Topology::new().guests(1).uplink().build()?;
    alternative::masquerade(&world)?;
    let (guest, outside) = (world.guest(1), world.outside());
    peers::reaches(guest, GATEWAY)?;
    peers::reaches(guest, INTERNET)?;
    let seen = Talk::new(guest, outside, OUTSIDE, 5000).from_port(50_000).upload(BULK)?;
    assert_eq!(seen, SocketAddrV4::new(HOST, 50_000));
    let _reflector = Reflector::start(outside, INTERNET, 3478)?;
    let seen = ask(&udp(guest, guest.address, 50_001)?, (INTERNET, 3478), b"who am I?")?;
    assert_eq!(seen, SocketAddrV4::new(HOST, 50_001));
    peers::cannot_connect(outside, guest.address, 22)?;
    let rate = peers::iperf3(guest, outside, OUTSIDE, 1, &[])?;
    ensure!(rate.bits_per_second > 1e8, "{rate:?}");
    let stream = Stream::start(guest, outside, (OUTSIDE, 5001), 5001)?;
    stream.advance(10)?;
    ensure!(stream.stop()? >= 10);
    Ok(())
}

#[test]
fn a_guest_on_a_tap_talks_with_partial_checksums_and_gso() -> Result<()> {
    let world = Topology::new().guests(1).build()?;
    let virtual_machine = Namespace::new("vm")?;
    let nic = GuestNic::plug(&world.host, "tap0", &virtual_machine, 12)?;
    alternative::linux_bridge(&world)?;
    world.host.ip("link set tap0 master br0")?;
    virtual_machine.ip("addr add 10.77.0.50/24 dev eth0")?;
    let guest = world.guest(1);
    Talk::new(&virtual_machine, guest, guest.address, 5000).upload(BULK)?;
    Talk::new(&virtual_machine, guest, guest.address, 5000).download(BULK)?;
    let (to_guest, from_guest) = nic.unplug()?;
    for carried in [to_guest, from_guest] {
        ensure!(carried.faults.is_empty(), "{carried:#?}");
        ensure!(carried.gso > 100 && carried.partial >= carried.gso, "{carried:?}");
    }
    Ok(())
}

#[test]
fn a_snapshot_sees_every_kind_of_change() -> Result<()> {
    let world = Topology::new().guests(1).quiet().build()?;
    let (host, before) = (&world.host, Snapshot::take(&world.host)?);
    assert_eq!(before.differences(&Snapshot::take(host)?), Vec::<String>::new());
    type Change = (&'static str, &'static [&'static str], &'static [&'static str]);
    let changes: [Change; 6] = [
        (
            "address",
            &["ip", "addr", "add", "10.9.9.9/24", "dev", "g1"],
            &["ip", "addr", "del", "10.9.9.9/24", "dev", "g1"],
        ),
        ("link", &["ip", "link", "add", "x1", "type", "bridge"], &["ip", "link", "del", "x1"]),
        ("promiscuous", &["ip", "link", "set", "g1", "promisc", "on"], &["ip", "link", "set", "g1", "promisc", "off"]),
        (
            "sysctl",
            &["sysctl", "-w", "net.ipv4.ip_local_reserved_ports=50000"],
            &["sysctl", "-w", "net.ipv4.ip_local_reserved_ports="],
        ),
        ("offload", &["ethtool", "-K", "g1", "gro", "on"], &["ethtool", "-K", "g1", "gro", "off"]),
        ("qdisc", &["tc", "qdisc", "add", "dev", "g1", "clsact"], &["tc", "qdisc", "del", "dev", "g1", "clsact"]),
    ];
    for (name, change, undo) in changes {
        host.run(change)?;
        ensure!(!before.differences(&Snapshot::take(host)?).is_empty(), "{name}: not seen");
        host.run(undo)?;
        assert_eq!(before.differences(&Snapshot::take(host)?), Vec::<String>::new(), "{name}");
    }
    Ok(())
}
