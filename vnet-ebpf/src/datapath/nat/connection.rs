//! The making of connections: a guest's to the outside, and to a target from the outside or from another
//! guest (hairpin). What they use is taken first, and given back if anything fails.

use vnet_common::{
    DropReason, Mac,
    config::{NatPolicy, NetworkId, NetworkMode, OUTSIDE},
    conntrack::{self, Update, protocol, tcp_flag},
    event::EventKind,
    flow::{Connection, Direction, Endpoints, ORIGIN_BINDING, ORIGIN_GUEST},
    nat::BindingKey,
    stats::EventCount,
    vport::VportId,
};

use super::{
    binding, quota,
    source::{external_address, hairpin_source, translate_source},
};
use crate::{
    context::{Frame, Side},
    datapath::{
        Home, Work, forward,
        parse::{Packet, Ports},
        path::{self, Decided},
        report,
        way::{self, Link, NextHop},
    },
    tables::{
        Tables,
        pairs::{self, Inserted, Pairs as _},
    },
};

/// The chunk that opens an association (RFC 9260 section 3.3.2).
const SCTP_INIT: u8 = 1;

/// What a connection being made is, and has taken already.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Where its packets come from and go to.
    pub source: NetworkId,
    pub destination: NetworkId,
    /// The guest that it is accounted to.
    pub guest: VportId,
    /// Records in `BINDINGS` that it uses: of its source, and of its target; 0: none.
    pub source_binding: u32,
    pub target_binding: u32,
    pub origin: u32,
    /// Of the network that its original path is decided under.
    pub generation: u32,
    pub seen: u32,
}

/// Who opens a connection.
pub struct Opener<'a> {
    /// The guest's network; `None`: the outside.
    pub home: Option<&'a Home<'a>>,
    pub from_vport: VportId,
    /// The source address of its frame.
    pub mac: Mac,
}

/// A guest opens a connection to the outside, by `work.next_hop`; the translation is left in `work`.
#[inline(always)]
pub fn create_outbound<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    home: &Home<'_>,
    opener: &Opener<'_>,
) -> Result<(), DropReason> {
    let Some(ports) = work.packet.ports else { return Err(untranslatable(&work.packet)) };
    let seen = first_seen(frame, tables, work.packet.protocol, &ports).ok_or(DropReason::NoConnection)?;
    let uplink = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    let external = external_address(&home.network.nat, uplink.external.v4_raw(), work.packet.src.v4_raw());
    if external == 0 {
        return Err(DropReason::NoExternalAddress);
    }
    // Before anything is taken: a packet that cannot leave opens nothing.
    forward::check_packet_mtu(frame, &work.packet, &uplink)?;
    work.opening = Opening {
        source: home.id,
        destination: OUTSIDE,
        guest: opener.from_vport,
        source_binding: 0,
        target_binding: 0,
        origin: u32::from(ORIGIN_GUEST),
        generation: home.network.generation.load(),
        seen,
    };
    work.translation =
        Endpoints { src: external, dst: work.packet.dst.v4_raw(), src_port: ports.src, dst_port: ports.dst };
    let now = frame.now();
    quota::begin_connection(tables, opener.from_vport, &home.network.nat, now)?;
    translate_source(frame, tables, work, home)?;
    let back = NextHop {
        to_vport: opener.from_vport,
        ifindex: 0,
        side: Side::Egress,
        link: Link::Resolved { dst: opener.mac, src: home.network.gateway_mac },
    };
    begin(frame, tables, work, Some(&back))
}

/// Somebody opens a connection to `work.target`; way and translation are left in `work`. False: not for a
/// guest after all.
#[inline(always)]
pub fn create_to_target<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    opener: &Opener<'_>,
) -> Result<bool, DropReason> {
    let target = work.target;
    let Some(ports) = work.packet.ports else { return Ok(false) };
    let Some(network) = tables.network(target.network) else { return Ok(false) };
    let is_served = match opener.home {
        Some(_) => network.mode().is_some_and(NetworkMode::is_routed_outside),
        None => network.has_uplink(opener.from_vport),
    };
    // A routed network has no outside ports to show its own guests, who would answer each other directly.
    let is_apart =
        opener.home.is_none_or(|home| home.network.mode() == Some(NetworkMode::Nat) || home.id != target.network);
    if !is_served || !is_apart {
        return Ok(false);
    }
    // A segment of no connection: the host answers it with a RST, which ends it at the peer.
    let Some(seen) = first_seen(frame, tables, work.packet.protocol, &ports) else { return Ok(false) };
    let is_binding = target.origin == u32::from(ORIGIN_BINDING);
    // Before anything that is answered: whom the filter refuses learns nothing of who is here.
    if is_binding && opener.home.is_none() {
        check_filter(tables, target.binding, work.packet.src.v4_raw(), &network.nat)?;
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let external = hairpin_source(tables, work, opener);
    let remote = if external == 0 { work.packet.src.v4_raw() } else { external };
    let generation = network.generation.load();
    way::to_guest(frame, tables, &Home { id: target.network, network: &network }, work, target.address)?;
    let vport = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    forward::check_packet_mtu(frame, &work.packet, &vport)?;
    work.opening = Opening {
        source: opener.home.map_or(OUTSIDE, |home| home.id),
        destination: target.network,
        guest: if opener.home.is_some() { opener.from_vport } else { work.next_hop.to_vport },
        source_binding: 0,
        target_binding: 0,
        origin: target.origin,
        generation,
        seen,
    };
    work.translation = Endpoints { src: remote, dst: target.address, src_port: ports.src, dst_port: target.port };
    let now = frame.now();
    // The quota is the opener's own, or its target's where it comes from outside.
    let policy = opener.home.map_or(&network.nat, |home| &home.network.nat);
    quota::begin_connection(tables, work.opening.guest, policy, now)?;
    // Before the filter: a guest that sends to its own external port is one that this port has sent to.
    if let Some(home) = opener.home
        && external != 0
    {
        translate_source(frame, tables, work, home)?;
    }
    if is_binding {
        let entered = enter_binding(tables, work, &network.nat, now);
        if let Err(reason) = entered {
            release(tables, work, now);
            return Err(reason);
        }
    }
    begin(frame, tables, work, None)?;
    Ok(true)
}

/// Refuses a remote (raw IPv4) that a binding does not admit.
#[inline(never)]
fn check_filter<T: Tables>(tables: &T, index: u32, remote: u32, policy: &NatPolicy) -> Result<(), DropReason> {
    if binding::admits(tables, index, remote, policy) { Ok(()) } else { Err(DropReason::Filtered) }
}

/// Counts the connection on its target's binding, if that admits it.
#[inline(never)]
fn enter_binding<T: Tables>(tables: &T, work: &mut Work, policy: &NatPolicy, now: u32) -> Result<(), DropReason> {
    check_filter(tables, work.target.binding, work.translation.src, policy)?;
    work.opening.target_binding = join_target(tables, work, now);
    if work.opening.target_binding == 0 { Err(DropReason::BindingEnding) } else { Ok(()) }
}

/// Counts the connection on its target's binding; 0: that has just ended.
#[inline(always)]
fn join_target<T: Tables>(tables: &T, work: &Work, now: u32) -> u32 {
    let Some(ports) = work.packet.ports else { return 0 };
    let key = BindingKey::external(work.packet.dst.v4_raw(), ports.dst, work.packet.protocol);
    binding::join_external(tables, &key, now)
}

/// Gives back what the connection in the making has taken.
#[inline(never)]
pub(super) fn release<T: Tables>(tables: &T, work: &Work, now: u32) {
    for index in [work.opening.source_binding, work.opening.target_binding] {
        if index != 0 {
            binding::release(tables, index, now);
        }
    }
    quota::end_connection(tables, work.opening.guest);
}

/// Inserts the connection from `work.key` to `work.translation`. The original direction goes by
/// `work.next_hop`, the reply by `back` where that is known.
#[inline(never)]
fn begin<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    work: &mut Work,
    back: Option<&NextHop>,
) -> Result<(), DropReason> {
    let now = frame.now();
    fill_connection(work, now);
    // Towards a target the reply's tuple is not ours alone, and whoever sends may choose one that is taken: it
    // must not cost a record, which would be out of use for its grace.
    let is_chosen = work.opening.origin != u32::from(ORIGIN_GUEST);
    let inserted = if is_chosen && is_taken(tables, work) {
        Inserted::EXISTS
    } else {
        pairs::insert(tables.connections(), &work.connection, now)
    };
    if let Some(index) = inserted.index() {
        let when = Decided { generation: work.opening.generation, now };
        path::keep(tables, index, Direction::Original, &work.next_hop, when);
        if let Some(back) = back {
            path::keep(tables, index, Direction::Reply, back, when);
        }
        tables.count_event(EventCount::ConnectionsCreated);
        report::tell(tables, &work.connection, EventKind::Begun, now, now);
        return Ok(());
    }
    release(tables, work, now);
    if inserted == Inserted::FULL {
        return Err(DropReason::TableFull);
    }
    // Another CPU has made this very connection, or is about to? It says the same.
    if !stands(tables, work) {
        return Err(DropReason::TupleTaken);
    }
    tables.count_event(EventCount::ConnectionRaces);
    Ok(())
}

/// True where a connection has the reply direction of `work.connection`.
#[inline(always)]
fn is_taken<T: Tables>(tables: &T, work: &Work) -> bool {
    !pairs::find_any(tables.connections(), &work.connection.key(Direction::Reply)).is_nothing()
}

/// True where `work.connection` stands, made by another CPU or from the other side: whoever has its reply
/// direction, which is claimed first, has the original one too.
#[inline(never)]
fn stands<T: Tables>(tables: &T, work: &Work) -> bool {
    let found = pairs::find_any(tables.connections(), &work.connection.key(Direction::Reply));
    if found.is_nothing() {
        return !pairs::find_any(tables.connections(), &work.key).is_nothing();
    }
    let Some(other) = tables.connections().record(found.index()) else { return false };
    let opposite = if Direction::of(found.side()).is_original() { Direction::Reply } else { Direction::Original };
    other.is(opposite, &work.key)
}

#[inline(always)]
fn fill_connection(work: &mut Work, now: u32) {
    let Work { key, translation, opening, connection, .. } = work;
    connection.original = key.ends;
    connection.reply = translation.reversed();
    connection.original_network = opening.source;
    connection.reply_network = opening.destination;
    connection.protocol = key.protocol;
    connection.origin = opening.origin as u8;
    connection.guest_vport = opening.guest as u16;
    connection.original_path.store(0);
    connection.reply_path.store(0);
    connection.last_seen.store(now);
    connection.seen.store(opening.seen);
    connection.created.store(now);
    connection.binding = opening.source_binding;
}

/// The state that a packet opens a connection in; `None`: it opens none.
#[inline(always)]
fn first_seen<F: Frame, T: Tables>(frame: &F, tables: &T, protocol: u8, ports: &Ports) -> Option<u32> {
    if opens(protocol, ports) {
        return Some(match conntrack::update(0, Direction::Original, protocol, ports.tcp_flags) {
            Update::None => 0,
            Update::Add(bits) | Update::Set(bits) => bits,
        });
    }
    // A segment in the middle, while connections of a time before ours are taken up.
    let is_segment = protocol == protocol::TCP && ports.tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0;
    let settings = tables.settings()?;
    let left = settings.pick_up_until.wrapping_sub(frame.now());
    if is_segment && left != 0 && left <= u32::MAX / 2 { Some(conntrack::PICKED_UP) } else { None }
}

/// Why a packet without ports cannot be translated.
#[inline(always)]
const fn untranslatable(packet: &Packet) -> DropReason {
    if packet.is_icmp_error { DropReason::IcmpErrorStray } else { DropReason::UnsupportedProtocol }
}

/// True for a packet that may open a connection.
#[inline(always)]
fn opens(protocol: u8, ports: &Ports) -> bool {
    match protocol {
        protocol::TCP => ports.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN,
        protocol::ICMP => ports.tcp_flags & tcp_flag::ACK == 0,
        protocol::SCTP => ports.tcp_flags == SCTP_INIT,
        _ => true,
    }
}

/// Ends the use that a connection made of its bindings and its guest's quota.
#[inline(always)]
pub fn end_use<T: Tables>(tables: &T, connection: &Connection, now: u32) {
    if connection.binding != 0 {
        binding::release(tables, connection.binding, now);
    }
    if connection.origin == ORIGIN_BINDING {
        let key = BindingKey::external(connection.original.dst, connection.original.dst_port, connection.protocol);
        let found = pairs::find(tables.bindings(), &key);
        if !found.is_nothing() {
            binding::release(tables, found.index(), now);
        }
    }
    quota::end_connection(tables, u32::from(connection.guest_vport));
}
