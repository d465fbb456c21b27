//! Socket: what the host's own processes ask for, when they ask one of the host's addresses.
//!
//! A forward's guest is put in the place of the address that is asked for, in the call itself: the kernel then
//! routes out of `vn-NAME` with the gateway's address as the source, as for any connection between host and
//! guest. No packet is translated, no connection tracked. What was asked for is kept with the socket, and that
//! is what getpeername and recvmsg show.
//!
//! Leaves out SCTP, whose calls the kernel shows to nobody, and sockets bound to a loopback address, whose
//! packets cannot leave the host.

use vnet_common::{
    Ip,
    forward::{ForwardKey, LOOPBACK},
    socket::Endpoint,
};

use crate::{context::socket::SocketCall, tables::Tables};

/// What "this host" means to connect and sendmsg (`INADDR_ANY` as a destination).
const LOCALHOST: Ip = Ip::from_v4_raw(u32::from_ne_bytes([127, 0, 0, 1]));
const THIS_HOST: Ip = Ip::from_v4_raw(0);

/// connect: leads to the guest where a forward says so.
#[inline(always)]
pub fn connect<C: SocketCall, T: Tables>(call: &mut C, tables: &T) {
    if call.is_here() && !lead_to_guest(call, tables) {
        forget(call);
    }
}

/// sendmsg with an address: the same for one datagram.
#[inline(always)]
pub fn send<C: SocketCall, T: Tables>(call: &mut C, tables: &T) {
    // What an IPv6 socket that is connected to a mapped address sends comes here as if it named its peer each
    // time (`udpv6_sendmsg()`): the peer is the guest then, and was not asked for.
    if call.is_here() && !lead_to_guest(call, tables) && !call.is_connected() {
        forget(call);
    }
}

/// True where a forward leads to a guest, and the call now does.
#[inline(always)]
fn lead_to_guest<C: SocketCall, T: Tables>(call: &mut C, tables: &T) -> bool {
    let mut asked = call.peer();
    if asked.address == THIS_HOST {
        asked.address = LOCALHOST;
    }
    let Some(guest) = lookup_guest(call, tables, &asked) else { return false };
    if let Some(detours) = call.detours(true) {
        detours.remember(guest, asked);
    }
    call.set_peer(guest);
    true
}

/// The socket asks for the peer itself, which it may have been led to before.
#[inline(always)]
fn forget<C: SocketCall>(call: &mut C) {
    let peer = call.peer();
    if let Some(detours) = call.detours(false) {
        detours.forget(&peer);
    }
}

/// recvmsg and getpeername: shows what was asked for, where the socket was led to the peer by a forward.
#[inline(always)]
pub fn show_asked<C: SocketCall>(call: &mut C) {
    if !call.is_here() {
        return;
    }
    let peer = call.peer();
    let Some(detours) = call.detours(false) else { return };
    if let Some(asked) = detours.asked(&peer) {
        call.set_peer(asked);
    }
}

/// The guest behind the forward that is asked for: of the very address first, then of "any".
#[inline(always)]
fn lookup_guest<C: SocketCall, T: Tables>(call: &C, tables: &T, asked: &Endpoint) -> Option<Endpoint> {
    let is_loopback = asked.address.is_v4_loopback();
    if !is_loopback && !tables.is_local(&asked.address) {
        return None;
    }
    let key = |address| ForwardKey::new(address, asked.port, call.protocol());
    let forward = match tables.forward(&key(asked.address)) {
        Some(forward) => forward,
        None => tables.forward(&key(Ip::UNSPECIFIED))?,
    };
    let is_meant = !is_loopback || forward.flags & LOOPBACK != 0;
    if !is_meant || forward.target.is_v4() != asked.address.is_v4() || call.local_address().is_v4_loopback() {
        return None;
    }
    Some(Endpoint::new(forward.target, forward.port))
}
