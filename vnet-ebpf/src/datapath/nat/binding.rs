//! Bindings: one inside address:port keeps one outside address:port, whatever it talks to
//! (endpoint-independent mapping, RFC 4787 REQ-1), or one for each remote where the policy says so.
//!
//! The insert of a binding under its external side is the claim of the outside port. `connections` counts
//! users; taking it from 0 to `DEAD` is the only way to end a binding, so none ends under a connection that
//! is just beginning.

use vnet_common::{
    Be16, DropReason, Seconds,
    config::{Filtering, NatPolicy},
    nat::{Binding, BindingKey, DEAD, PeerKey},
    vport::VportId,
};

use super::{
    port_alloc::{self, Range},
    quota,
};
use crate::tables::{
    Table as _, Tables,
    pairs::{self, Inserted, Pairs},
};

/// What a binding is wanted for, and what came of it.
#[repr(C)]
pub struct BindingRequest {
    /// Filled but for its external port and what counts its use.
    pub binding: Binding,
    pub range: Range,
    pub guest: VportId,
    /// [`NatPolicy::guest_bindings`].
    pub limit: u32,
    pub now: Seconds,
    pub random: u32,
    /// The answer: the binding's record, and its external port.
    pub index: u32,
    pub external_port: Be16,
}

/// How often a binding is looked for and claimed while others take it and end it.
const TRIES: u32 = 3;

/// Joins the binding of `request`'s internal side, or makes one, counted as used by one more connection.
#[inline(never)]
pub fn acquire<T: Tables>(tables: &T, request: &mut BindingRequest) -> Result<(), DropReason> {
    for _ in 0..TRIES {
        if join(tables, request) {
            return Ok(());
        }
        quota::begin_binding(tables, request.guest, request.limit, request.binding.protocol, request.now)?;
        let claimed = claim(tables, request);
        if claimed == Ok(true) {
            return Ok(());
        }
        quota::end_binding(tables, request.guest);
        claimed?;
    }
    Err(DropReason::BindingEnding)
}

/// Uses a binding that stands. False where there is none.
#[inline(always)]
fn join<T: Tables>(tables: &T, request: &mut BindingRequest) -> bool {
    let key = request.binding.internal_key();
    let found = pairs::find_any(tables.bindings(), &key);
    if found.is_nothing() {
        return false;
    }
    let Some(binding) = tables.bindings().record(found.index()) else { return false };
    if binding.connections.add(1) >= DEAD {
        return false;
    }
    if !binding.is_internal(&key) {
        // It ended meanwhile, and its record is another one by now.
        binding.connections.subtract(1);
        return false;
    }
    binding.last_used.store(request.now);
    request.index = found.index();
    request.external_port = binding.external_port;
    true
}

/// Takes possession of a free external port. False where another CPU has just made this very binding.
#[inline(always)]
fn claim<T: Tables>(tables: &T, request: &mut BindingRequest) -> Result<bool, DropReason> {
    request.index = 0;
    let mut outcome = Attempt::Taken;
    tables.repeat(request.range.candidates(), |probe| {
        outcome = attempt(tables, request, probe);
        outcome == Attempt::Taken
    });
    match outcome {
        Attempt::Claimed => Ok(true),
        Attempt::Raced => Ok(false),
        Attempt::TableFull => Err(DropReason::TableFull),
        Attempt::Taken => {
            quota::note_exhausted(tables, request.guest, request.binding.protocol, request.now);
            Err(DropReason::PortsExhausted)
        }
    }
}

/// What came of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Claimed,
    /// The port is another binding's.
    Taken,
    /// The internal side has a binding by now.
    Raced,
    TableFull,
}

#[inline(never)]
fn attempt<T: Tables>(tables: &T, request: &mut BindingRequest, probe: u32) -> Attempt {
    let port = port_alloc::candidate(probe, request.binding.internal_port, request.range, request.random);
    request.binding.external_port = port;
    if !pairs::find_any(tables.bindings(), &request.binding.external_key()).is_nothing() {
        return Attempt::Taken;
    }
    let inserted = pairs::insert(tables.bindings(), &request.binding, request.now);
    if let Some(index) = inserted.index() {
        request.index = index;
        request.external_port = port;
        return Attempt::Claimed;
    }
    if inserted == Inserted::FULL {
        return Attempt::TableFull;
    }
    let is_mine = !pairs::find_any(tables.bindings(), &request.binding.internal_key()).is_nothing();
    if is_mine { Attempt::Raced } else { Attempt::Taken }
}

/// One connection less on a binding.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, index: u32, now: Seconds) {
    if let Some(binding) = tables.bindings().record(index) {
        binding.last_used.store(now);
        binding.connections.subtract(1);
    }
}

/// Counts one more connection on the binding of an external side, and returns its record; 0: none.
#[inline(always)]
pub fn join_external<T: Tables>(tables: &T, key: &BindingKey, now: Seconds) -> u32 {
    let found = pairs::find(tables.bindings(), key);
    if found.is_nothing() {
        return 0;
    }
    let Some(binding) = tables.bindings().record(found.index()) else { return 0 };
    if binding.connections.add(1) >= DEAD {
        return 0;
    }
    if !binding.is_external(key) {
        binding.connections.subtract(1);
        return 0;
    }
    binding.last_used.store(now);
    found.index()
}

/// Notes that the guest behind a binding sends to `remote` (raw IPv4), which may answer from any port.
#[inline(always)]
pub fn note_peer<T: Tables>(tables: &T, index: u32, remote: u32, policy: &NatPolicy, now: Seconds) {
    if policy.filtering != Filtering::Address as u8 {
        return;
    }
    let Some(binding) = tables.bindings().record(index) else { return };
    for peer in &binding.peers {
        let known = peer.load();
        if known == remote || (known == 0 && peer.replace(0, remote)) {
            return;
        }
    }
    let key = PeerKey { binding: index, created: binding.created.load(), remote };
    // It may stand already, and where there is no room the remote must wait for the guest's next packet.
    let _ = tables.peers().insert(&key, &now);
}

/// True where the policy lets `remote` (raw IPv4) open connections to a binding.
#[inline(always)]
pub fn admits<T: Tables>(tables: &T, index: u32, remote: u32, policy: &NatPolicy) -> bool {
    if policy.filtering != Filtering::Address as u8 {
        return policy.filtering == Filtering::EndpointIndependent as u8;
    }
    let Some(binding) = tables.bindings().record(index) else { return false };
    if binding.peers.iter().any(|peer| peer.load() == remote) {
        return true;
    }
    let key = PeerKey { binding: index, created: binding.created.load(), remote };
    tables.peers().lookup(&key).is_some()
}
