//! Paths: ways out, decided once, that connections refer to by a slot of `PATHS`.
//!
//! An entry's content is its identity: it never changes while a connection may refer to it. References
//! are stamped and last for [`PATH_LIFETIME`]; an entry that nobody decided for in twice that time is free.

use vnet_common::{
    DropReason, Seconds,
    flow::{Connection, Direction, KeptPath, MAX_PATHS, PATH_LIFETIME, PathEntry, Way, since},
};

use super::{
    bridge,
    way::{Link, NextHop},
};
use crate::{context::Frame, tables::Tables};

/// Slots that a way may lie in, from its hash on.
const PROBES: u32 = 8;

/// The way that a direction keeps, if it stands under `stamp`.
#[inline(always)]
pub fn kept(connection: &Connection, direction: Direction, stamp: u32) -> Option<u32> {
    let kept = KeptPath::from_word(connection.path(direction).load());
    if kept.stamp == stamp { Some(kept.slot) } else { None }
}

/// Puts the way in a slot into `next_hop`.
#[inline(always)]
pub fn take<F: Frame, T: Tables>(tables: &T, slot: u32, next_hop: &mut NextHop) -> Result<(), DropReason> {
    let entry = tables.path(slot).ok_or(DropReason::NoRoute)?;
    let [a, b, c, d] = &entry.way;
    let Way { to_vport, dst, src } = Way::unpack([a.load(), b.load(), c.load(), d.load()]);
    let vport = tables.vport(to_vport).ok_or(DropReason::PortAbsent)?;
    if vport.ifindex == 0 {
        return Err(DropReason::PortAbsent);
    }
    let side = bridge::way_out::<F>(&vport);
    *next_hop = NextHop { to_vport, ifindex: vport.ifindex, side, link: Link::Resolved { dst, src } };
    Ok(())
}

/// Keeps a decided way for one direction of the connection `index`; an unresolved one is not kept.
#[inline(never)]
pub fn keep<T: Tables>(tables: &T, index: u32, direction: Direction, next_hop: &NextHop, when: Decided) {
    let Link::Resolved { dst, src } = next_hop.link else { return };
    let way = Way { to_vport: next_hop.to_vport, dst, src }.pack();
    let slot = note(tables, &way, when.now);
    if slot == 0 {
        return;
    }
    let Some(connection) = crate::tables::pairs::Pairs::record(tables.connections(), index) else { return };
    let stamp = KeptPath::stamp(when.generation, index, when.now);
    connection.path(direction).store(KeptPath { stamp, slot }.word());
}

/// Under which generation of its network a way was decided, and when.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    pub generation: u32,
    pub now: Seconds,
}

/// The slot that holds a way, found or taken; 0: none is free.
#[inline(always)]
fn note<T: Tables>(tables: &T, way: &[u32; 4], now: Seconds) -> u32 {
    let first = hash(way);
    let mut free = 0;
    for probe in 0..PROBES {
        let slot = first.wrapping_add(probe) % MAX_PATHS;
        if slot == 0 {
            continue;
        }
        let Some(entry) = tables.path(slot) else { continue };
        let used = entry.used.load();
        if used == 0 || (used != PathEntry::BEING_WRITTEN && since(used, now) > 2 * PATH_LIFETIME) {
            if free == 0 {
                free = slot;
            }
        } else if used != PathEntry::BEING_WRITTEN
            && holds(&entry, way)
            && (used == now || entry.used.replace(used, now))
        {
            return slot;
        }
    }
    if free == 0 || !take_over(tables, free, way, now) { 0 } else { free }
}

#[inline(always)]
fn holds(entry: &PathEntry, way: &[u32; 4]) -> bool {
    entry.way.iter().zip(way).all(|(kept, wanted)| kept.load() == *wanted)
}

/// Writes a way into a slot that nobody refers to. False where another CPU was quicker.
#[inline(always)]
fn take_over<T: Tables>(tables: &T, slot: u32, way: &[u32; 4], now: Seconds) -> bool {
    let Some(entry) = tables.path(slot) else { return false };
    let used = entry.used.load();
    let is_free = used == 0 || (used != PathEntry::BEING_WRITTEN && since(used, now) > 2 * PATH_LIFETIME);
    if !is_free || !entry.used.replace(used, PathEntry::BEING_WRITTEN) {
        return false;
    }
    for (place, word) in entry.way.iter().zip(way) {
        place.store(*word);
    }
    entry.used.store(now);
    true
}

#[inline(always)]
fn hash(way: &[u32; 4]) -> u32 {
    let [a, b, c, d] = *way;
    let mixed = a.wrapping_mul(0x9e37_79b1) ^ b.wrapping_mul(0x85eb_ca6b) ^ c.wrapping_mul(0xc2b2_ae35) ^ d;
    (mixed ^ mixed >> 15).wrapping_mul(0x27d4_eb2f) >> 8
}
