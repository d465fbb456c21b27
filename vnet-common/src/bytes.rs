//! Values whose byte order matters.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit integer in network byte order, as it stands in a header.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Be16(u16);

impl Be16 {
    pub const ZERO: Self = Self(0);

    /// From a number in host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the two bytes as they stand in the header.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The word as it lies in memory, for checksum arithmetic (which does not depend on byte order).
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// An IP address: IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// The words are in network byte order. One type for both families keeps every table and every stage
/// family-neutral; only parsing and rewriting look at the family.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ip([u32; 4]);

/// Third word of an IPv4-mapped address.
const V4_PREFIX: u32 = 0x0000_ffff_u32.to_be();

impl Ip {
    /// `::`, used where "any address" is meant.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// From an IPv4 address as the word that lies in the header.
    #[inline(always)]
    pub const fn from_v4_raw(raw: u32) -> Self {
        Self([0, 0, V4_PREFIX, raw])
    }

    /// From an IPv6 address as the words that lie in the header.
    #[inline(always)]
    pub const fn from_v6_raw(raw: [u32; 4]) -> Self {
        Self(raw)
    }

    /// True for IPv4-mapped addresses.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == V4_PREFIX
    }

    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 0
    }

    /// True within 127.0.0.0/8, which never leaves a host (RFC 1122 section 3.2.1.3).
    #[inline(always)]
    pub const fn is_v4_loopback(&self) -> bool {
        self.is_v4() && u32::from_be(self.0[3]) >> 24 == 127
    }

    /// The IPv4 word as it lies in a header (the last word, whatever the family).
    #[inline(always)]
    pub const fn v4_raw(&self) -> u32 {
        self.0[3]
    }

    /// The four words as they lie in an IPv6 header.
    #[inline(always)]
    pub const fn v6_raw(&self) -> [u32; 4] {
        self.0
    }

    /// True where the first `length` bits of both agree (IPv4 prefixes count from bit 96).
    #[inline(always)]
    pub fn in_prefix(&self, prefix: &Self, length: u8) -> bool {
        let mut left = length as u32;
        let mut word = 0;
        while word < 4 {
            let mask = match left {
                0 => 0,
                32.. => u32::MAX,
                n => (u32::MAX << (32 - n)).to_be(),
            };
            let (a, b) = match word {
                0 => (self.0[0], prefix.0[0]),
                1 => (self.0[1], prefix.0[1]),
                2 => (self.0[2], prefix.0[2]),
                _ => (self.0[3], prefix.0[3]),
            };
            if (a ^ b) & mask != 0 {
                return false;
            }
            left = left.saturating_sub(32);
            word += 1;
        }
        true
    }
}

impl From<Ipv4Addr> for Ip {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4_raw(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv6Addr> for Ip {
    fn from(address: Ipv6Addr) -> Self {
        let bytes = address.octets();
        let mut words = [0; 4];
        for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*four);
        }
        Self(words)
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        if ip.is_v4() {
            return Self::V4(Ipv4Addr::from(ip.0[3].to_ne_bytes()));
        }
        let mut bytes = [0; 16];
        for (four, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ip.0) {
            *four = word.to_ne_bytes();
        }
        Self::V6(Ipv6Addr::from(bytes))
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// An Ethernet address.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const ZERO: Self = Self([0; 6]);
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The group bit: multicast and broadcast.
    #[inline(always)]
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 != 0
    }

    #[inline(always)]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// 01:80:c2:00:00:00 to 0f, which a bridge never forwards (IEEE 802.1Q table 8-1).
    #[inline(always)]
    pub const fn is_link_local_control(&self) -> bool {
        let Self([a, b, c, d, e, f]) = *self;
        a == 0x01 && b == 0x80 && c == 0xc2 && d == 0 && e == 0 && f & 0xf0 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not six hexadecimal octets with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMac;

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address (six octets, as in 52:54:00:12:34:56)")
    }
}

impl core::error::Error for BadMac {}

impl core::str::FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut octets = text.split(':');
        let mut mac = [0; 6];
        for octet in &mut mac {
            let digits = octets.next().ok_or(BadMac)?;
            if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *octet = u8::from_str_radix(digits, 16).map_err(|_| BadMac)?;
        }
        if octets.next().is_some() {
            return Err(BadMac);
        }
        Ok(Self(mac))
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_mac_reads_back_as_written() {
        let mac: Mac = "52:54:00:ab:CD:1".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        for bad in ["", "52:54", "52:54:00:ab:cd:01:02", "52:54:00:ab:cd:+1", "52:54:00:ab:cd:123"] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
    }

    #[test]
    fn addresses_survive_the_way_through_ip() {
        for text in ["192.168.122.1", "0.0.0.0", "2001:db8::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Ip::from(address)), address);
        }
        assert!(Ip::from(Ipv4Addr::UNSPECIFIED).is_v4());
        assert!(!Ip::UNSPECIFIED.is_v4());
    }

    #[test]
    fn a_prefix_holds_its_own_addresses_only() {
        let prefix = Ip::from(Ipv4Addr::new(10, 1, 128, 0));
        let inside = Ip::from(Ipv4Addr::new(10, 1, 255, 7));
        let outside = Ip::from(Ipv4Addr::new(10, 1, 127, 255));
        assert!(inside.in_prefix(&prefix, 96 + 17));
        assert!(!outside.in_prefix(&prefix, 96 + 17));
        assert!(!Ip::from(Ipv6Addr::LOCALHOST).in_prefix(&prefix, 96 + 17));
        assert!(outside.in_prefix(&prefix, 0));
    }

    #[test]
    fn loopback_is_all_of_127() {
        for (address, is_loopback) in [([127, 0, 0, 1], true), ([127, 255, 0, 9], true), ([128, 0, 0, 1], false)] {
            assert_eq!(Ip::from(Ipv4Addr::from(address)).is_v4_loopback(), is_loopback, "{address:?}");
        }
        assert!(!Ip::from(Ipv6Addr::LOCALHOST).is_v4_loopback());
    }

    #[test]
    fn control_addresses_are_the_first_sixteen() {
        assert!(Mac([1, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local_control());
        assert!(!Mac([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local_control());
    }
}
