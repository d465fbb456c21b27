//! Expiry: the daemon names candidates, these decide and end them, in the kernel, so that one that woke
//! up in between lives on.

use vnet_common::{
    Seconds,
    config::NetworkId,
    conntrack::can_be_spared,
    event::EventKind,
    fdb::FdbKey,
    flow::since,
    fragment::{FragmentKey, HeldKey, OUTSIDE_TIMEOUT},
    names::expiry::Mode,
    nat::DEAD,
    stats::EventCount,
};

use super::{nat, report};
use crate::tables::{
    Table, Tables,
    pairs::{self, Pairs as _},
};

/// How often a connection is ended that packets keep refreshing meanwhile.
const TRIES: u32 = 4;

/// Ends the connection in this record, if `mode` allows it.
#[inline(always)]
pub fn expire_connection<T: Tables>(tables: &T, index: u32, mode: Mode, now: Seconds) -> bool {
    let Some(connection) = tables.connections().record(index) else { return false };
    for _ in 0..TRIES {
        let last_seen = connection.last_seen.load();
        if last_seen == 0 {
            return false;
        }
        let may_end = match mode {
            Mode::Force => true,
            Mode::Spare => can_be_spared(connection.protocol, connection.seen.load()),
            Mode::Expired => {
                let Some(network) = tables.network(connection.home()) else { return false };
                connection.is_expired(last_seen, &network.timeouts, now)
            }
        };
        if !may_end || !pairs::is_inserted(tables.connections(), index) {
            return false;
        }
        if connection.last_seen.replace(last_seen, 0) {
            let (kind, count) = match mode {
                Mode::Expired => (EventKind::Expired, EventCount::ConnectionsExpired),
                Mode::Force => (EventKind::Flushed, EventCount::ConnectionsFlushed),
                Mode::Spare => (EventKind::Spared, EventCount::ConnectionsSpared),
            };
            tables.count_event(count);
            report::tell(tables, &connection, kind, last_seen, now);
            nat::end_use(tables, &connection, now);
            pairs::remove(tables.connections(), index, now);
            return true;
        }
    }
    false
}

/// Ends the binding in this record if no connection uses it, and frees its port.
#[inline(always)]
pub fn expire_binding<T: Tables>(tables: &T, index: u32, mode: Mode, now: Seconds) -> bool {
    let Some(binding) = tables.bindings().record(index) else { return false };
    let last_used = binding.last_used.load();
    if last_used == 0 {
        return false;
    }
    if mode == Mode::Expired {
        let Some(network) = tables.network(binding.network) else { return false };
        if since(last_used, now) < network.timeouts.cool_down {
            return false;
        }
    }
    // From here on no connection can join it.
    if !binding.connections.replace(0, DEAD) {
        return false;
    }
    binding.last_used.store(0);
    nat::end_binding(tables, u32::from(binding.guest_vport));
    pairs::remove(tables.bindings(), index, now);
    true
}

/// Forgets a fragmented datagram that has had its time.
#[inline(always)]
pub fn expire_fragment<T: Tables>(tables: &T, key: &FragmentKey, mode: Mode, now: Seconds) -> bool {
    nat::expire_fragment(tables, key, fragment_timeout(tables, key.network, mode), now)
}

/// Drops a fragment whose datagram's first one did not come in time.
#[inline(always)]
pub fn expire_held<T: Tables>(tables: &T, key: &HeldKey, mode: Mode, now: Seconds) -> bool {
    nat::expire_held(tables, key, fragment_timeout(tables, key.datagram.network, mode), now)
}

#[inline(always)]
fn fragment_timeout<T: Tables>(tables: &T, network: NetworkId, mode: Mode) -> Seconds {
    match tables.network(network) {
        _ if mode != Mode::Expired => 0,
        Some(network) if network.mode().is_some() => network.timeouts.fragment,
        _ => OUTSIDE_TIMEOUT,
    }
}

/// Removes an FDB entry that has aged out, or any if `mode` says so.
#[inline(always)]
pub fn expire_fdb<T: Tables>(tables: &T, key: &FdbKey, mode: Mode, now: Seconds) -> bool {
    let Some(entry) = tables.fdb().lookup(key) else { return false };
    if mode == Mode::Expired {
        let Some(network) = tables.network(key.network) else { return false };
        if !entry.is_expired(now, network.ageing) {
            return false;
        }
    }
    tables.fdb().remove(key)
}
