//! Where guests' connections come from on the outside: addresses and ports.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    PortRange, Subnet,
    name::one_line,
    parse_ipv4,
    setting::{Word, read_from_a_word},
};
use crate::Refusal;

/// Addresses of one pool, at most: the datapath answers ARP for each.
const MAX_POOL: u32 = 256;
/// Ports below are those of the host's services (RFC 6056 section 3.2).
const FIRST_SNAT_PORT: u16 = 1024;

read_from_a_word!(SnatAddress SnatPorts);

/// Neighbouring outside addresses, 256 at most; the host need not carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressPool {
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    pub fn last(self) -> Ipv4Addr {
        self.last
    }

    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub fn overlaps_subnet(self, subnet: &Subnet) -> bool {
        let net = subnet.net();
        self.first <= net.broadcast() && net.network() <= self.last
    }
}

impl FromStr for AddressPool {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let pool = Self { first: parse_ipv4(first)?, last: parse_ipv4(last)? };
        let Self { first, last } = pool;
        if first > last {
            return Err(Refusal::ReversedPool { first, last });
        }
        let count = u32::from(last) - u32::from(first) + 1;
        if count > MAX_POOL {
            return Err(Refusal::PoolTooLarge { count, most: MAX_POOL });
        }
        let is_unfit = |address: Ipv4Addr| {
            let special = address.is_loopback() || address.is_multicast() || address.is_link_local();
            special || address.octets()[0] == 0 || address.octets()[0] >= 240
        };
        if is_unfit(first) || is_unfit(last) {
            return Err(Refusal::UnfitPool(one_line(text)));
        }
        Ok(pool)
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// A pool of outside addresses, or the uplink's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Word", into = "String")]
pub enum SnatAddress {
    #[default]
    Uplink,
    Pool(AddressPool),
}

impl SnatAddress {
    pub fn pool(self) -> Option<AddressPool> {
        match self {
            Self::Uplink => None,
            Self::Pool(pool) => Some(pool),
        }
    }

    /// True where `listen` may be one of the addresses (`None`: any of the host's).
    pub fn may_be(self, listen: Option<Ipv4Addr>) -> bool {
        match (self, listen) {
            // The uplink's address may be another tomorrow.
            (Self::Uplink, _) | (_, None) => true,
            (Self::Pool(pool), Some(address)) => pool.contains(address),
        }
    }
}

impl FromStr for SnatAddress {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text == "uplink" { Ok(Self::Uplink) } else { text.parse().map(Self::Pool) }
    }
}

impl fmt::Display for SnatAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uplink => f.write_str("uplink"),
            Self::Pool(pool) => pool.fmt(f),
        }
    }
}

/// Outside ports to translate with, from 1024 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Word", into = "String")]
pub struct SnatPorts(PortRange);

impl SnatPorts {
    pub fn range(self) -> PortRange {
        self.0
    }
}

impl Default for SnatPorts {
    fn default() -> Self {
        Self(PortRange::DYNAMIC)
    }
}

impl FromStr for SnatPorts {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let range: PortRange = text.parse()?;
        if range.first() < FIRST_SNAT_PORT {
            return Err(Refusal::SnatPortsTooLow { ports: range, least: FIRST_SNAT_PORT });
        }
        Ok(Self(range))
    }
}

impl fmt::Display for SnatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! written_as_text {
    ($($name:ident)*) => {$(
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

written_as_text!(SnatAddress SnatPorts);

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: FromStr<Err = Refusal> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|refusal| refusal.to_string(), |value| value.to_string())
    }

    #[test]
    fn a_pool_is_a_few_neighbouring_addresses_of_single_hosts() {
        let cases = [
            ("uplink", "uplink"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1-192.0.2.1", "192.0.2.1"),
            ("192.0.2.0-192.0.2.255", "192.0.2.0-192.0.2.255"),
            ("192.0.2.0-192.0.3.0", "257 addresses, at most 256 fit into one pool"),
            ("192.0.2.9-192.0.2.1", "address range 192.0.2.9-192.0.2.1 is reversed: write 192.0.2.1-192.0.2.9"),
            ("2001:db8::1", "address 2001:db8::1: IPv6 is not supported here yet; give an IPv4 one"),
            ("192.0.2.1-", "'' is not an IPv4 address: write it as 192.168.122.10"),
            ("eth0", "'eth0' is not an IPv4 address: write it as 192.168.122.10"),
            ("127.0.0.1", "127.0.0.1 cannot be translated to: those are no addresses of single hosts on a network"),
            (
                "223.255.255.255-224.0.0.1",
                "223.255.255.255-224.0.0.1 cannot be translated to: those are no addresses of single hosts on a network",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(shown::<SnatAddress>(text), expected, "{text}");
        }
    }

    #[test]
    fn pools_overlap_where_they_share_an_address() {
        let pool = |text: &str| text.parse::<AddressPool>().unwrap();
        let cases = [
            ("192.0.2.1-192.0.2.4", "192.0.2.4-192.0.2.9", true),
            ("192.0.2.1-192.0.2.4", "192.0.2.5", false),
            ("192.0.2.1-192.0.2.9", "192.0.2.5", true),
        ];
        for (one, other, overlap) in cases {
            assert_eq!(pool(one).overlaps(pool(other)), overlap, "{one} {other}");
            assert_eq!(pool(other).overlaps(pool(one)), overlap, "{other} {one}");
        }
        let subnet: Subnet = "192.0.2.8/29".parse().unwrap();
        for (text, overlap) in [
            ("192.0.2.7", false),
            ("192.0.2.15-192.0.2.20", true),
            ("192.0.2.1-192.0.2.8", true),
            ("192.0.2.16", false),
        ] {
            assert_eq!(pool(text).overlaps_subnet(&subnet), overlap, "{text}");
        }
    }

    #[test]
    fn snat_ports_begin_above_those_of_services() {
        let cases = [
            ("1024", "1024"),
            ("20000-29999", "20000-29999"),
            ("1023-2000", "ports 1023-2000 begin among those of the host's services: take them from 1024 up"),
            ("2000-1999", "port range 2000-1999 is reversed: write 1999-2000"),
            ("65536", "'65536' is not a port or range: write 80 or 8000-8010, from 1 to 65535"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown::<SnatPorts>(text), expected, "{text}");
        }
    }
}
