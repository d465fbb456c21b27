//! Connection tracking: the established path, one look-up a packet.

use vnet_common::{
    DropReason, Seconds,
    config::{NetworkEntry, NetworkId, OUTSIDE},
    conntrack::{self, Update, protocol, tcp_flag},
    event::EventKind,
    flow::{Connection, Direction, KeptPath, ORIGIN_FORWARD},
    stats::EventCount,
};

use super::{
    Work, forward, nat,
    parse::{Packet, Ports},
    path::{self, Decided},
    report,
};
use crate::{
    context::Frame,
    tables::{
        Tables,
        pairs::{self, Pairs as _},
    },
};

/// TCP flags that may change a connection's state.
const TCP_CONTROL: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has none.
    Nothing,
    /// XDP only: TC must see this packet.
    PassUp,
    /// `work.translation` and `work.next_hop` say what to do.
    Decided,
    /// `work.translation` stands, the way must be found out again: out of the network, or to the guest.
    Undecided { network: NetworkId, goes_outside: bool },
}

/// Looks the packet's connection up (once) and takes its state on.
///
/// A function of its own, once for both directions: the programs stay small, the stack too.
#[inline(never)]
pub fn established<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from: NetworkId,
) -> Result<Known, DropReason> {
    let Some(ports) = work.packet.ports else { return Ok(Known::Nothing) };
    work.key = forward::flow_key(&work.packet, &ports, from);
    work.found = pairs::find(tables.connections(), &work.key);
    if work.found.is_nothing() {
        return Ok(Known::Nothing);
    }
    let index = work.found.index();
    let direction = Direction::of(work.found.side());
    let Some(connection) = tables.connections().record(index) else { return Ok(Known::Nothing) };
    let id = connection.path_network(direction);
    let Some(network) = tables.network(id) else { return Ok(Known::Nothing) };
    let now = frame.now();
    let kept = path::kept(&connection, direction, KeptPath::stamp(network.generation.load(), index, now));
    let changes_state = changes_state(&connection, direction, &work.packet, &ports);
    let ttl_ends = work.packet.ttl <= 1;
    if !F::COMPLETE && (kept.is_none() || changes_state || ttl_ends || nat::is_partial(frame, &work.packet)) {
        return Ok(Known::PassUp);
    }
    if ttl_ends {
        return Err(DropReason::TtlExceeded);
    }
    if !keep_alive(&connection, direction, &network, now) {
        return Ok(Known::Nothing);
    }
    if changes_state {
        let update = conntrack::update(connection.seen.load(), direction, work.packet.protocol, ports.tcp_flags);
        apply(&connection, update);
        if update != Update::None {
            report::tell(tables, &connection, EventKind::Changed, now, now);
        }
    }
    work.translation = connection.translated(direction);
    if let Some(slot) = kept {
        path::take::<F, T>(tables, slot, &mut work.next_hop)?;
        return Ok(Known::Decided);
    }
    Ok(Known::Undecided { network: id, goes_outside: connection.destination(direction) == OUTSIDE })
}

/// Keeps `work.next_hop`, decided anew under `generation`, for the direction that was looked up.
#[inline(always)]
pub fn keep_decision<F: Frame, T: Tables>(frame: &F, tables: &T, work: &Work, generation: u32) {
    tables.count_event(EventCount::PathDecidedAgain);
    let when = Decided { generation, now: frame.now() };
    path::keep(tables, work.found.index(), Direction::of(work.found.side()), &work.next_hop, when);
}

/// Notes that the connection was seen. False where it has just ended.
#[inline(always)]
fn keep_alive(connection: &Connection, direction: Direction, network: &NetworkEntry, now: Seconds) -> bool {
    let last_seen = connection.last_seen.load();
    if last_seen == 0 {
        // It ended between the look-up and here: nothing may wake a free record.
        return false;
    }
    if last_seen == now || !refreshes(connection, direction, network) {
        return true;
    }
    // In vain where another packet has just done it, or where the connection has been ended.
    connection.last_seen.replace(last_seen, now) || connection.last_seen.load() != 0
}

/// True where a packet of this direction keeps the connection alive (RFC 4787 REQ-6: the guest's own do;
/// those from outside may not, so that nobody outside holds a port open).
#[inline(always)]
fn refreshes(connection: &Connection, direction: Direction, network: &NetworkEntry) -> bool {
    connection.source(direction) != OUTSIDE
        || connection.origin == ORIGIN_FORWARD
        || matches!(connection.protocol, protocol::TCP | protocol::SCTP)
        || network.nat.inbound_refresh != 0
}

/// True when the packet may change the connection's state: most change nothing.
#[inline(always)]
fn changes_state(connection: &Connection, direction: Direction, packet: &Packet, ports: &Ports) -> bool {
    let seen = connection.seen.load();
    if packet.protocol == protocol::TCP && !packet.is_later_fragment {
        ports.tcp_flags & TCP_CONTROL != 0 || !conntrack::is_settled(seen)
    } else {
        !direction.is_original() && seen & conntrack::REPLIED == 0
    }
}

#[inline(always)]
fn apply(connection: &Connection, update: Update) {
    match update {
        Update::None => {}
        Update::Add(bits) => connection.seen.set_bits(bits),
        Update::Set(bits) => connection.seen.store(bits),
    }
}
