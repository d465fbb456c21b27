//! Forward: packets between a network and the world, and to the host's own addresses.

use vnet_common::{
    DropReason,
    config::{NetworkEntry, NetworkId, NetworkMode, OUTSIDE},
    flow::{Endpoints, FlowKey},
    vport::{UNTAGGED, VportEntry, VportId},
};

use super::{
    Home, Outcome, Verdict, Work, bridge,
    conntrack::{self, Known},
    nat::{self, Fragment},
    parse::{self, Ethernet, Packet, Ports},
    way::{self, Link, NextHop},
};
use crate::{
    context::Frame,
    tables::Tables,
    wire::{ethernet, ipv4},
};

/// From a guest to the gateway's MAC address.
#[inline(always)]
pub fn from_guest<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    home: &Home<'_>,
    eth: &Ethernet,
    from_vport: VportId,
) -> Outcome {
    if eth.vlan != UNTAGGED {
        return Err(DropReason::VlanNotRouted);
    }
    let network = home.network;
    if eth.ether_type != ethernet::IPV4 {
        return if F::COMPLETE { bridge::deliver(frame, tables, network.gateway_vport) } else { Ok(Verdict::PassUp) };
    }
    let mut work = tables.work().ok_or(DropReason::RewriteFailed)?;
    let work = &mut *work;
    parse::parse_ipv4(frame, eth.payload, &mut work.packet)?;
    if work.packet.is_fragment {
        match gather_from_guest(frame, tables, home, work, from_vport)? {
            Fragment::GoesOn => {}
            Fragment::Kept => return Ok(Verdict::Kept),
            Fragment::ToHost => return bridge::deliver(frame, tables, network.gateway_vport),
        }
    }
    // Routed networks have flows too: those of their forwards.
    if network.mode().is_some_and(NetworkMode::is_routed_outside) {
        match known(frame, tables, work, home.id)? {
            Known::Nothing => {}
            known => return send_known(frame, tables, work, known),
        }
    }
    if !F::COMPLETE {
        return Ok(Verdict::PassUp);
    }
    if tables.is_local(&work.packet.dst) || tables.external_network(&work.packet.dst).is_some() {
        return to_own_address(frame, tables, home, work, &nat::Opener { home: Some(home), from_vport, mac: eth.src });
    }
    check_outbound(&work.packet, network)?;
    way::to_outside(frame, tables, home, work)?;
    if network.mode() == Some(NetworkMode::Routed) {
        return route_untranslated(frame, tables, work);
    }
    let opener = nat::Opener { home: Some(home), from_vport, mac: eth.src };
    nat::create_outbound(frame, tables, work, home, &opener)?;
    translate(frame, tables, work)
}

/// From a guest to an address of the host or of a pool: to what that stands for (hairpin, RFC 4787 REQ-9),
/// else to the host.
#[inline(always)]
fn to_own_address<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    home: &Home<'_>,
    work: &mut Work,
    opener: &nat::Opener<'_>,
) -> Outcome {
    let network = home.network;
    if network.mode().is_some_and(NetworkMode::is_routed_outside) {
        // What listens on any address leaves the gateway's own services alone.
        nat::find_target(tables, work, !network.is_gateway_address(&work.packet.dst));
        if work.target.is_somebody() && nat::create_to_target(frame, tables, work, opener)? {
            return translate(frame, tables, work);
        }
    }
    if work.packet.is_fragment {
        nat::note_to_host(tables, work);
    }
    bridge::deliver(frame, tables, network.gateway_vport)
}

/// What is known of a packet, or of the one that it reports an error about.
#[inline(always)]
fn known<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from: NetworkId,
) -> Result<Known, DropReason> {
    if work.packet.is_icmp_error {
        nat::find_reported(frame, tables, work, from)
    } else {
        conntrack::established(frame, tables, work, from)
    }
}

/// Finds out what a guest's fragment belongs to. Those of routed networks that belong to no connection need not
/// wait: they are not translated.
#[inline(always)]
fn gather_from_guest<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    home: &Home<'_>,
    work: &mut Work,
    from_vport: VportId,
) -> Result<Fragment, DropReason> {
    // XDP passes up what has no ports.
    if !F::COMPLETE || !home.network.mode().is_some_and(NetworkMode::is_routed_outside) {
        return Ok(Fragment::GoesOn);
    }
    let may_wait = home.network.mode() == Some(NetworkMode::Nat) && home.network.holds(&work.packet.src);
    nat::gather_fragment(frame, tables, work, nat::Origin { network: home.id, vport: from_vport, may_wait })
}

/// Sends a packet of a known connection on its way.
#[inline(always)]
fn send_known<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work, known: Known) -> Outcome {
    match known {
        Known::Decided => {}
        // XDP has no routes: an undecided way is not for it either.
        Known::Nothing | Known::PassUp => return Ok(Verdict::PassUp),
        Known::Undecided { .. } if !F::COMPLETE => return Ok(Verdict::PassUp),
        Known::Undecided { network: id, goes_outside } => {
            let network = tables.network(id).ok_or(DropReason::NoNetwork)?;
            let home = Home { id, network: &network };
            // Before the question: a change that comes in between makes the answer stale at once.
            let generation = network.generation.load();
            if goes_outside {
                way::to_outside(frame, tables, &home, work)?;
            } else {
                way::to_guest(frame, tables, &home, work, work.translation.dst)?;
            }
            conntrack::keep_decision(frame, tables, work, generation);
        }
    }
    translate(frame, tables, work)
}

/// Turns the packet into `work.translation` and sends it to `work.next_hop`.
#[inline(never)]
fn translate<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &Work) -> Outcome {
    let vport = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    // Before anything is written: at XDP, where GSO frames look too long, an error leaves the frame to TC.
    check_packet_mtu(frame, &work.packet, &vport)?;
    if work.packet.is_icmp_error {
        nat::rewrite_quotation(frame, &work.packet, &work.quotation)?;
        nat::rewrite_addresses(frame, &work.packet, &work.translation)?;
    } else {
        nat::clamp_mss(frame, tables, &work.packet, vport.mtu)?;
        nat::rewrite(frame, &work.packet, &work.translation)?;
    }
    leave(frame, tables, &work.next_hop)
}

/// Refuses what must not leave a network.
#[inline(never)]
fn check_outbound(packet: &Packet, network: &NetworkEntry) -> Result<(), DropReason> {
    if ipv4::is_unroutable(packet.dst.v4_raw()) {
        return Err(DropReason::MulticastNotRouted);
    }
    if !network.holds(&packet.src) {
        return Err(DropReason::ForeignSource);
    }
    if network.holds(&packet.dst) {
        return Err(DropReason::GuestsApart);
    }
    if !network.mode().is_some_and(NetworkMode::is_routed_outside) {
        return Err(DropReason::OutsideRefused);
    }
    if packet.ttl <= 1 { Err(DropReason::TtlExceeded) } else { Ok(()) }
}

/// From the outside to an uplink's MAC address.
#[inline(always)]
pub fn from_outside<F: Frame, T: Tables>(frame: &mut F, tables: &T, from_vport: VportId, eth: &Ethernet) -> Outcome {
    let mut work = tables.work().ok_or(DropReason::RewriteFailed)?;
    let work = &mut *work;
    if parse::parse_ipv4(frame, eth.payload, &mut work.packet).is_err() {
        return Ok(if F::COMPLETE { Verdict::ToHost } else { Verdict::PassUp });
    }
    if F::COMPLETE && work.packet.is_fragment {
        match gather_from_outside(frame, tables, work, from_vport) {
            Fragment::GoesOn => {}
            Fragment::Kept => return Ok(Verdict::Kept),
            Fragment::ToHost => return Ok(Verdict::ToHost),
        }
    }
    let outcome = to_inside(frame, tables, work, from_vport, eth);
    if outcome == Ok(Verdict::ToHost) && work.packet.is_fragment {
        nat::note_to_host(tables, work);
    }
    outcome
}

/// Finds out what a fragment from the outside belongs to. Where that cannot be, the host shall see it.
#[inline(always)]
fn gather_from_outside<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from_vport: VportId,
) -> Fragment {
    let may_wait = tables.is_local(&work.packet.dst) || tables.external_network(&work.packet.dst).is_some();
    let origin = nat::Origin { network: OUTSIDE, vport: from_vport, may_wait };
    nat::gather_fragment(frame, tables, work, origin).unwrap_or(Fragment::ToHost)
}

/// A packet from the outside: of a connection, for a forward or a guest's port, for a routed subnet.
#[inline(always)]
fn to_inside<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    work: &mut Work,
    from_vport: VportId,
    eth: &Ethernet,
) -> Outcome {
    match known(frame, tables, work, OUTSIDE)? {
        Known::Nothing if !F::COMPLETE => return Ok(Verdict::PassUp),
        Known::Nothing => {}
        known => return send_known(frame, tables, work, known),
    }
    nat::find_target(tables, work, true);
    if work.target.is_somebody() {
        let opener = nat::Opener { home: None, from_vport, mac: eth.src };
        return match nat::create_to_target(frame, tables, work, &opener)? {
            true => translate(frame, tables, work),
            false => Ok(Verdict::ToHost),
        };
    }
    to_routed_subnet(frame, tables, work, from_vport)
}

/// A packet for a routed network that this uplink serves.
#[inline(always)]
fn to_routed_subnet<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work, from_vport: VportId) -> Outcome {
    let Some(id) = tables.routed_network(&work.packet.dst) else { return Ok(Verdict::ToHost) };
    let Some(network) = tables.network(id) else { return Ok(Verdict::ToHost) };
    // The gateway's own addresses lie in the subnet too.
    let is_for_guest = network.mode() == Some(NetworkMode::Routed)
        && network.has_uplink(from_vport)
        && !tables.is_local(&work.packet.dst);
    if !is_for_guest {
        return Ok(Verdict::ToHost);
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let guest = work.packet.dst;
    way::to_guest(frame, tables, &Home { id, network: &network }, work, guest.v4_raw())?;
    route_untranslated(frame, tables, work)
}

/// The key under which a packet's connection is found.
#[inline(always)]
pub const fn flow_key(packet: &Packet, ports: &Ports, network: NetworkId) -> FlowKey {
    let ends =
        Endpoints { src: packet.src.v4_raw(), dst: packet.dst.v4_raw(), src_port: ports.src, dst_port: ports.dst };
    FlowKey::new(ends, network, packet.protocol)
}

/// Routes without translation: MTU, TTL, link addresses.
#[inline(always)]
fn route_untranslated<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &Work) -> Outcome {
    let vport = tables.vport(work.next_hop.to_vport).ok_or(DropReason::PortAbsent)?;
    check_packet_mtu(frame, &work.packet, &vport)?;
    nat::clamp_mss(frame, tables, &work.packet, vport.mtu)?;
    nat::rewrite_ttl(frame, &work.packet)?;
    leave(frame, tables, &work.next_hop)
}

/// Refuses a packet that the device would not send.
#[inline(always)]
pub fn check_packet_mtu<F: Frame>(frame: &F, packet: &Packet, vport: &VportEntry) -> Result<(), DropReason> {
    bridge::check_mtu(frame, ethernet::IPV4, packet.l3, vport)
}

/// Writes the link addresses and sends.
#[inline(always)]
fn leave<F: Frame, T: Tables>(frame: &mut F, tables: &T, next_hop: &NextHop) -> Outcome {
    let NextHop { to_vport, ifindex, side, link } = *next_hop;
    tables.count_sent(to_vport, frame.len());
    match link {
        Link::Resolved { dst, src } => {
            frame.write(ethernet::ADDRESSES, ethernet::addresses(dst, src))?;
            frame.redirect(ifindex, side);
        }
        Link::Unresolved { next_hop } => frame.resolve(ifindex, next_hop),
    }
    Ok(Verdict::Sent)
}
