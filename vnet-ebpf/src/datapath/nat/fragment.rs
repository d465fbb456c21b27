//! Fragments: those behind the first carry no ports, and borrow them from it (RFC 4787 REQ-14).
//!
//! A fragment that comes before the first is kept, as a whole frame; when the first one comes, all of them are
//! sent round once more, into the hook that they came in by, the first one first. What waits too long, or
//! finds no room, is dropped and counted; each port has its share of both tables. A datagram of which all bytes
//! have come is forgotten at once: only what never becomes whole needs the time-out. A second first fragment of
//! one datagram that says other ports is dropped: nobody honest sends it (RFC 1858 section 3).
//!
//! SCTP's CRC cannot be mended in a fragment whose datagram's length is not known: see `rewrite`.

use vnet_common::{
    DropReason, Seconds, Word,
    config::NetworkId,
    conntrack::protocol,
    fragment::{FragmentEntry, FragmentKey, HELD_PER_DATAGRAM, HeldKey, MAX_FRAGMENTED, MAX_HELD, OUTSIDE_TIMEOUT},
    stats::EventCount,
    vport::VportId,
};

use crate::{
    context::{Frame, Side},
    datapath::{
        Work,
        parse::{Ports, parse_ports},
    },
    tables::{InsertError, Table as _, Tables},
};

/// What is to be done with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It goes on: its ports stand in `work.packet`, if its datagram has some.
    GoesOn,
    /// The frame is kept, or was sent round once more: it ends here.
    Kept,
    /// Its datagram is the host's.
    ToHost,
}

/// Where a fragment comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub network: NetworkId,
    pub vport: VportId,
    /// True where it may be somebody's whose first fragment is still to come.
    pub may_wait: bool,
}

/// Gives a fragment its datagram's ports.
#[inline(never)]
pub fn gather<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    origin: Origin,
) -> Result<Fragment, DropReason> {
    if !matches!(work.packet.protocol, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::SCTP) {
        return Ok(Fragment::GoesOn);
    }
    fill_key(work, origin.network);
    if work.packet.is_later_fragment { borrow(frame, tables, work, origin) } else { lend(frame, tables, work, origin) }
}

#[inline(always)]
fn fill_key(work: &mut Work, network: NetworkId) {
    work.held_key.datagram = FragmentKey {
        src: work.packet.src.v4_raw(),
        dst: work.packet.dst.v4_raw(),
        id: work.packet.id,
        network,
        protocol: work.packet.protocol,
        pad: 0,
        pad2: 0,
    };
    work.held_key.slot = 0;
}

/// The first fragment: its ports are noted for the others, and what came before it follows.
#[inline(always)]
fn lend<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    origin: Origin,
) -> Result<Fragment, DropReason> {
    work.packet.ports = parse_ports(frame, work.packet.protocol, work.packet.l4, work.packet.l4_length)?;
    let Some(ports) = work.packet.ports else { return Ok(Fragment::GoesOn) };
    note(tables, work, &ports, origin, frame.now())?;
    if tables.held().lookup(&work.held_key).is_none() {
        return Ok(Fragment::GoesOn);
    }
    send_round(frame, tables, work);
    Ok(Fragment::Kept)
}

/// Notes a datagram's ports.
#[inline(never)]
fn note<T: Tables>(tables: &T, work: &Work, ports: &Ports, origin: Origin, now: Seconds) -> Result<(), DropReason> {
    let key = &work.held_key.datagram;
    let entry = FragmentEntry {
        src_port: ports.src,
        dst_port: ports.dst,
        created: now,
        from_vport: origin.vport,
        to_host: Word::new(0),
        length: Word::new(0),
        gathered: Word::new(u32::from(work.packet.l4_length)),
    };
    if let Some(known) = tables.fragments().lookup(key) {
        if known.src_port == ports.src && known.dst_port == ports.dst {
            return Ok(());
        }
        if now.wrapping_sub(known.created) < OUTSIDE_TIMEOUT {
            return Err(DropReason::FragmentConflict);
        }
        // A number used again: what stood there is over.
        forget(tables, key);
    }
    let Some(used) = tables.guest(origin.vport) else { return Err(DropReason::FragmentTableFull) };
    if used.fragments.add(1) >= MAX_FRAGMENTED {
        used.fragments.subtract(1);
        return Err(DropReason::FragmentTableFull);
    }
    match tables.fragments().insert(key, &entry) {
        Ok(()) => Ok(()),
        Err(error) => {
            used.fragments.subtract(1);
            if error == InsertError::Exists { Ok(()) } else { Err(DropReason::FragmentTableFull) }
        }
    }
}

/// A later fragment: the first one's ports, or it waits for them.
#[inline(always)]
fn borrow<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    origin: Origin,
) -> Result<Fragment, DropReason> {
    if let Some(known) = tables.fragments().lookup(&work.held_key.datagram) {
        let is_to_host = known.to_host.load() != 0;
        work.packet.ports = Some(Ports { src: known.src_port, dst: known.dst_port, tcp_flags: 0 });
        count_gathered(tables, work);
        return Ok(if is_to_host { Fragment::ToHost } else { Fragment::GoesOn });
    }
    // One whose time to live ends here would be told so when it comes again, at best.
    if !origin.may_wait || work.packet.ttl <= 1 {
        return Ok(Fragment::GoesOn);
    }
    hold(frame, tables, work, origin.vport)
}

/// Counts a later fragment's bytes, and forgets the datagram when they are all there. One that came twice only
/// makes that wait for the time-out.
#[inline(never)]
fn count_gathered<T: Tables>(tables: &T, work: &Work) {
    let Some(known) = tables.fragments().lookup(&work.held_key.datagram) else { return };
    if work.packet.datagram_length != 0 {
        known.length.store(work.packet.datagram_length);
    }
    let own = u32::from(work.packet.l4_length);
    let gathered = known.gathered.add(own).wrapping_add(own);
    if gathered == known.length.load() {
        forget(tables, &work.held_key.datagram);
    }
}

/// Keeps the frame until its datagram's first fragment comes.
#[inline(never)]
fn hold<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from_vport: VportId,
) -> Result<Fragment, DropReason> {
    let length = frame.copy_out(&mut work.held.bytes);
    let Some(used) = tables.guest(from_vport) else { return Err(DropReason::FragmentTableFull) };
    if length == 0 {
        return Err(DropReason::FragmentTableFull);
    }
    work.held.length = length;
    work.held.created = frame.now();
    work.held.from_vport = from_vport;
    if used.held.add(1) >= MAX_HELD {
        used.held.subtract(1);
        return Err(DropReason::FragmentTableFull);
    }
    for slot in 0..HELD_PER_DATAGRAM {
        work.held_key.slot = slot;
        if tables.held().insert(&work.held_key, &work.held).is_ok() {
            return Ok(Fragment::Kept);
        }
    }
    used.held.subtract(1);
    Err(DropReason::FragmentTableFull)
}

/// Sends the first fragment and those that waited for it into the hook once more. The frame is spent.
#[inline(never)]
fn send_round<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work) {
    let ifindex = frame.ifindex();
    if !frame.clone_to(ifindex, Side::Host) {
        tables.count_event(EventCount::FloodRefused);
    }
    for slot in 0..HELD_PER_DATAGRAM {
        work.held_key.slot = slot;
        let Some(held) = tables.held().lookup(&work.held_key) else { break };
        if !frame.become_copy(&held.bytes, held.length) || !frame.clone_to(ifindex, Side::Host) {
            tables.count_event(EventCount::FloodRefused);
        }
        let from_vport = held.from_vport;
        release_held(tables, &work.held_key, from_vport);
    }
}

#[inline(always)]
fn release_held<T: Tables>(tables: &T, key: &HeldKey, from_vport: VportId) -> bool {
    let removed = tables.held().remove(key);
    if removed && let Some(used) = tables.guest(from_vport) {
        used.held.subtract(1);
    }
    removed
}

/// Notes that the datagram of the fragment at hand is the host's.
#[inline(never)]
pub fn note_to_host<T: Tables>(tables: &T, work: &Work) {
    if let Some(known) = tables.fragments().lookup(&work.held_key.datagram) {
        known.to_host.store(1);
    }
}

/// Forgets a datagram whose fragments have had their time.
#[inline(always)]
pub fn expire<T: Tables>(tables: &T, key: &FragmentKey, timeout: Seconds, now: Seconds) -> bool {
    let Some(known) = tables.fragments().lookup(key) else { return false };
    now.wrapping_sub(known.created) >= timeout && forget(tables, key)
}

#[inline(always)]
fn forget<T: Tables>(tables: &T, key: &FragmentKey) -> bool {
    let Some(known) = tables.fragments().lookup(key) else { return false };
    let from_vport = known.from_vport;
    let removed = tables.fragments().remove(key);
    if removed && let Some(used) = tables.guest(from_vport) {
        used.fragments.subtract(1);
    }
    removed
}

/// Drops a fragment whose datagram's first one did not come in time.
#[inline(always)]
pub fn expire_held<T: Tables>(tables: &T, key: &HeldKey, timeout: Seconds, now: Seconds) -> bool {
    let Some(held) = tables.held().lookup(key) else { return false };
    let (created, from_vport, length) = (held.created, held.from_vport, held.length);
    if now.wrapping_sub(created) < timeout || !release_held(tables, key, from_vport) {
        return false;
    }
    tables.count_received(from_vport, length);
    tables.count_drop(from_vport, DropReason::FragmentWithoutFirst);
    true
}
