//! Connection tracking: the established path, one look-up a packet.

use vnet_common::{
    DropReason, Seconds,
    config::{NetworkEntry, NetworkId},
    conntrack::{self, Update, protocol, tcp_flag},
    flow::{Direction, FlowEntry, ORIGIN_SNAT, Way, idle},
    stats::EventCount,
};

use super::{
    Work, bridge,
    forward::{self, Link, NextHop},
    nat::{self, Translation},
    parse::{Packet, Ports},
};
use crate::{
    context::Frame,
    tables::{Table as _, Tables},
};

/// Paths are decided again after this many seconds, so that they heal without the daemon.
const PATH_LIFETIME: u32 = 30;

/// TCP flags that may change a connection's state.
const TCP_CONTROL: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No flow stands.
    Nothing,
    /// XDP only: TC must see this packet.
    PassUp,
    /// `work.translation` and `work.next_hop` say what to do.
    Decided,
    /// `work.translation` stands, the way must be found out again: out of the network, or to the guest.
    Undecided { network: NetworkId, goes_outside: bool },
}

/// Looks the packet's flow up (once) and takes its state on.
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
    work.original = forward::flow_key(&work.packet, &ports, from);
    let Some(flow) = tables.flows().lookup(&work.original) else { return Ok(Known::Nothing) };
    let Some(network) = tables.network(flow.network) else { return Ok(Known::Nothing) };
    let is_current = is_current(frame, &flow, &network);
    let changes_state = changes_state(&flow, &work.packet, &ports);
    let ttl_ends = work.packet.ttl <= 1;
    if !F::COMPLETE && (!is_current || changes_state || ttl_ends || nat::is_partial(frame, &work.packet)) {
        return Ok(Known::PassUp);
    }
    if ttl_ends {
        return Err(DropReason::TtlExceeded);
    }
    let now = frame.now();
    if flow.last_seen.load() != now {
        flow.last_seen.store(now);
    }
    if changes_state {
        track(tables, &flow, work, &ports);
    }
    work.translation = Translation::of(&flow);
    if is_current && kept_path::<F, T>(tables, &flow, work)? {
        return Ok(Known::Decided);
    }
    Ok(Known::Undecided { network: flow.network, goes_outside: goes_outside(&flow) })
}

/// Keeps `work.next_hop`, decided anew under `generation`, in the flow of `work.original`.
#[inline(never)]
pub fn keep_decision<F: Frame, T: Tables>(frame: &F, tables: &T, work: &Work, generation: u32) {
    tables.count_event(EventCount::PathDecidedAgain);
    if let Some(flow) = tables.flows().lookup(&work.original) {
        keep_path(&flow, &work.next_hop, generation, frame.now());
    }
}

/// True when the flow's path may be used as it stands.
#[inline(always)]
fn is_current<F: Frame>(frame: &F, flow: &FlowEntry, network: &NetworkEntry) -> bool {
    let generation = flow.path.generation.load();
    generation != 0 && generation == network.generation.load() && idle(frame.now(), &flow.path.decided) < PATH_LIFETIME
}

/// Takes the flow's path into `work.next_hop`. False where another CPU is just writing it.
#[inline(always)]
fn kept_path<F: Frame, T: Tables>(tables: &T, flow: &FlowEntry, work: &mut Work) -> Result<bool, DropReason> {
    let before = flow.path.generation.load();
    let [a, b, c, d] = &flow.path.way;
    let Way { to_vport, dst, src } = Way::unpack([a.load(), b.load(), c.load(), d.load()]);
    if before == 0 || flow.path.generation.load() != before {
        return Ok(false);
    }
    let vport = tables.vport(to_vport).ok_or(DropReason::PortAbsent)?;
    if vport.ifindex == 0 {
        return Err(DropReason::PortAbsent);
    }
    let side = bridge::way_out::<F>(&vport);
    work.next_hop = NextHop { to_vport, ifindex: vport.ifindex, side, link: Link::Resolved { dst, src } };
    Ok(true)
}

/// Writes a decided path into the flow; an unresolved one is not kept.
#[inline(always)]
pub fn keep_path(flow: &FlowEntry, next_hop: &NextHop, generation: u32, now: Seconds) {
    let Link::Resolved { dst, src } = next_hop.link else { return };
    let words = Way { to_vport: next_hop.to_vport, dst, src }.pack();
    flow.path.generation.store(0);
    for (place, word) in flow.path.way.iter().zip(words) {
        place.store(word);
    }
    flow.path.decided.store(now);
    flow.path.generation.store(generation);
}

/// True for the direction that leaves the guest's network.
#[inline(always)]
const fn goes_outside(flow: &FlowEntry) -> bool {
    (flow.direction == Direction::Original as u8) == (flow.origin == ORIGIN_SNAT)
}

/// True when the packet may change the connection's state: most change nothing.
#[inline(always)]
fn changes_state(flow: &FlowEntry, packet: &Packet, ports: &Ports) -> bool {
    let seen = flow.seen();
    if packet.protocol == protocol::TCP {
        ports.tcp_flags & TCP_CONTROL != 0 || !conntrack::is_settled(seen)
    } else {
        flow.direction == Direction::Reply as u8 && seen & conntrack::REPLIED == 0
    }
}

/// Applies the packet to both directions' state.
#[inline(always)]
fn track<T: Tables>(tables: &T, flow: &FlowEntry, work: &mut Work, ports: &Ports) {
    let direction = if flow.direction == Direction::Original as u8 { Direction::Original } else { Direction::Reply };
    let update = conntrack::update(flow.seen(), direction, work.packet.protocol, ports.tcp_flags);
    if update == Update::None {
        return;
    }
    work.reply = flow.partner_key(work.packet.protocol);
    let partner = tables.flows().lookup(&work.reply);
    apply(flow, update);
    if let Some(partner) = partner {
        apply(&partner, update);
    }
}

#[inline(always)]
fn apply(flow: &FlowEntry, update: Update) {
    match update {
        Update::None => {}
        Update::Add(bits) => {
            flow.seen.set_bits(bits);
        }
        Update::Set(bits) => flow.seen.store(bits),
    }
}
