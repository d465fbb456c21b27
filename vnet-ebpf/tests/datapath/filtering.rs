//! Filtering: who outside may send to a port that a guest holds (RFC 4787 section 5).

use std::net::{Ipv4Addr, SocketAddrV4};

use vnet_common::{DropReason, config::Filtering, flow::ORIGIN_BINDING, nat::BINDING_PEERS};
use vnet_ebpf::tables::Tables as _;

use crate::{
    frames::{ACK, L4, Packet, SYN},
    packets::{KEPT, answer, at, incoming, on_the_wire, outgoing, ping, server, to_guest},
    world::*,
};

const FILTERED: Fate = Fate::Dropped(DropReason::Filtered);

fn world(filtering: Filtering) -> World {
    let world = World::new();
    world.change_network(NAT, |network| network.nat.filtering = filtering as u8);
    world
}

fn inbound(l4: L4, from: SocketAddrV4) -> Packet {
    incoming(l4, from, at(EXTERNAL, KEPT))
}

fn reached(packet: &Packet) -> Fate {
    Fate::Sent(GUEST1, to_guest(packet.clone(), GUEST1, KEPT).bytes())
}

#[test]
fn each_option_admits_whom_it_says() {
    use Filtering::{Address, AddressAndPort, EndpointIndependent};
    let remotes = [("the same", server()), ("another port", at(SERVER, 4711)), ("another address", at(SERVER2, 80))];
    for (filtering, admitted) in [
        (EndpointIndependent, [true, true, true]),
        (Address, [true, true, false]),
        (AddressAndPort, [true, false, false]),
    ] {
        for l4 in [L4::Udp, L4::Tcp(SYN)] {
            for ((name, remote), is_admitted) in remotes.into_iter().zip(admitted) {
                let world = world(filtering);
                world.tc(GUEST1, outgoing(GUEST1, l4, KEPT, server()).bytes());
                let packet = inbound(l4, remote);
                let expected = if is_admitted { reached(&packet) } else { FILTERED };
                assert_eq!(world.tc(UPLINK, packet.bytes()), expected, "{filtering:?}, {l4:?}: {name}");
                if !is_admitted {
                    let last_hop = world.tc(UPLINK, packet.ttl(1).bytes());
                    assert_eq!(last_hop, FILTERED, "{filtering:?}, {l4:?}: {name}, and nothing is answered");
                }
                assert_eq!(world.check(), Ok(()));
                let connections = world.tables.connections().len();
                assert_eq!(connections, 1 + usize::from(is_admitted && remote != server()), "{filtering:?}, {name}");
            }
        }
    }
}

#[test]
fn a_port_that_nobody_holds_is_the_hosts_whatever_the_filter() {
    for filtering in [Filtering::EndpointIndependent, Filtering::Address, Filtering::AddressAndPort] {
        let world = world(filtering);
        assert_eq!(world.tc(UPLINK, inbound(L4::Udp, server()).bytes()), Fate::ToHost);
        world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, server()).bytes());
        assert_eq!(world.tc(UPLINK, inbound(L4::Tcp(SYN), server()).bytes()), Fate::ToHost, "another protocol");
        let elsewhere = incoming(L4::Udp, server(), at(SECOND_ADDRESS, KEPT));
        assert_eq!(world.tc(UPLINK, elsewhere.bytes()), Fate::ToHost, "another address");
    }
}

#[test]
fn what_was_admitted_is_a_connection_both_ways() {
    let world = world(Filtering::Address);
    world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, server()).bytes());
    let other = at(SERVER, 4711);
    let packet = inbound(L4::Udp, other);
    assert_eq!(world.tc(UPLINK, packet.bytes()), reached(&packet));
    let reply = answer(&to_guest(packet.clone(), GUEST1, KEPT));
    let sent = on_the_wire(reply.clone(), KEPT);
    assert_eq!(world.tc(GUEST1, reply.bytes()), Fate::Sent(UPLINK, sent.bytes()));
    assert_eq!(world.xdp(UPLINK, packet.bytes()), reached(&packet), "established");
    let (_, connection) =
        world.tables.connections().entries().into_iter().find(|(_, entry)| entry.origin == ORIGIN_BINDING).unwrap();
    assert_eq!(u32::from(connection.guest_vport), GUEST1, "it counts for the guest");
    let (_, binding) = world.tables.bindings().entries().remove(0);
    assert_eq!(binding.connections.load(), 2);
    // Each gives its use of the binding back.
    world.flush_connections();
    assert_eq!((binding.connections.load(), world.check()), (0, Ok(())));
}

#[test]
fn all_remotes_that_a_guest_has_sent_to_are_remembered() {
    let world = world(Filtering::Address);
    let remote = |number: u8| Ipv4Addr::new(192, 0, 2, 100 + number);
    let many = 3 * BINDING_PEERS as u8;
    for number in 0..many {
        world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, at(remote(number), 80)).bytes());
        // Once more, to another port: it is no other remote.
        world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, at(remote(number), 81)).bytes());
    }
    assert_eq!(world.tables.peers().len(), usize::from(many) - BINDING_PEERS);
    for number in 0..many {
        let packet = inbound(L4::Udp, at(remote(number), 4711));
        assert_eq!(world.tc(UPLINK, packet.bytes()), reached(&packet), "remote {number}");
    }
    assert_eq!(world.tc(UPLINK, inbound(L4::Udp, at(remote(many), 80)).bytes()), FILTERED);
    // Where there is no room for another, it has to wait for answers like everybody.
    world.tables.peers().set_capacity(world.tables.peers().len());
    let late = outgoing(GUEST1, L4::Udp, KEPT, at(remote(many), 80));
    assert!(matches!(world.tc(GUEST1, late.bytes()), Fate::Sent(..)));
    assert_eq!(world.tc(UPLINK, inbound(L4::Udp, at(remote(many), 4711)).bytes()), FILTERED);
    let reply = inbound(L4::Udp, at(remote(many), 80));
    assert_eq!(world.tc(UPLINK, reply.bytes()), reached(&reply));
}

#[test]
fn what_an_ended_binding_remembered_means_nothing_to_the_next() {
    let world = world(Filtering::Address);
    let remote = |number: u8| Ipv4Addr::new(192, 0, 2, 100 + number);
    for number in 0..8 {
        world.tc(GUEST1, outgoing(GUEST1, L4::Udp, KEPT, at(remote(number), 80)).bytes());
    }
    world.flush_connections();
    world.wait(vnet_common::config::Timeouts::RFC.cool_down);
    assert_eq!(world.sweep_bindings(), 1);
    world.wait(2);
    // The next owner of the port, in the same record.
    world.tc(GUEST2, outgoing(GUEST2, L4::Udp, KEPT, server()).bytes());
    assert_eq!(world.tables.bindings().entries()[0].0, 1);
    for number in 0..8 {
        assert_eq!(world.tc(UPLINK, inbound(L4::Udp, at(remote(number), 80)).bytes()), FILTERED, "remote {number}");
    }
}

#[test]
fn a_segment_in_the_middle_and_a_query_open_nothing() {
    let world = world(Filtering::EndpointIndependent);
    world.tc(GUEST1, outgoing(GUEST1, L4::Tcp(SYN), KEPT, server()).bytes());
    for flags in [ACK, SYN | ACK] {
        assert_eq!(world.tc(UPLINK, inbound(L4::Tcp(flags), at(SERVER2, 1)).bytes()), Fate::ToHost, "{flags:02x}");
    }
    world.tc(GUEST1, ping(GUEST1, KEPT).bytes());
    let query = incoming(L4::EchoRequest, at(SERVER2, KEPT), at(EXTERNAL, 0));
    assert_eq!(world.tc(UPLINK, query.bytes()), Fate::ToHost, "a query to our address is the host's");
    let last_hop = inbound(L4::Tcp(SYN), at(SERVER2, 1)).ttl(1);
    assert_eq!(world.tc(UPLINK, last_hop.bytes()), Fate::Dropped(DropReason::TtlExceeded));
    assert_eq!((world.tables.connections().len(), world.check()), (2, Ok(())));
}
