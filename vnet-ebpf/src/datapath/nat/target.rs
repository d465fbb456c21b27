//! Targets: what an outside address and port of ours stand for, a forward or a port that a guest holds.

use vnet_common::{
    Be16, Ip,
    config::NetworkId,
    conntrack::protocol,
    flow::{ORIGIN_BINDING, ORIGIN_FORWARD},
    forward::{ForwardEntry, ForwardKey},
    nat::{BindingKey, DEAD},
};

use crate::{
    datapath::Work,
    tables::{
        Tables,
        pairs::{self, Pairs as _},
    },
};

/// Who gets what is sent to an outside address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Raw IPv4.
    pub address: u32,
    pub port: Be16,
    pub network: NetworkId,
    /// The record in `BINDINGS`, under [`ORIGIN_BINDING`].
    pub binding: u32,
    /// [`ORIGIN_FORWARD`], [`ORIGIN_BINDING`], or 0: nobody.
    pub origin: u32,
}

impl Target {
    pub const NOBODY: Self = Self { address: 0, port: Be16::ZERO, network: 0, binding: 0, origin: 0 };

    #[inline(always)]
    pub const fn is_somebody(&self) -> bool {
        self.origin != 0
    }
}

/// Finds out whom the packet's destination stands for, into `work.target`. `any_address`: forwards that
/// listen on every address count too.
#[inline(never)]
pub fn find_target<T: Tables>(tables: &T, work: &mut Work, any_address: bool) {
    work.target = Target::NOBODY;
    let Some(ports) = work.packet.ports else { return };
    let packet = &work.packet;
    if let Some(forward) = lookup_forward(tables, &packet.dst, ports.dst, packet.protocol, any_address) {
        work.target = Target {
            address: forward.target.v4_raw(),
            port: forward.port,
            network: forward.network,
            binding: 0,
            origin: u32::from(ORIGIN_FORWARD),
        };
        return;
    }
    if packet.protocol == protocol::ICMP {
        // A query to an outside address is for the host; answers have their connections.
        return;
    }
    let key = BindingKey::external(packet.dst.v4_raw(), ports.dst, packet.protocol);
    let found = pairs::find(tables.bindings(), &key);
    if found.is_nothing() {
        return;
    }
    let Some(binding) = tables.bindings().record(found.index()) else { return };
    if matches!(binding.connections.load(), 0 | DEAD..) {
        // Its mapping has ended; the port cools down, for nobody but its own inside.
        return;
    }
    work.target = Target {
        address: binding.internal,
        port: binding.internal_port,
        network: binding.network,
        binding: found.index(),
        origin: u32::from(ORIGIN_BINDING),
    };
}

/// The forward of an address and port: that very address first, then "any".
#[inline(always)]
fn lookup_forward<T: Tables>(
    tables: &T,
    address: &Ip,
    port: Be16,
    protocol: u8,
    any_address: bool,
) -> Option<ForwardEntry> {
    if let Some(forward) = tables.forward(&ForwardKey::new(*address, port, protocol)) {
        return Some(*forward);
    }
    if !any_address {
        return None;
    }
    let forward = tables.forward(&ForwardKey::new(Ip::UNSPECIFIED, port, protocol))?;
    if tables.is_local(address) { Some(*forward) } else { None }
}
