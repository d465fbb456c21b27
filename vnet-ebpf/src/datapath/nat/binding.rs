//! Bindings: one inside address:port keeps one outside address:port, whatever it talks to
//! (endpoint-independent mapping, RFC 4787 REQ-1).
//!
//! The external entry is claimed first; the internal one follows. Whoever loses a race uses the
//! winner's. `connections` on the internal entry counts users; taking it from 0 to `DEAD` is the only
//! way to end a binding, so none ends under a connection that is just beginning.

use vnet_common::{
    Be16, DropReason, Ip, Seconds, Word,
    config::{NetworkId, OUTSIDE},
    nat::{BindingEntry, BindingKey, DEAD},
    vport::UNTAGGED,
};

use super::port_alloc::{self, MAX_PROBES};
use crate::tables::{InsertError, Table, Tables};

/// One side of a binding.
#[inline(always)]
pub const fn key(address: Ip, port: Be16, network: NetworkId, protocol: u8) -> BindingKey {
    BindingKey { address, port, network, vlan: UNTAGGED, protocol, pad: 0 }
}

#[inline(always)]
const fn entry(address: Ip, port: Be16, network: NetworkId, connections: u32, now: Seconds) -> BindingEntry {
    BindingEntry {
        address,
        port,
        network,
        vlan: UNTAGGED,
        pad: [0; 2],
        connections: Word::new(connections),
        last_used: Word::new(now),
    }
}

/// What a binding is wanted for.
#[repr(C)]
pub struct BindingRequest {
    pub internal: BindingKey,
    /// The outside address to show.
    pub external: Ip,
    /// External ports to choose from, both included.
    pub first: u16,
    pub last: u16,
    pub now: Seconds,
    pub random: u32,
}

/// The external port for the internal side of `request`, counted as used by one more connection.
///
/// A function of its own: its keys and entries would not fit on the caller's stack.
#[inline(never)]
pub fn acquire<T: Tables>(tables: &T, request: &BindingRequest) -> Result<Be16, DropReason> {
    let BindingRequest { internal, external, now, .. } = request;
    if let Some(port) = join(tables, internal, *external, *now)? {
        return Ok(port);
    }
    let external_port = claim(tables, request)?;
    match tables.bindings().insert(internal, &entry(*external, external_port, OUTSIDE, 1, *now)) {
        Ok(()) => Ok(external_port),
        Err(error) => {
            tables.bindings().remove(&key(*external, external_port, OUTSIDE, internal.protocol));
            if error == InsertError::Full {
                return Err(DropReason::TableFull);
            }
            join(tables, internal, *external, *now)?.ok_or(DropReason::BindingEnding)
        }
    }
}

/// Uses a binding that stands; `None` where there is none for this outside address.
#[inline(always)]
fn join<T: Tables>(tables: &T, internal: &BindingKey, external: Ip, now: Seconds) -> Result<Option<Be16>, DropReason> {
    let Some(binding) = tables.bindings().lookup(internal) else { return Ok(None) };
    if binding.connections.add(1) >= DEAD {
        return Err(DropReason::BindingEnding);
    }
    if binding.address != external {
        // The outside address changed under it: it ends with its connections.
        binding.connections.subtract(1);
        return Err(DropReason::BindingEnding);
    }
    binding.last_used.store(now);
    Ok(Some(binding.port))
}

/// Takes possession of a free external port.
#[inline(always)]
fn claim<T: Tables>(tables: &T, request: &BindingRequest) -> Result<Be16, DropReason> {
    let BindingRequest { internal, external, first, last, now, random } = request;
    let mut key = key(*external, Be16::ZERO, OUTSIDE, internal.protocol);
    let owner = entry(internal.address, internal.port, internal.network, 0, *now);
    for probe in 0..MAX_PROBES {
        key.port = port_alloc::candidate(probe, internal.port, *first, *last, *random);
        match tables.bindings().insert(&key, &owner) {
            Ok(()) => return Ok(key.port),
            Err(InsertError::Exists) => {}
            Err(InsertError::Full) => return Err(DropReason::TableFull),
        }
    }
    Err(DropReason::PortsExhausted)
}

/// One connection less on the binding of this internal side.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, internal: &BindingKey, now: Seconds) {
    if let Some(binding) = tables.bindings().lookup(internal) {
        binding.last_used.store(now);
        binding.connections.subtract(1);
    }
}
