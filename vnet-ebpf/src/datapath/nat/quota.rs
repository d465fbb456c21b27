//! Quotas: what one guest may use, so that none takes what the others need (RFC 6888 REQ-4).

use vnet_common::{DropReason, Seconds, config::NatPolicy, nat::exhausted_slot, vport::VportId};

use crate::tables::Tables;

/// Accounts one connection more to a guest, if its quotas allow it.
#[inline(always)]
pub fn begin_connection<T: Tables>(
    tables: &T,
    guest: VportId,
    policy: &NatPolicy,
    now: Seconds,
) -> Result<(), DropReason> {
    let Some(used) = tables.guest(guest) else { return Ok(()) };
    if policy.guest_new_per_second != 0 {
        let second = used.second.load();
        if second != now && used.second.replace(second, now) {
            used.begun.store(0);
        }
        if used.begun.add(1) >= policy.guest_new_per_second {
            return Err(DropReason::GuestRate);
        }
    }
    let before = used.connections.add(1);
    if policy.guest_connections != 0 && before >= policy.guest_connections {
        used.connections.subtract(1);
        return Err(DropReason::GuestConnections);
    }
    Ok(())
}

/// One connection of the guest has ended.
#[inline(always)]
pub fn end_connection<T: Tables>(tables: &T, guest: VportId) {
    if let Some(used) = tables.guest(guest) {
        used.connections.subtract(1);
    }
}

/// Accounts one external port more to a guest, if its quota allows it and a search did not just fail.
#[inline(always)]
pub fn begin_binding<T: Tables>(
    tables: &T,
    guest: VportId,
    limit: u32,
    protocol: u8,
    now: Seconds,
) -> Result<(), DropReason> {
    let Some(used) = tables.guest(guest) else { return Ok(()) };
    if used.exhausted.get(exhausted_slot(protocol)).is_some_and(|second| second.load() == now) {
        return Err(DropReason::PortsExhausted);
    }
    let before = used.bindings.add(1);
    if limit != 0 && before >= limit {
        used.bindings.subtract(1);
        return Err(DropReason::GuestPorts);
    }
    Ok(())
}

/// The guest holds one external port less.
#[inline(always)]
pub fn end_binding<T: Tables>(tables: &T, guest: VportId) {
    if let Some(used) = tables.guest(guest) {
        used.bindings.subtract(1);
    }
}

/// Notes that no external port is free for the guest's protocol: one search a second is enough.
#[inline(always)]
pub fn note_exhausted<T: Tables>(tables: &T, guest: VportId, protocol: u8, now: Seconds) {
    if let Some(used) = tables.guest(guest)
        && let Some(second) = used.exhausted.get(exhausted_slot(protocol))
    {
        second.store(now);
    }
}
