//! Forwards from the host itself: what its own processes reach by its own addresses.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use vnet_tests::{
    cgroup::Cgroup,
    json,
    namespace::Namespace,
    peers,
    reflector::{Reflector, ask, udp},
    scenario::{NETWORK, Scenario},
    socket::{SILENCE, connect_from},
    topology::{GATEWAY, HOST, OUTSIDE, SUBNET, Topology, UPLINK},
    transfer::{BULK, Talk, listen},
    wait,
};

fn scenario() -> Result<Scenario> {
    let topology = Topology::new().guests(1).uplink().processes();
    Scenario::with(topology, &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"))
}

fn forward(scenario: &Scenario, words: &str) -> Result<()> {
    scenario.vnet.line(&format!("forward add {NETWORK} {words}")).map(drop)
}

/// A process of the host connects and is answered by the guest; gives the address that the guest sees.
fn greet(scenario: &Scenario, to: Ipv4Addr, port: u16, listen: u16) -> Result<SocketAddrV4> {
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    scenario.world.as_process(|| Talk::new(host, guest, to, port).listen(listen).greet())
}

/// A process of the host is refused, at once.
fn is_refused(scenario: &Scenario, to: Ipv4Addr, port: u16) -> Result<()> {
    let connected = scenario.world.as_process(|| {
        scenario.world.host.enter(|| Ok(TcpStream::connect((to, port)).map_err(|error| error.kind()).err()))
    })?;
    ensure!(connected == Some(ErrorKind::ConnectionRefused), "{to}:{port}: {connected:?}");
    Ok(())
}

/// Pinned links that are not a device's.
fn socket_links(scenario: &Scenario) -> Result<usize> {
    let links = scenario.world.directory.path().join("bpf");
    let found = scenario.world.host.run(&["find", links.to_str().context("UTF-8")?, "-name", "host_*"])?;
    Ok(found.lines().count())
}

#[test]
fn the_hosts_processes_reach_a_guest_by_the_hosts_own_addresses() -> Result<()> {
    let scenario = scenario()?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    for address in [HOST, GATEWAY] {
        is_refused(&scenario, address, 8080)?;
    }
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    for address in [HOST, GATEWAY] {
        assert_eq!(*greet(&scenario, address, 8080, 80)?.ip(), GATEWAY);
        scenario.world.as_process(|| Talk::new(host, guest, address, 8080).listen(80).upload(BULK))?;
        scenario.world.as_process(|| Talk::new(host, guest, address, 8080).listen(80).download(BULK))?;
        is_refused(&scenario, address, 8081)?;
    }
    // From a port of its own, and from an address of its own.
    let own = scenario.world.as_process(|| Talk::new(host, guest, HOST, 8080).listen(80).from_port(40_123).greet())?;
    assert_eq!(own, SocketAddrV4::new(GATEWAY, 40_123));
    // Addresses that are not the host's are left alone, and so are the guest and the outside.
    assert_eq!(*greet(&scenario, guest.address, 80, 80)?.ip(), GATEWAY);
    let outside = scenario.world.outside();
    let to_outside = scenario.world.as_process(|| Talk::new(host, outside, OUTSIDE, 8080).greet())?;
    assert_eq!(*to_outside.ip(), HOST);
    assert_eq!(*Talk::new(outside, guest, HOST, 8080).listen(80).greet()?.ip(), OUTSIDE);
    Ok(())
}

#[test]
fn a_process_is_shown_the_peer_that_it_asked_for() -> Result<()> {
    let scenario = scenario()?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    let listener = listen(guest, 80)?;
    let peer = |to: SocketAddrV4| -> Result<SocketAddr> {
        scenario.world.as_process(|| Ok(connect_from(host, 0, to, SILENCE)?.peer_addr()?))
    };
    for to in [SocketAddrV4::new(HOST, 8080), SocketAddrV4::new(GATEWAY, 8080), SocketAddrV4::new(guest.address, 80)] {
        assert_eq!(peer(to)?, SocketAddr::V4(to));
    }
    drop(listener);
    Ok(())
}

#[test]
fn udp_is_answered_by_the_address_that_was_asked() -> Result<()> {
    let scenario = scenario()?;
    let (world, guest) = (&scenario.world, scenario.world.guest(1));
    forward(&scenario, "udp 5353 10.77.0.11:53")?;
    forward(&scenario, "udp 5400-5403 10.77.0.11:5400-5403")?;
    let _reflector = Reflector::start(guest, guest.address, 53)?;
    let _others = (5400..5404).map(|port| Reflector::start(guest, guest.address, port)).collect::<Result<Vec<_>>>()?;
    // Not connected, several forwards by turns over one socket.
    let socket = world.as_process(|| udp(&world.host, Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..2 {
        for to in [(HOST, 5353), (GATEWAY, 5400), (HOST, 5401), (GATEWAY, 5402), (HOST, 5403), (GATEWAY, 5353)] {
            assert_eq!(*ask(&socket, to, b"question")?.ip(), GATEWAY);
        }
    }
    // The guest asked by its own address answers by it, over the same socket too.
    ask(&socket, (guest.address, 53), b"direct")?;
    // Connected.
    let to = SocketAddr::from((HOST, 5353));
    let socket = world.as_process(|| udp(&world.host, Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    assert_eq!(socket.peer_addr()?, to);
    let answered_by = |socket: &UdpSocket| -> Result<SocketAddr> {
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send(b"question")?;
        Ok(socket.recv_from(&mut [0; 100])?.1)
    };
    assert_eq!(answered_by(&socket)?, to);
    // From an address of its own.
    let bound = world.as_process(|| udp(&world.host, HOST, 0))?;
    assert_eq!(*ask(&bound, (GATEWAY, 5353), b"question")?.ip(), HOST);
    // Connected anew, to the guest itself.
    socket.connect((guest.address, 53))?;
    assert_eq!(socket.peer_addr()?, SocketAddr::from((guest.address, 53)));
    assert_eq!(answered_by(&socket)?, SocketAddr::from((guest.address, 53)));
    Ok(())
}

#[test]
fn a_web_page_is_fetched_from_the_host_itself() -> Result<()> {
    let scenario = scenario()?;
    let pages = tempfile::tempdir()?;
    std::fs::write(pages.path().join("index.html"), "hello from the guest\n")?;
    let _server = peers::web_server(scenario.world.guest(1), 80, pages.path())?;
    forward(&scenario, "tcp 8080 10.77.0.11:80 --loopback")?;
    for place in ["198.51.100.2", "10.77.0.1", "localhost"] {
        let url = format!("http://{place}:8080/");
        let page = scenario.world.as_process(|| peers::curl(&scenario.world.host, &url))?;
        assert_eq!(page, "hello from the guest\n", "{url}");
    }
    // A connection that begins with its first data (RFC 7413) is made by another call.
    let words = ["curl", "--tcp-fastopen", "--silent", "--fail", "--max-time", "10", "http://198.51.100.2:8080/"];
    assert_eq!(scenario.world.as_process(|| scenario.world.host.run(&words))?, "hello from the guest\n");
    Ok(())
}

#[test]
fn a_routed_network_is_reached_from_the_host_too() -> Result<()> {
    let topology = Topology::new().guests(1).uplink().processes();
    let scenario = Scenario::with(topology, &format!("--mode routed --subnet {SUBNET} --uplink {UPLINK}"))?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    for address in [HOST, GATEWAY] {
        assert_eq!(*greet(&scenario, address, 8080, 80)?.ip(), GATEWAY);
    }
    Ok(())
}

#[test]
fn ipv6_sockets_reach_the_guest_by_mapped_addresses() -> Result<()> {
    let scenario = scenario()?;
    let (world, guest) = (&scenario.world, scenario.world.guest(1));
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "udp 5353 10.77.0.11:53")?;
    let _listener = listen(guest, 80)?;
    let _reflector = Reflector::start(guest, guest.address, 53)?;
    let mapped = |port: u16| SocketAddr::from((HOST.to_ipv6_mapped(), port));
    let as_process = |work: &(dyn Fn() -> Result<()> + Sync)| world.as_process(|| world.host.enter(work));
    as_process(&|| {
        let stream = TcpStream::connect(mapped(8080))?;
        assert_eq!(stream.peer_addr()?, mapped(8080));
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send_to(b"question", mapped(5353))?;
        assert_eq!(socket.recv_from(&mut [0; 100])?.1, mapped(5353));
        socket.connect(mapped(5353))?;
        assert_eq!(socket.peer_addr()?, mapped(5353));
        socket.send(b"question")?;
        assert_eq!(socket.recv_from(&mut [0; 100])?.1, mapped(5353));
        Ok(())
    })
}

#[test]
fn loopback_leads_to_the_guest_only_when_asked() -> Result<()> {
    let scenario = scenario()?;
    let (world, guest) = (&scenario.world, scenario.world.guest(1));
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "tcp 8081 10.77.0.11:81 --loopback")?;
    forward(&scenario, "udp 5353 10.77.0.11:53 --loopback")?;
    is_refused(&scenario, Ipv4Addr::LOCALHOST, 8080)?;
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3), Ipv4Addr::UNSPECIFIED, HOST] {
        assert_eq!(*greet(&scenario, address, 8081, 81)?.ip(), GATEWAY, "{address}");
    }
    let _reflector = Reflector::start(guest, guest.address, 53)?;
    let socket = world.as_process(|| udp(&world.host, Ipv4Addr::UNSPECIFIED, 0))?;
    ask(&socket, (Ipv4Addr::LOCALHOST, 5353), b"question")?;
    // What is bound to a loopback address cannot leave the host: it is left alone.
    let bound = world.as_process(|| udp(&world.host, Ipv4Addr::LOCALHOST, 0))?;
    bound.send_to(b"question", (Ipv4Addr::LOCALHOST, 5353))?;
    // The host's own services on loopback are untouched.
    let seen = world.as_process(|| Talk::new(&world.host, &world.host, Ipv4Addr::LOCALHOST, 8080).greet())?;
    assert_eq!(*seen.ip(), Ipv4Addr::LOCALHOST);

    let list = scenario.vnet.json(&format!("forward list {NETWORK}"))?;
    let shown = |listen| -> Result<bool> { Ok(json::find(&list, "listen", listen)?["loopback"] == true) };
    assert_eq!((shown("8080")?, shown("8081")?), (false, true));
    let _listener = world.host.enter(|| Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 9000))?))?;
    let refused = scenario.vnet.vnet(&["forward", "add", NETWORK, "tcp", "9000", "10.77.0.11:90", "--loopback"])?;
    assert_eq!(refused.status, 1, "{refused}");
    ensure!(refused.stderr.contains("tcp port 9000 is taken by a socket of this host on 127.0.0.1"), "{refused}");
    forward(&scenario, "tcp 9000 10.77.0.11:90")
}

#[test]
fn other_network_namespaces_and_other_processes_are_left_alone() -> Result<()> {
    let scenario = scenario()?;
    let (world, guest) = (&scenario.world, scenario.world.guest(1));
    forward(&scenario, "tcp 8080 10.77.0.11:80 --loopback")?;
    forward(&scenario, "udp 5353 10.77.0.11:53 --loopback")?;
    greet(&scenario, HOST, 8080, 80)?;
    // A namespace with the very address of the host, in the same cgroup: its own service answers.
    let other = Namespace::new("other")?;
    other.ip(&format!("addr add {HOST}/32 dev lo\n"))?;
    for address in [HOST, Ipv4Addr::LOCALHOST] {
        let seen = world.as_process(|| Talk::new(&other, &other, address, 8080).greet())?;
        assert_eq!(*seen.ip(), address);
        let _reflector = Reflector::start(&other, address, 5353)?;
        let socket = world.as_process(|| udp(&other, Ipv4Addr::UNSPECIFIED, 0))?;
        assert_eq!(*ask(&socket, (address, 5353), b"question")?.ip(), address);
    }
    // The guest's and the outside's processes go their own ways.
    let seen = world.as_process(|| Talk::new(world.outside(), guest, HOST, 8080).listen(80).greet())?;
    assert_eq!(*seen.ip(), OUTSIDE);
    // And a process of the host's namespace that is not of the cgroup.
    peers::cannot_connect(&world.host, HOST, 8080)
}

#[test]
fn a_deleted_forward_is_refused_as_before_and_nothing_stays_behind() -> Result<()> {
    let scenario = scenario()?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "tcp 8081 10.77.0.11:81")?;
    greet(&scenario, HOST, 8080, 80)?;
    scenario.vnet.line(&format!("forward del {NETWORK} tcp 8080"))?;
    is_refused(&scenario, HOST, 8080)?;
    greet(&scenario, HOST, 8081, 81)?;
    ensure!(socket_links(&scenario)? > 0, "nothing is attached");
    scenario.vnet.line(&format!("network del {NETWORK}"))?;
    is_refused(&scenario, HOST, 8081)?;
    assert_eq!(socket_links(&scenario)?, 0);
    Ok(())
}

#[test]
fn the_hosts_processes_do_not_notice_that_the_daemon_dies_and_comes_again() -> Result<()> {
    let mut scenario = scenario()?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    forward(&scenario, "udp 5353 10.77.0.11:53")?;
    let guest = scenario.world.guest(1).inside.clone();
    let _reflector = Reflector::start(&guest, scenario.world.guest(1).address, 53)?;
    let to = SocketAddr::from((HOST, 5353));
    let host = scenario.world.host.clone();
    let socket = scenario.world.as_process(|| udp(&host, Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(to)?;
    let talks = |scenario: &Scenario| -> Result<()> {
        greet(scenario, HOST, 8080, 80)?;
        assert_eq!(socket.peer_addr()?, to);
        socket.send(b"question")?;
        assert_eq!(socket.recv_from(&mut [0; 100])?.1, to);
        Ok(())
    };
    talks(&scenario)?;
    scenario.vnet.kill9()?;
    talks(&scenario)?;
    scenario.vnet.start_again()?;
    talks(&scenario)?;
    scenario.vnet.terminate()?;
    talks(&scenario)?;
    scenario.vnet.start_again()?;
    scenario.vnet.line(&format!("network del {NETWORK}"))?;
    wait::until_true("the host is left alone", wait::SOON, || Ok(is_refused(&scenario, HOST, 8080).is_ok()))
}

#[test]
fn a_daemon_told_of_another_cgroup_moves_there_or_leaves_all_processes_alone() -> Result<()> {
    let mut scenario = scenario()?;
    forward(&scenario, "tcp 8080 10.77.0.11:80")?;
    greet(&scenario, HOST, 8080, 80)?;
    let first = scenario.world.cgroup().context("a cgroup")?.to_owned();
    let second = Cgroup::new()?;
    scenario.vnet.kill9()?;
    scenario.vnet.set_cgroup(second.path());
    scenario.vnet.start_again()?;
    is_refused(&scenario, HOST, 8080)?;
    let (host, guest) = (&scenario.world.host, scenario.world.guest(1));
    second.enter(|| Talk::new(host, guest, HOST, 8080).listen(80).greet())?;
    // A link dies with its cgroup.
    drop(second);
    scenario.vnet.kill9()?;
    scenario.vnet.set_cgroup(&first);
    scenario.vnet.start_again()?;
    greet(&scenario, HOST, 8080, 80)?;
    scenario.vnet.terminate()?;
    scenario.vnet.set_cgroup(Path::new("none"));
    scenario.vnet.start_again()?;
    is_refused(&scenario, HOST, 8080)?;
    assert_eq!(socket_links(&scenario)?, 0);
    Ok(())
}
