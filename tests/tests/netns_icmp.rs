//! What peers learn from the ICMP errors that vnet sends: the way, its MTU, and that there is none.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::Ipv4Ttl},
};
use vnet_tests::{
    capture::Capture,
    checksum,
    frame::{ETHERNET, ICMP, be16, summary},
    namespace::Namespace,
    peers,
    process::Output,
    scenario::{NETWORK, Scenario},
    socket::{Packet, SILENCE, connect_from},
    topology::{GATEWAY, HOST, OUTSIDE, UPLINK},
    transfer::{BULK, Talk, accept, listen, receive, send},
    wait,
};

/// Bytes of Ethernet, IPv4 and ICMP headers.
const QUOTED_AT: usize = ETHERNET + 28;

fn ping(from: &Namespace, arguments: &str, to: Ipv4Addr) -> Result<Output> {
    let to = to.to_string();
    let words: Vec<_> =
        ["ping", "-n", "-W", "1"].into_iter().chain(arguments.split_whitespace()).chain([&*to]).collect();
    from.output(&words, Duration::from_secs(20))
}

/// The error that a TCP connection fails with whose packets have this time to live.
fn connect_error(from: &Namespace, to: SocketAddrV4, ttl: i32) -> Result<Errno> {
    from.enter(|| {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd.as_fd(), Ipv4Ttl, &ttl)?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::from(to)) {
            Ok(()) => anyhow::bail!("connected to {to}"),
            Err(error) => Ok(error),
        }
    })
}

/// Judges an ICMP error's checksums, after the quoted one has been completed if that is still to be done.
fn judge(packet: &Packet) -> Result<()> {
    let mut frame = packet.bytes.clone();
    if packet.partial {
        let protocol = frame[QUOTED_AT + 9];
        let segment = QUOTED_AT + usize::from(frame[QUOTED_AT] & 0x0f) * 4;
        let field = segment + if protocol == 6 { 16 } else { 6 };
        let whole = checksum::checksum(&[&frame[segment..]]);
        frame[field..field + 2].copy_from_slice(&whole.to_be_bytes());
    }
    let found = checksum::judge(&frame).map_err(anyhow::Error::msg)?;
    ensure!(found == checksum::L4::Full, "{found:?} of {:02x?}", packet.bytes);
    Ok(())
}

/// True for an ICMP error of this type and code.
fn is_error(packet: &Packet, kind: [u8; 2]) -> bool {
    let is_icmp = summary(&packet.bytes).and_then(|frame| frame.ipv4).is_some_and(|ip| ip.protocol == ICMP);
    is_icmp && packet.bytes.get(34..36) == Some(&kind)
}

#[test]
fn traceroute_shows_the_gateway_as_the_first_hop() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (guest, outside) = (scenario.world.guest(1), scenario.world.outside());
    let wire = Capture::open(guest, "eth0")?;
    let first = ping(guest, "-c 1 -t 1", OUTSIDE)?;
    ensure!(first.stdout.contains(&format!("From {GATEWAY} icmp_seq=1 Time to live exceeded")), "{first}");
    let second = ping(guest, "-c 1 -t 2", OUTSIDE)?;
    ensure!(second.stdout.contains(" 1 received"), "{second}");
    judge(&wire.wait_for("the error about an echo", |packet| is_error(packet, [11, 0]))?)?;
    // TCP's packets leave a guest without a whole checksum.
    let _listener = listen(outside, 5000)?;
    let error = connect_error(guest, SocketAddrV4::new(OUTSIDE, 5000), 1)?;
    assert_eq!(error, Errno::EHOSTUNREACH);
    judge(&wire.wait_for("the error about a SYN", |packet| is_error(packet, [11, 0]))?)?;
    // From the outside it is the host that the way ends at.
    scenario.vnet.line(&format!("forward add {NETWORK} tcp 8080 {}:80", guest.address))?;
    let back = Capture::open(outside, "eth0")?;
    let error = connect_error(outside, SocketAddrV4::new(HOST, 8080), 1)?;
    assert_eq!(error, Errno::EHOSTUNREACH);
    let told = back.wait_for("the error on the wire", |packet| is_error(packet, [11, 0]))?;
    assert_eq!(summary(&told.bytes).and_then(|frame| frame.ipv4).map(|ip| ip.src), Some(HOST));
    judge(&told)
}

#[test]
fn a_guest_is_told_at_once_that_there_is_no_way() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    host.ip("route add unreachable 192.0.2.0/24\n")?;
    let error = connect_error(guest, SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80), 64)?;
    assert_eq!(error, Errno::ENETUNREACH);
    Ok(())
}

#[test]
fn path_mtu_discovery_finds_the_uplinks_mtu_through_the_nat() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    host.ip(&format!("link set {UPLINK} mtu 1400\n"))?;
    let told = format!("From {GATEWAY} icmp_seq=1 Frag needed and DF set (mtu = 1400)");
    wait::until_true("the uplink's new MTU counts", wait::SOON, || {
        Ok(ping(guest, "-c 1 -M do -s 1373", OUTSIDE)?.stdout.contains(&told))
    })?;
    let route = guest.run(&["ip", "route", "get", &OUTSIDE.to_string()])?;
    ensure!(route.contains("mtu 1400"), "{route}");
    let fits = ping(guest, "-c 1 -M do -s 1372", OUTSIDE)?;
    ensure!(fits.stdout.contains(" 1 received"), "{fits}");
    ensure!(scenario.vnet.drops("g1", "over-mtu")? > 0, "the drop is counted");
    Ok(())
}

/// The maximum segment size that a SYN on the wire asks for.
fn segment_size(packet: &Packet) -> Option<u16> {
    let ip = summary(&packet.bytes).and_then(|frame| frame.ipv4)?;
    let is_syn = ip.protocol == 6 && packet.bytes.get(ip.l4 + 13)? & 0x02 != 0;
    // Linux has it first.
    if is_syn && be16(&packet.bytes, ip.l4 + 20)? == 0x0204 { be16(&packet.bytes, ip.l4 + 22) } else { None }
}

#[test]
fn both_ends_are_asked_for_segments_that_fit_and_bulk_flows_without_one_drop() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
    host.ip(&format!("link set {UPLINK} mtu 1300\n"))?;
    let wires = [(Capture::open(outside, "eth0")?, "server"), (Capture::open(guest, "eth0")?, "client")];
    wait::until_true("segments are clamped", wait::SOON, || {
        Talk::new(guest, outside, OUTSIDE, 5001).greet()?;
        Ok(wires[0].0.drain()?.iter().filter_map(segment_size).next_back() == Some(1260))
    })?;
    wires[1].0.drain()?;
    let before = scenario.vnet.drops("g1", "over-mtu")?;
    Talk::new(guest, outside, OUTSIDE, 5000).upload(BULK / 8)?;
    Talk::new(guest, outside, OUTSIDE, 5000).download(BULK / 8)?;
    for (wire, end) in wires {
        let sizes: Vec<_> = wire.drain()?.iter().filter_map(segment_size).collect();
        assert_eq!(sizes, [1260, 1260], "what the {end} is asked for");
    }
    assert_eq!(scenario.vnet.drops("g1", "over-mtu")?, before);
    Ok(())
}

#[test]
fn a_connection_survives_an_mtu_that_shrinks_on_its_way() -> Result<()> {
    for (device, is_upload) in [(UPLINK, true), ("g1", false)] {
        let scenario = Scenario::nat(1)?;
        let (host, guest, outside) = (&scenario.world.host, scenario.world.guest(1), scenario.world.outside());
        let listener = listen(outside, 5000)?;
        let client = connect_from(guest, 0, SocketAddrV4::new(OUTSIDE, 5000), SILENCE)?;
        let (server, _) = accept(&listener, wait::SOON)?;
        let (mut from, mut to) = if is_upload { (client, server) } else { (server, client) };
        let mut pass = |total: usize| {
            thread::scope(|scope| {
                let sending = scope.spawn(|| send(&mut from, total));
                receive(&mut to, total).with_context(|| format!("by a smaller {device}"))?;
                sending.join().expect("the sender")
            })
        };
        pass(BULK / 16)?;
        host.ip(&format!("link set {device} mtu 1280\n"))?;
        // The switch follows the kernel's notice; from then on what is too long is refused.
        let sender: &Namespace = if is_upload { guest } else { outside };
        let knows = if is_upload { OUTSIDE } else { HOST }.to_string();
        wait::until_true("the sender has learned of the MTU", wait::SOON, || {
            pass(BULK / 64)?;
            Ok(sender.run(&["ip", "route", "get", &knows])?.contains("mtu 1280"))
        })?;
        pass(BULK / 16)?;
    }
    Ok(())
}

#[test]
fn a_datagram_that_may_be_fragmented_is_refused_all_the_same_and_then_fragmented_by_its_sender() -> Result<()> {
    let scenario = Scenario::nat(1)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    peers::reaches(guest, OUTSIDE)?;
    host.ip(&format!("link set {UPLINK} mtu 1400\n"))?;
    wait::until_true("the guest has learned of the MTU", wait::SOON, || {
        ping(guest, "-c 1 -M dont -s 1450", OUTSIDE)?;
        Ok(guest.run(&["ip", "route", "get", &OUTSIDE.to_string()])?.contains("mtu 1400"))
    })
}
