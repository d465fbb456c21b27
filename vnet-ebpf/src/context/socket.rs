//! A socket call that names an address, behind a trait: what [`crate::context::Frame`] is for frames.

use vnet_common::{
    Ip,
    socket::{Detours, Endpoint},
};

/// A call of connect, sendmsg, recvmsg or getpeername.
pub trait SocketCall {
    /// True for a socket of the network namespace that vnet works on.
    fn is_here(&self) -> bool;

    /// IP protocol number.
    fn protocol(&self) -> u8;

    /// The IPv4 address that the socket is bound to, unspecified where it is bound to none.
    fn local_address(&self) -> Ip;

    /// True for a socket that is connected already.
    fn is_connected(&self) -> bool;

    /// The peer that the caller names, or is told.
    fn peer(&self) -> Endpoint;

    /// Puts another one in its place, of the same family.
    fn set_peer(&mut self, peer: Endpoint);

    /// Lends what is kept with the socket; where nothing is, begins to keep it if `begin` says so. `None`:
    /// nothing is kept, or there is no memory.
    fn detours(&mut self, begin: bool) -> Option<&mut Detours>;
}
