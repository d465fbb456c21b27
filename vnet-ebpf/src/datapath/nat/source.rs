//! Sources: the outside address and port that a guest shows.

use vnet_common::{
    Be16, DropReason, Word,
    config::{Mapping, NatPolicy, NetworkMode},
    nat::Binding,
};

use super::{
    binding,
    connection::{Opener, release},
    port_alloc::Range,
};
use crate::{
    context::Frame,
    datapath::{Home, Work},
    tables::Tables,
};

/// The external address that a guest shows to another guest's target (RFC 4787 REQ-9: "external source IP
/// address and port"), raw; 0 where its own address stays: that of a routed network's guest.
#[inline(always)]
pub(super) fn hairpin_source<T: Tables>(tables: &T, work: &Work, opener: &Opener<'_>) -> u32 {
    let Some(home) = opener.home else { return 0 };
    if home.network.mode() != Some(NetworkMode::Nat) {
        return 0;
    }
    let mut own: u32 = 0;
    for uplink in home.network.uplinks {
        let Some(vport) = tables.vport(uplink) else { continue };
        let address = vport.external.v4_raw();
        if uplink != 0 && address != 0 && (own == 0 || address == work.packet.dst.v4_raw()) {
            own = address;
        }
    }
    external_address(&home.network.nat, if own == 0 { work.packet.dst.v4_raw() } else { own }, work.packet.src.v4_raw())
}

/// The address that a guest shows: always the same one of the pool (paired pooling, RFC 4787 REQ-2), or the
/// uplink's own.
#[inline(always)]
pub(super) fn external_address(policy: &NatPolicy, uplink: u32, guest: u32) -> u32 {
    if policy.first_address.is_unspecified() {
        return uplink;
    }
    let (first, last) = (u32::from_be(policy.first_address.v4_raw()), u32::from_be(policy.last_address.v4_raw()));
    let size = last.wrapping_sub(first).wrapping_add(1);
    let choice = u32::from_be(guest).checked_rem(size).unwrap_or(0);
    first.wrapping_add(choice).to_be()
}

/// Gives the packet's source the external address of `work.translation` and a port of it. What was taken
/// is given back on failure.
#[inline(never)]
pub(super) fn translate_source<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    work: &mut Work,
    home: &Home<'_>,
) -> Result<(), DropReason> {
    let now = frame.now();
    let policy = &home.network.nat;
    fill_request(work, home, now);
    work.request.random = frame.random();
    if let Err(reason) = binding::acquire(tables, &mut work.request) {
        release(tables, work, now);
        return Err(reason);
    }
    work.opening.source_binding = work.request.index;
    work.translation.src_port = work.request.external_port;
    binding::note_peer(tables, work.request.index, work.packet.dst.v4_raw(), policy, now);
    Ok(())
}

#[inline(always)]
fn fill_request(work: &mut Work, home: &Home<'_>, now: u32) {
    let policy = &home.network.nat;
    let is_dependent = policy.mapping == Mapping::EndpointDependent as u8;
    let Work { packet, translation, opening, request, .. } = work;
    let binding: &mut Binding = &mut request.binding;
    binding.internal = packet.src.v4_raw();
    binding.external = translation.src;
    binding.remote = if is_dependent { packet.dst.v4_raw() } else { 0 };
    binding.remote_port = if is_dependent { packet.ports.map_or(Be16::ZERO, |ports| ports.dst) } else { Be16::ZERO };
    binding.internal_port = translation.src_port;
    binding.external_port = Be16::ZERO;
    binding.network = home.id;
    binding.protocol = packet.protocol;
    binding.pad = 0;
    binding.guest_vport = opening.guest as u16;
    binding.connections = Word::new(1);
    binding.last_used = Word::new(now);
    binding.created = Word::new(now);
    for peer in &binding.peers {
        peer.store(0);
    }
    binding.pad2 = 0;
    request.range = Range { first: policy.first_port, last: policy.last_port };
    request.guest = opening.guest;
    request.limit = policy.guest_bindings;
    request.now = now;
}
