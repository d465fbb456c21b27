//! The making of connections: decide, then write both directions or neither.
//!
//! The reply direction goes in first. Its insert is the claim on the outside tuple; the loser of a race
//! takes its claim on the binding back and sends its packet by the same translation.

use vnet_common::{
    DropReason, Mac, Seconds,
    config::{NetworkId, OUTSIDE},
    conntrack::{self, Update, protocol, tcp_flag},
    flow::{Direction, FlowEntry, FlowKey, ORIGIN_FORWARD, ORIGIN_SNAT},
    forward::ForwardEntry,
    stats::EventCount,
    vport::{UNTAGGED, VportId},
};

use super::{
    Translation,
    binding::{self, BindingRequest},
};
use crate::{
    context::{Frame, Side},
    datapath::{
        Home, Work, conntrack as tracking,
        forward::{self, Link, NextHop},
        parse::{Packet, Ports},
    },
    tables::{InsertError, Table, Tables},
};

/// What both directions of a new connection have in common.
#[derive(Clone, Copy)]
struct Birth {
    network: NetworkId,
    origin: u8,
    guest_vport: VportId,
    now: Seconds,
    seen: u32,
    generation: u32,
}

/// A guest's packet, in `Work`, that may open a connection to the outside.
pub struct Outbound<'a> {
    pub home: &'a Home<'a>,
    pub from_vport: VportId,
    pub guest_mac: Mac,
}

/// A guest opens a connection to the outside, by `work.next_hop`; the translation is left in `work`.
#[inline(always)]
pub fn create_outbound<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    opening: &Outbound<'_>,
) -> Result<(), DropReason> {
    let Outbound { home, from_vport, guest_mac } = opening;
    let Some(ports) = work.packet.ports else { return Err(untranslatable(&work.packet)) };
    if !opens(work.packet.protocol, &ports) {
        return Err(DropReason::NoConnection);
    }
    let uplink = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    if uplink.external.is_unspecified() {
        return Err(DropReason::NoExternalAddress);
    }
    // Before anything is written: a packet that cannot leave opens nothing.
    forward::check_packet_mtu(frame, &work.packet, &uplink)?;
    let birth = Birth {
        network: home.id,
        origin: ORIGIN_SNAT,
        guest_vport: *from_vport,
        now: frame.now(),
        seen: first_seen(work.packet.protocol, &ports),
        generation: home.network.generation.load(),
    };
    work.binding = BindingRequest {
        internal: binding::key(work.packet.src, ports.src, home.id, work.packet.protocol),
        external: uplink.external,
        first: home.network.nat.first_port,
        last: home.network.nat.last_port,
        now: birth.now,
        random: frame.random(),
    };
    let src_port = binding::acquire(tables, &work.binding)?;
    work.translation = Translation { src: uplink.external, dst: work.packet.dst, src_port, dst_port: ports.dst };
    work.original = forward::flow_key(&work.packet, &ports, home.id);
    let back = NextHop {
        to_vport: *from_vport,
        ifindex: 0,
        side: Side::Egress,
        link: Link::Resolved { dst: *guest_mac, src: home.network.gateway_mac },
    };
    let inserted = insert_pair(tables, work, &birth, Some(&back));
    if inserted != Ok(()) {
        binding::release(tables, &work.binding.internal, birth.now);
    }
    match inserted {
        Ok(()) => tables.count_event(EventCount::ConnectionsCreated),
        Err(InsertError::Exists) => tables.count_event(EventCount::ConnectionRaces),
        Err(InsertError::Full) => return Err(DropReason::TableFull),
    }
    Ok(())
}

/// A packet from the outside, in `Work`, for a forward.
pub struct Inbound {
    pub from_vport: VportId,
    pub target: ForwardEntry,
}

/// The outside opens a connection through a forward; way and translation are left in `work`. False: not
/// for a guest after all.
#[inline(always)]
pub fn create_inbound<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    opening: &Inbound,
) -> Result<bool, DropReason> {
    let Inbound { from_vport, target } = opening;
    let Some(ports) = work.packet.ports else { return Ok(false) };
    let Some(network) = tables.network(target.network) else { return Ok(false) };
    // A segment of no connection: the host answers it with a RST, which ends it at the peer.
    if !network.has_uplink(*from_vport) || !opens(work.packet.protocol, &ports) {
        return Ok(false);
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let generation = network.generation.load();
    forward::to_guest(frame, tables, &Home { id: target.network, network: &network }, work, target.target.v4_raw())?;
    let vport = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    forward::check_packet_mtu(frame, &work.packet, &vport)?;
    let birth = Birth {
        network: target.network,
        origin: ORIGIN_FORWARD,
        guest_vport: work.next_hop.to_vport,
        now: frame.now(),
        seen: first_seen(work.packet.protocol, &ports),
        generation,
    };
    work.translation =
        Translation { src: work.packet.src, dst: target.target, src_port: ports.src, dst_port: target.port };
    work.original = forward::flow_key(&work.packet, &ports, OUTSIDE);
    match insert_pair(tables, work, &birth, None) {
        Ok(()) => tables.count_event(EventCount::ConnectionsCreated),
        Err(InsertError::Exists) => {
            // For this very connection, which another CPU is making? It has the same reply direction.
            if !tables
                .flows()
                .lookup(&work.reply)
                .is_some_and(|reply| reply.partner_key(work.packet.protocol) == work.original)
            {
                return Err(DropReason::TupleTaken);
            }
            tables.count_event(EventCount::ConnectionRaces);
        }
        Err(InsertError::Full) => return Err(DropReason::TableFull),
    }
    Ok(true)
}

/// Why a packet without ports cannot be translated.
#[inline(always)]
const fn untranslatable(packet: &Packet) -> DropReason {
    if packet.is_fragment { DropReason::FragmentNotTranslated } else { DropReason::UnsupportedProtocol }
}

/// True for a packet that may open a connection.
#[inline(always)]
fn opens(protocol: u8, ports: &Ports) -> bool {
    match protocol {
        protocol::TCP => ports.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN,
        protocol::ICMP => ports.tcp_flags & tcp_flag::ACK == 0,
        _ => true,
    }
}

#[inline(always)]
fn first_seen(protocol: u8, ports: &Ports) -> u32 {
    match conntrack::update(0, Direction::Original, protocol, ports.tcp_flags) {
        Update::None => 0,
        Update::Add(bits) | Update::Set(bits) => bits,
    }
}

/// Writes both directions of the connection that `work.original` and `work.translation` describe; on
/// failure neither stands. The original direction goes by `work.next_hop`.
#[inline(never)]
fn insert_pair<T: Tables>(
    tables: &T,
    work: &mut Work,
    birth: &Birth,
    reply_path: Option<&NextHop>,
) -> Result<(), InsertError> {
    let Work { packet, next_hop, translation, original, reply, entry, .. } = work;
    let is_outbound = birth.origin == ORIGIN_SNAT;
    *reply = FlowKey {
        src: translation.dst,
        dst: translation.src,
        src_port: translation.dst_port,
        dst_port: translation.src_port,
        network: if is_outbound { OUTSIDE } else { birth.network },
        vlan: UNTAGGED,
        protocol: packet.protocol,
        pad: 0,
        pad2: 0,
    };
    fill(entry, birth, Direction::Reply, reply_path);
    entry.src = original.dst;
    entry.dst = original.src;
    entry.src_port = original.dst_port;
    entry.dst_port = original.src_port;
    tables.flows().insert(reply, entry)?;
    fill(entry, birth, Direction::Original, Some(next_hop));
    entry.src = translation.src;
    entry.dst = translation.dst;
    entry.src_port = translation.src_port;
    entry.dst_port = translation.dst_port;
    let inserted = tables.flows().insert(original, entry);
    if inserted.is_err() {
        // Also where another connection has taken the original tuple meanwhile (a guest's and a forward's
        // may meet there): this half would never find its other half.
        tables.flows().remove(reply);
    }
    inserted
}

/// Fills all of an entry but its translation.
#[inline(always)]
fn fill(entry: &mut FlowEntry, birth: &Birth, direction: Direction, path: Option<&NextHop>) {
    entry.network = birth.network;
    entry.vlan = UNTAGGED;
    entry.direction = direction as u8;
    entry.origin = birth.origin;
    entry.pad = [0; 2];
    entry.guest_vport = birth.guest_vport;
    entry.created = birth.now;
    entry.last_seen.store(birth.now);
    entry.seen.store(birth.seen);
    entry.path.generation.store(0);
    if let Some(next_hop) = path {
        tracking::keep_path(entry, next_hop, birth.generation, birth.now);
    }
}
