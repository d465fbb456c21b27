//! A socket of plain memory: for tests.

use vnet_common::{
    Be16, Ip,
    socket::{Detours, Endpoint},
};

use super::socket::SocketCall;

/// A call on a socket; what is kept with the socket stays from call to call.
#[derive(Clone, Debug)]
pub struct MockSocket {
    pub is_here: bool,
    pub protocol: u8,
    pub local_address: Ip,
    pub is_connected: bool,
    pub peer: Endpoint,
    pub kept: Option<Detours>,
    /// Nothing more can be kept.
    pub no_memory: bool,
}

impl MockSocket {
    /// A socket of the host, bound to nothing.
    pub fn new(protocol: u8) -> Self {
        Self {
            is_here: true,
            protocol,
            local_address: Ip::from_v4_raw(0),
            is_connected: false,
            peer: Endpoint::new(Ip::UNSPECIFIED, Be16::ZERO),
            kept: None,
            no_memory: false,
        }
    }
}

impl SocketCall for MockSocket {
    fn is_here(&self) -> bool {
        self.is_here
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn local_address(&self) -> Ip {
        self.local_address
    }

    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn peer(&self) -> Endpoint {
        self.peer
    }

    fn set_peer(&mut self, peer: Endpoint) {
        self.peer = peer;
    }

    fn detours(&mut self, begin: bool) -> Option<&mut Detours> {
        if begin && self.kept.is_none() && !self.no_memory {
            self.kept = Some(Detours::NONE);
        }
        self.kept.as_mut()
    }
}
