//! Ways: where a packet leaves, by the kernel's own routing and neighbour tables.

use vnet_common::{
    Be16, DropReason, Ip, Mac,
    fdb::FdbKey,
    vport::{UNTAGGED, VportId},
};

use super::{Home, Work, bridge};
use crate::{
    context::{Frame, Route, RouteQuery, Side},
    tables::{Table as _, Tables},
};

/// A way out, decided.
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    pub to_vport: VportId,
    pub ifindex: u32,
    pub side: Side,
    pub link: Link,
}

/// What is known of the next hop's link address.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    Resolved {
        dst: Mac,
        src: Mac,
    },
    /// The kernel finds it out and sends the frame.
    Unresolved {
        next_hop: Ip,
    },
}

/// Decides the packet's way from a network to the outside, into `work.next_hop`. Only the network's own
/// uplinks will do, so that no network reaches another by routing.
#[inline(never)]
pub fn to_outside<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    home: &Home<'_>,
    work: &mut Work,
) -> Result<(), DropReason> {
    let packet = &work.packet;
    work.query = RouteQuery {
        src: packet.src,
        dst: packet.dst,
        protocol: packet.protocol,
        tos: packet.tos,
        src_port: packet.ports.map_or(Be16::ZERO, |ports| ports.src),
        dst_port: packet.ports.map_or(Be16::ZERO, |ports| ports.dst),
        ifindex: gateway_ifindex(tables, home)?,
    };
    let (ifindex, link) = match frame.route(&work.query) {
        Route::Via { ifindex, src_mac, dst_mac } => (ifindex, Link::Resolved { dst: dst_mac, src: src_mac }),
        Route::Unresolved { ifindex, next_hop } => (ifindex, Link::Unresolved { next_hop }),
        Route::None => return Err(DropReason::NoRoute),
    };
    let to_vport = tables.vport_by_ifindex(ifindex).ok_or(DropReason::NotAnUplink)?;
    if !home.network.has_uplink(to_vport) {
        return Err(DropReason::NotAnUplink);
    }
    work.next_hop = NextHop { to_vport, ifindex, side: Side::Egress, link };
    Ok(())
}

/// Decides the way to a guest's address (raw IPv4), into `work.next_hop`: the kernel's neighbour table
/// has the MAC address, the FDB the port. Where either is missing, the frame goes by `vn-NAME` and the
/// kernel asks for it.
#[inline(never)]
pub fn to_guest<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    home: &Home<'_>,
    work: &mut Work,
    guest: u32,
) -> Result<(), DropReason> {
    let gateway = gateway_ifindex(tables, home)?;
    work.query = RouteQuery {
        src: Ip::from_v4_raw(0),
        dst: Ip::from_v4_raw(guest),
        protocol: 0,
        tos: 0,
        src_port: Be16::ZERO,
        dst_port: Be16::ZERO,
        ifindex: gateway,
    };
    work.next_hop = NextHop {
        to_vport: home.network.gateway_vport,
        ifindex: gateway,
        side: Side::Egress,
        link: Link::Unresolved { next_hop: work.query.dst },
    };
    let (src, dst) = match frame.route(&work.query) {
        Route::Via { ifindex, src_mac, dst_mac } if ifindex == gateway => (src_mac, dst_mac),
        Route::Unresolved { ifindex, .. } if ifindex == gateway => return Ok(()),
        _ => return Err(DropReason::NoRoute),
    };
    let Some(entry) = tables.fdb().lookup(&FdbKey::new(home.id, UNTAGGED, dst)) else { return Ok(()) };
    let to_vport = entry.vport();
    let vport = tables.vport(to_vport).ok_or(DropReason::PortAbsent)?;
    if vport.ifindex == 0 {
        return Err(DropReason::PortAbsent);
    }
    let side = bridge::way_out::<F>(&vport);
    work.next_hop = NextHop { to_vport, ifindex: vport.ifindex, side, link: Link::Resolved { dst, src } };
    Ok(())
}

/// The device that routing questions of a network are asked for.
#[inline(always)]
fn gateway_ifindex<T: Tables>(tables: &T, home: &Home<'_>) -> Result<u32, DropReason> {
    let gateway = tables.vport(home.network.gateway_vport).ok_or(DropReason::NoRoute)?;
    if gateway.ifindex == 0 { Err(DropReason::NoRoute) } else { Ok(gateway.ifindex) }
}
