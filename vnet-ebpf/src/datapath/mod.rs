//! The packet's path: one stage a file, the stage list on one screen.
//!
//! Entry functions, one a hook: [`port_ingress`], [`gateway_egress`], [`uplink_egress`]. Each frame ends
//! in exactly one [`Verdict`]; stages return `Result<_, DropReason>`, turned into a verdict once, here.

mod bridge;
mod conntrack;
mod error_budget;
pub mod expire;
mod forward;
mod guard;
mod icmp_reply;
mod nat;
mod parse;
mod path;
mod report;
mod responder;
pub mod socket;
mod way;
mod work;

use vnet_common::{
    DropReason,
    config::{NetworkEntry, NetworkId},
    vport::{UNTAGGED, VportEntry, VportId, VportRole},
};

pub use error_budget::{ErrorBudget, PER_SECOND};
pub use work::Work;

use crate::{
    context::{Frame, Side},
    datapath::{
        bridge::{Destination, Source},
        parse::Ethernet,
    },
    tables::Tables,
    wire::ethernet,
};

/// What happens to a frame that is not dropped. It carries nothing along: the frame itself knows where
/// it goes ([`Frame::redirect`]), and a half-defined payload is what LLVM and the verifier fall out over.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The device is no port of ours: other programs and the host go on.
    NotOurs,
    /// XDP only: left untouched for TC.
    PassUp,
    /// The host's own, on the device that it came in on (or goes out of).
    ToHost,
    /// On its way, out of a device or up the host's stack.
    Sent,
    /// Flooded: copies are on their way, the frame itself ends here.
    Flooded,
    /// A fragment that waits for its datagram's first one, or goes round once more with those that waited for
    /// it. It is counted when it comes again.
    Kept,
}

/// What a run comes to: a verdict, or the reason for which the frame is dropped. A dropped packet may have
/// become an ICMP error that tells its sender so: then the frame has a way to go all the same.
pub type Outcome = Result<Verdict, DropReason>;

/// The port that a frame is at.
struct Port<'a> {
    id: VportId,
    vport: &'a VportEntry,
}

/// A frame came in from a port's device (TC ingress and XDP).
#[inline(always)]
pub fn port_ingress<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let Some(id) = tables.vport_by_ifindex(frame.ifindex()) else { return Ok(Verdict::NotOurs) };
    let Some(vport) = tables.vport(id) else { return Ok(Verdict::NotOurs) };
    let Some(network) = tables.network(vport.network) else { return Ok(Verdict::NotOurs) };
    let port = Port { id, vport: &vport };
    let is_running = network.mode().is_some();
    // Taken first: the frame's bytes change, its length does not.
    let length = frame.len();
    let outcome = match port.vport.role() {
        Some(VportRole::Guest) if is_running => from_guest(frame, tables, &port, &network),
        Some(VportRole::Guest) => Err(DropReason::NoNetwork),
        Some(VportRole::BridgeUplink) if is_running => from_bridge_uplink(frame, tables, &port, &network),
        Some(VportRole::RoutedUplink) => from_routed_uplink(frame, tables, &port),
        _ => Ok(Verdict::NotOurs),
    };
    account::<F, T>(tables, id, length, outcome);
    outcome
}

/// The host sends into a network by `vn-NAME` (TC egress).
#[inline(always)]
pub fn gateway_egress<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let Some(id) = tables.vport_by_ifindex(frame.ifindex()) else { return Ok(Verdict::NotOurs) };
    let Some(vport) = tables.vport(id) else { return Ok(Verdict::NotOurs) };
    let length = frame.len();
    let outcome = match vport.role() {
        Some(VportRole::Gateway) => from_host(frame, tables, &Port { id, vport: &vport }),
        _ => Ok(Verdict::NotOurs),
    };
    account::<F, T>(tables, id, length, outcome);
    outcome
}

/// The host sends out of a bridge network's uplink (TC egress): guests are reached, the wire is too.
#[inline(always)]
pub fn uplink_egress<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    if frame.is_marked() {
        // A guest's frame on its way out, already decided and counted.
        frame.set_marked(false);
        return Ok(Verdict::NotOurs);
    }
    let Some(id) = tables.vport_by_ifindex(frame.ifindex()) else { return Ok(Verdict::NotOurs) };
    let Some(vport) = tables.vport(id) else { return Ok(Verdict::NotOurs) };
    let Some(network) = tables.network(vport.network) else { return Ok(Verdict::NotOurs) };
    if vport.role() != Some(VportRole::BridgeUplink) || network.mode().is_none() {
        return Ok(Verdict::NotOurs);
    }
    let Ok(eth) = parse::parse_ethernet(frame) else { return Ok(Verdict::ToHost) };
    if eth.dst.is_link_local_control() {
        return Ok(Verdict::ToHost);
    }
    match bridge::lookup(tables, vport.network, &eth) {
        Destination::Vport(to) if to != id => {
            let length = frame.len();
            let outcome = bridge::unicast(frame, tables, &eth, id, to);
            account::<F, T>(tables, id, length, outcome);
            outcome
        }
        Destination::Everyone => {
            // No guests is no drop here: the wire still gets it.
            let _ = bridge::flood(frame, tables, Source { network: vport.network, vport: id, is_guest: false }, &eth);
            Ok(Verdict::ToHost)
        }
        _ => Ok(Verdict::ToHost),
    }
}

/// Counts what came in, and why it was dropped. What XDP passes up is counted at TC.
#[inline(always)]
fn account<F: Frame, T: Tables>(tables: &T, from_vport: VportId, length: u32, outcome: Outcome) {
    match outcome {
        Ok(Verdict::NotOurs | Verdict::PassUp | Verdict::Kept) => return,
        Ok(_) => {}
        Err(_) if !F::COMPLETE => return,
        Err(reason) => tables.count_drop(from_vport, reason),
    }
    tables.count_received(from_vport, length);
}

/// From a guest: guard, learn, answer, then route or bridge.
#[inline(always)]
fn from_guest<F: Frame, T: Tables>(frame: &mut F, tables: &T, port: &Port<'_>, network: &NetworkEntry) -> Outcome {
    let eth = parse::parse_ethernet(frame)?;
    guard::check_guest_frame(&eth, network)?;
    let learned = bridge::learn(frame, tables, (port.vport.network, network), &eth, port.id);
    if !F::COMPLETE && learned == bridge::Learned::New {
        return Ok(Verdict::PassUp);
    }
    let is_arp = eth.ether_type == ethernet::ARP && eth.vlan == UNTAGGED;
    if F::COMPLETE && is_arp && responder::reply_arp(frame, &eth, network)? {
        return send_back(frame, tables, port.id);
    }
    if network.gateway_vport != 0 && eth.dst == network.gateway_mac {
        let home = Home { id: port.vport.network, network };
        let outcome = forward::from_guest(frame, tables, &home, &eth, port.id);
        return icmp_reply::with_reply(frame, tables, port.id, outcome);
    }
    switch(frame, tables, port, &eth)
}

/// Sends an answer, made of the frame itself, back out of the port.
#[inline(always)]
fn send_back<F: Frame, T: Tables>(frame: &mut F, tables: &T, port: VportId) -> Outcome {
    frame.redirect(frame.ifindex(), Side::Egress);
    tables.count_sent(port, frame.len());
    Ok(Verdict::Sent)
}

/// From the host's own leg: bridge only.
#[inline(always)]
fn from_host<F: Frame, T: Tables>(frame: &mut F, tables: &T, port: &Port<'_>) -> Outcome {
    let eth = parse::parse_ethernet(frame)?;
    switch(frame, tables, port, &eth)
}

/// Bridges a frame of the inside: to one port, to the host, or to everyone.
#[inline(always)]
fn switch<F: Frame, T: Tables>(frame: &mut F, tables: &T, port: &Port<'_>, eth: &Ethernet) -> Outcome {
    match bridge::lookup(tables, port.vport.network, eth) {
        Destination::Vport(to) => {
            if !F::COMPLETE && !accelerable(frame, tables, eth) {
                return Ok(Verdict::PassUp);
            }
            bridge::unicast(frame, tables, eth, port.id, to)
        }
        _ if !F::COMPLETE => Ok(Verdict::PassUp),
        Destination::Host(by) if by == port.id => Err(DropReason::SamePort),
        Destination::Host(by) => bridge::deliver(frame, tables, by),
        Destination::Everyone => {
            let is_guest = port.vport.role() == Some(VportRole::Guest);
            bridge::flood(frame, tables, Source { network: port.vport.network, vport: port.id, is_guest }, eth)?;
            Ok(Verdict::Flooded)
        }
    }
}

/// From the wire of a bridge network. What is not understood belongs to the host (law 9).
#[inline(always)]
fn from_bridge_uplink<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    port: &Port<'_>,
    network: &NetworkEntry,
) -> Outcome {
    if frame.is_marked() {
        // A guest's frame for the host, handed in by ourselves.
        frame.set_marked(false);
        return Ok(Verdict::NotOurs);
    }
    let pass_up = if F::COMPLETE { Verdict::ToHost } else { Verdict::PassUp };
    let Ok(eth) = parse::parse_ethernet(frame) else { return Ok(pass_up) };
    if eth.dst.is_link_local_control() || eth.src.is_group() || eth.src.is_zero() {
        return Ok(pass_up);
    }
    let learned = bridge::learn(frame, tables, (port.vport.network, network), &eth, port.id);
    if eth.dst == port.vport.mac {
        return Ok(pass_up);
    }
    match bridge::lookup(tables, port.vport.network, &eth) {
        Destination::Vport(to) if to != port.id => {
            if !F::COMPLETE && (learned == bridge::Learned::New || !accelerable(frame, tables, &eth)) {
                return Ok(Verdict::PassUp);
            }
            bridge::unicast(frame, tables, &eth, port.id, to)
        }
        Destination::Everyone if F::COMPLETE => {
            // The host takes part in the network on this very device; the kernel discards what is not
            // for it.
            let _ = bridge::flood(
                frame,
                tables,
                Source { network: port.vport.network, vport: port.id, is_guest: false },
                &eth,
            );
            Ok(Verdict::ToHost)
        }
        _ => Ok(pass_up),
    }
}

/// From the outside of nat and routed networks: flows, forwards, routed subnets; the rest is the host's.
#[inline(always)]
fn from_routed_uplink<F: Frame, T: Tables>(frame: &mut F, tables: &T, port: &Port<'_>) -> Outcome {
    let not_for_guests = if F::COMPLETE { Verdict::ToHost } else { Verdict::PassUp };
    let Ok(eth) = parse::parse_ethernet(frame) else { return Ok(not_for_guests) };
    let is_arp = eth.ether_type == ethernet::ARP && eth.vlan == UNTAGGED;
    if F::COMPLETE && is_arp && responder::reply_arp_for_pool(frame, tables, &eth, port.id)? {
        return send_back(frame, tables, port.id);
    }
    if eth.dst != port.vport.mac || eth.vlan != UNTAGGED || eth.ether_type != ethernet::IPV4 {
        return Ok(not_for_guests);
    }
    let outcome = forward::from_outside(frame, tables, port.id, &eth);
    icmp_reply::with_reply(frame, tables, port.id, outcome)
}

/// True where XDP, which sees no offload metadata, may send the frame on as it is: neither a partial
/// checksum nor a protocol that could hide one (law 3).
#[inline(always)]
fn accelerable<F: Frame, T: Tables>(frame: &F, tables: &T, eth: &Ethernet) -> bool {
    let Some(mut work) = tables.work() else { return false };
    eth.ether_type == ethernet::IPV4
        && parse::parse_ipv4(frame, eth.payload, &mut work.packet).is_ok()
        && !work.packet.is_fragment
        && !nat::is_partial(frame, &work.packet)
}

/// The network and its number, as stages pass them on.
#[derive(Clone, Copy)]
struct Home<'a> {
    id: NetworkId,
    network: &'a NetworkEntry,
}
