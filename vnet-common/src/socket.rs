//! Sockets of the host that go through a forward.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Ip};

/// An address and a port, as a socket names its peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Endpoint {
    pub address: Ip,
    pub port: Be16,
    pub pad: u16,
}

impl Endpoint {
    /// Nobody: what an unused [`Detour`] holds.
    pub const NONE: Self = Self::new(Ip::UNSPECIFIED, Be16::ZERO);

    #[inline(always)]
    pub const fn new(address: Ip, port: Be16) -> Self {
        Self { address, port, pad: 0 }
    }
}

/// Whom a socket asked for, and the guest that it was led to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Detour {
    pub guest: Endpoint,
    pub asked: Endpoint,
}

/// Guests that one socket keeps apart. A connected socket has one; a UDP socket that writes to more of them by
/// turns is shown the guest's own address in answers of the one that it has forgotten.
pub const MAX_DETOURS: usize = 8;

/// Value of `DETOURS`, one a socket; all zero: none yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Detours {
    pub ways: [Detour; MAX_DETOURS],
    /// How many were put in; the next takes the place of the oldest.
    pub count: u32,
}

impl Detours {
    pub const NONE: Self =
        Self { ways: [Detour { guest: Endpoint::NONE, asked: Endpoint::NONE }; MAX_DETOURS], count: 0 };

    /// What was asked for when the socket was led to `guest`.
    #[inline(always)]
    pub fn asked(&self, guest: &Endpoint) -> Option<Endpoint> {
        self.ways.iter().find(|way| way.guest == *guest).map(|way| way.asked)
    }

    #[inline(always)]
    pub fn remember(&mut self, guest: Endpoint, asked: Endpoint) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.guest == guest) {
            way.asked = asked;
            return;
        }
        if let Some(way) = self.ways.get_mut(self.count as usize % MAX_DETOURS) {
            *way = Detour { guest, asked };
        }
        self.count = self.count.wrapping_add(1);
    }

    /// The socket asks for the guest itself.
    #[inline(always)]
    pub fn forget(&mut self, guest: &Endpoint) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.guest == *guest) {
            *way = Detour { guest: Endpoint::NONE, asked: Endpoint::NONE };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn endpoint(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Ipv4Addr::new(10, 0, 0, last).into(), Be16::new(port))
    }

    #[test]
    fn a_socket_remembers_the_last_guests_it_was_led_to() {
        let mut detours = Detours::NONE;
        for guest in 1..=9 {
            detours.remember(endpoint(guest, 80), endpoint(200, guest.into()));
        }
        assert_eq!(detours.asked(&endpoint(1, 80)), None, "the oldest has made room");
        for guest in 2..=9 {
            assert_eq!(detours.asked(&endpoint(guest, 80)), Some(endpoint(200, guest.into())));
        }
        assert_eq!(detours.asked(&endpoint(9, 81)), None);
    }

    #[test]
    fn a_guest_asked_for_again_takes_no_second_place() {
        let mut detours = Detours::NONE;
        detours.remember(endpoint(1, 80), endpoint(200, 1));
        for port in 0..20 {
            detours.remember(endpoint(2, 80), endpoint(200, port));
        }
        assert_eq!(detours.asked(&endpoint(1, 80)), Some(endpoint(200, 1)));
        assert_eq!(detours.asked(&endpoint(2, 80)), Some(endpoint(200, 19)));
        detours.forget(&endpoint(2, 80));
        assert_eq!(detours.asked(&endpoint(2, 80)), None);
    }
}
