//! Expiry: the daemon names candidates, these decide and delete, in the kernel, so that an entry that
//! woke up in between lives on.

use vnet_common::{
    Seconds,
    config::OUTSIDE,
    fdb::FdbKey,
    flow::{Direction, FlowKey, ORIGIN_SNAT, idle},
    nat::{BindingKey, DEAD},
    stats::EventCount,
};

use super::nat;
use crate::tables::{Table, Tables};

/// Seconds that an unused binding stays, for the guest's next connection from the same port.
const BINDING_LINGER: Seconds = 2;

/// Ends the connection that `key` (either direction) belongs to, if it has expired or `force` says so.
#[inline(always)]
pub fn expire_flow<T: Tables>(tables: &T, key: &FlowKey, force: bool, now: Seconds) -> bool {
    let Some(flow) = tables.flows().lookup(key) else { return false };
    let partner_key = flow.partner_key(key.protocol);
    let partner = tables.flows().lookup(&partner_key);
    if !force {
        let Some(network) = tables.network(flow.network) else { return false };
        if !flow.is_expired(partner.as_deref(), key.protocol, &network.timeouts, now) {
            return false;
        }
    }
    // A word, not an `Option` of the key: kernels before 6.3 refuse to read its undefined half back
    // ("invalid read from stack").
    let holds_binding = flow.origin == ORIGIN_SNAT;
    let is_original = flow.direction == Direction::Original as u8;
    let (original_key, reply_key) = if is_original { (key, &partner_key) } else { (&partner_key, key) };
    // Only whoever removes the original entry gives the binding back, and each entry goes once.
    let had_reply = tables.flows().remove(reply_key);
    let had_original = tables.flows().remove(original_key);
    if had_original && holds_binding {
        nat::release_binding(tables, &internal_side(original_key), now);
    }
    if had_original || had_reply {
        tables.count_event(EventCount::ConnectionsExpired);
    }
    had_original || had_reply
}

/// The internal side of the binding that a guest's connection holds.
#[inline(always)]
const fn internal_side(original: &FlowKey) -> BindingKey {
    BindingKey {
        address: original.src,
        port: original.src_port,
        network: original.network,
        vlan: original.vlan,
        protocol: original.protocol,
        pad: 0,
    }
}

/// Ends the binding with this internal side if no connection uses it, and frees its port.
#[inline(always)]
pub fn expire_binding<T: Tables>(tables: &T, internal: &BindingKey, force: bool, now: Seconds) -> bool {
    if internal.network == OUTSIDE {
        // The external side goes with the internal one only: nobody counts its users.
        return false;
    }
    let Some(binding) = tables.bindings().lookup(internal) else { return false };
    if !force && idle(now, &binding.last_used) < BINDING_LINGER {
        return false;
    }
    // From here on no connection can join it.
    if !binding.connections.replace(0, DEAD) {
        return false;
    }
    let external = BindingKey {
        address: binding.address,
        port: binding.port,
        network: OUTSIDE,
        vlan: binding.vlan,
        protocol: internal.protocol,
        pad: 0,
    };
    let removed = tables.bindings().remove(internal);
    tables.bindings().remove(&external);
    removed
}

/// Removes an FDB entry that has aged out, or any if `force` says so.
#[inline(always)]
pub fn expire_fdb<T: Tables>(tables: &T, key: &FdbKey, force: bool, now: Seconds) -> bool {
    let Some(entry) = tables.fdb().lookup(key) else { return false };
    if !force {
        let Some(network) = tables.network(key.network) else { return false };
        if !entry.is_expired(now, network.ageing) {
            return false;
        }
    }
    tables.fdb().remove(key)
}
