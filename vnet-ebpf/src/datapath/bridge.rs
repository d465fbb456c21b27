//! Bridge: learn, age, move, unicast, flood by clone, never back.

use vnet_common::{
    DropReason,
    config::{NetworkEntry, NetworkId},
    fdb::{FdbEntry, FdbKey, FdbKind},
    stats::EventCount,
    vport::{PEER_ELSEWHERE, VportEntry, VportId, VportRole},
};

use super::{
    Outcome, Verdict,
    parse::{self, Ethernet},
};
use crate::{
    context::{Frame, Side},
    tables::{InsertError, Table as _, Tables},
};

/// What became of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The table says so already.
    Known,
    /// The table was changed, or must be: not for XDP.
    New,
}

/// Learns where the source address lives. Static and local entries never move (B1).
///
/// On a hook that is not complete nothing but the time stamp is written.
#[inline(always)]
pub fn learn<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    (network_id, network): (NetworkId, &NetworkEntry),
    eth: &Ethernet,
    from_vport: VportId,
) -> Learned {
    let key = FdbKey::new(network_id, eth.vlan, eth.src);
    let now = frame.now();
    let Some(entry) = tables.fdb().lookup(&key) else {
        if F::COMPLETE
            && tables.fdb().insert(&key, &FdbEntry::new(from_vport, FdbKind::Learned, now)) == Err(InsertError::Full)
        {
            tables.count_event(EventCount::FdbFull);
        }
        return Learned::New;
    };
    // Written at most once a second: the line stays shared between CPUs (B2).
    if entry.last_seen.load() != now {
        entry.last_seen.store(now);
    }
    if entry.vport() == from_vport || entry.kind != FdbKind::Learned as u32 {
        return Learned::Known;
    }
    if F::COMPLETE {
        entry.vport.store(from_vport);
        entry.moves.add(1);
        // Flows towards this guest keep its port: let them look again.
        network.generation.add(1);
    }
    Learned::New
}

/// Where a destination address lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Behind this vport.
    Vport(VportId),
    /// It is the host itself, by way of this vport's device.
    Host(VportId),
    /// Multicast, broadcast, or not known.
    Everyone,
}

/// Looks a destination up.
#[inline(always)]
pub fn lookup<T: Tables>(tables: &T, network: NetworkId, eth: &Ethernet) -> Destination {
    if eth.dst.is_group() {
        return Destination::Everyone;
    }
    match tables.fdb().lookup(&FdbKey::new(network, eth.vlan, eth.dst)) {
        None => Destination::Everyone,
        Some(entry) if entry.kind == FdbKind::Local as u32 => Destination::Host(entry.vport()),
        Some(entry) => Destination::Vport(entry.vport()),
    }
}

/// Sends the frame out of a vport, unless it came from there or is too long.
#[inline(always)]
pub fn unicast<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    eth: &Ethernet,
    from_vport: VportId,
    to_vport: VportId,
) -> Outcome {
    if to_vport == from_vport {
        return Err(DropReason::SamePort);
    }
    let vport = tables.vport(to_vport).ok_or(DropReason::PortAbsent)?;
    if vport.ifindex == 0 {
        return Err(DropReason::PortAbsent);
    }
    check_mtu(frame, eth.ether_type, eth.payload, &vport)?;
    send(frame, tables, to_vport, &vport)
}

/// Refuses a frame that the device would not send (B8). `l3` is the offset of its packet.
#[inline(always)]
pub fn check_mtu<F: Frame>(frame: &F, ether_type: u16, l3: u32, vport: &VportEntry) -> Result<(), DropReason> {
    // A tag in the bytes is not the MTU's business, as in the kernel's is_skb_forwardable().
    let limit = u32::from(vport.mtu).wrapping_add(l3);
    if frame.len() > limit && parse::sent_length(frame, ether_type, l3) > limit {
        return Err(DropReason::OverMtu);
    }
    Ok(())
}

/// How a frame leaves by a vport's device: a bare veth is no stop on the way.
#[inline(always)]
pub fn way_out<F: Frame>(vport: &VportEntry) -> Side {
    if F::REACHES_PEERS && vport.flags & PEER_ELSEWHERE != 0 { Side::Peer } else { Side::Egress }
}

/// Sends the frame out of a vport's device.
#[inline(always)]
fn send<F: Frame, T: Tables>(frame: &mut F, tables: &T, id: VportId, vport: &VportEntry) -> Outcome {
    match vport.role() {
        // XDP has no way up but to leave the frame alone.
        Some(VportRole::Gateway) if !F::COMPLETE => return Ok(Verdict::PassUp),
        Some(VportRole::Gateway) => return deliver(frame, tables, id),
        // Our own program on the uplink's egress must let it pass.
        Some(VportRole::BridgeUplink) => frame.set_marked(true),
        Some(_) => {}
        None => return Err(DropReason::PortAbsent),
    }
    tables.count_sent(id, frame.len());
    frame.redirect(vport.ifindex, way_out::<F>(vport));
    Ok(Verdict::Sent)
}

/// Hands the frame to the host's stack, as received on the vport's device.
#[inline(always)]
pub fn deliver<F: Frame, T: Tables>(frame: &mut F, tables: &T, id: VportId) -> Outcome {
    let vport = tables.vport(id).ok_or(DropReason::PortAbsent)?;
    if vport.ifindex == 0 {
        return Err(DropReason::PortAbsent);
    }
    if vport.role() == Some(VportRole::BridgeUplink) {
        // It passes our program on the uplink's ingress once more.
        frame.set_marked(true);
    }
    tables.count_sent(id, frame.len());
    frame.redirect(vport.ifindex, Side::Host);
    Ok(Verdict::Sent)
}

/// Where a flooded frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub network: NetworkId,
    pub vport: VportId,
    /// True where the host has not seen the frame: then a bridge uplink's host is reached as well as
    /// its wire.
    pub is_guest: bool,
}

/// Copies the frame to every member of the network but the one it came from. A member that refuses
/// costs only itself (B3).
#[inline(never)]
pub fn flood<F: Frame, T: Tables>(frame: &mut F, tables: &T, source: Source, eth: &Ethernet) -> Result<(), DropReason> {
    let mut reached = false;
    tables.for_each_member(source.network, |id| {
        if id != source.vport {
            reached |= copy_to(frame, tables, id, source.is_guest, eth);
        }
    });
    if reached { Ok(()) } else { Err(DropReason::NoMembers) }
}

/// Sends one copy, or for a bridge uplink two.
#[inline(always)]
fn copy_to<F: Frame, T: Tables>(frame: &mut F, tables: &T, id: VportId, to_host_too: bool, eth: &Ethernet) -> bool {
    let Some(vport) = tables.vport(id) else { return false };
    if vport.ifindex == 0 || check_mtu(frame, eth.ether_type, eth.payload, &vport).is_err() {
        return false;
    }
    match vport.role() {
        Some(VportRole::Gateway) => clone(frame, tables, id, vport.ifindex, Side::Host),
        Some(VportRole::BridgeUplink) => {
            // Our own programs on the device must let the copies pass.
            frame.set_marked(true);
            let mut sent = clone(frame, tables, id, vport.ifindex, Side::Egress);
            if to_host_too {
                sent |= clone(frame, tables, id, vport.ifindex, Side::Host);
            }
            frame.set_marked(false);
            sent
        }
        _ => clone(frame, tables, id, vport.ifindex, Side::Egress),
    }
}

/// Sends a copy to a vport's device; counts what came of it.
#[inline(always)]
fn clone<F: Frame, T: Tables>(frame: &mut F, tables: &T, id: VportId, ifindex: u32, side: Side) -> bool {
    let sent = frame.clone_to(ifindex, side);
    if sent {
        tables.count_sent(id, frame.len());
    } else {
        tables.count_event(EventCount::FloodRefused);
    }
    sent
}
