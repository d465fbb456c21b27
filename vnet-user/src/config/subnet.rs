//! Subnets of guests.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::name::one_line;
use crate::Refusal;

/// Longest prefix that holds a gateway and a guest.
const LONGEST_PREFIX: u8 = 30;

/// An IPv4 subnet: a network address, with room for a gateway and a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(Ipv4Net);

impl Subnet {
    pub fn net(&self) -> Ipv4Net {
        self.0
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }

    /// The first address, the gateway's unless the user says otherwise.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + 1)
    }

    /// True for the network and the broadcast address.
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        address == self.0.network() || address == self.0.broadcast()
    }

    pub fn overlaps(&self, other: &Ipv4Net) -> bool {
        self.0.contains(other) || other.contains(&self.0)
    }
}

impl FromStr for Subnet {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let net = match text.parse::<IpNet>() {
            Ok(IpNet::V4(net)) => net,
            Ok(IpNet::V6(net)) => return Err(Refusal::Ipv6NotYet(format!("subnet {net}"))),
            Err(_) => return Err(Refusal::BadSubnet(one_line(text))),
        };
        if net.addr() != net.network() {
            return Err(Refusal::NotANetworkAddress { given: net.to_string(), right: net.trunc() });
        }
        if net.prefix_len() > LONGEST_PREFIX {
            return Err(Refusal::SubnetTooSmall(net));
        }
        let first = net.network();
        let is_reserved = first.is_loopback() || first.octets()[0] == 0 || first.octets()[0] >= 224;
        if is_reserved || net.prefix_len() < 8 {
            return Err(Refusal::SubnetReserved(net));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Subnet {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_a_network_address_with_room_for_guests() {
        let cases = [
            ("192.168.122.0/24", "192.168.122.0/24"),
            ("10.0.0.4/30", "10.0.0.4/30"),
            ("192.168.122.1/24", "192.168.122.1/24 is not a network address: write 192.168.122.0/24"),
            ("10.0.0.0/31", "subnet 10.0.0.0/31 is too small: /30 is the smallest that holds a gateway and a guest"),
            (
                "127.0.0.0/8",
                "subnet 127.0.0.0/8 is no address range for guests: take a private one, such as 192.168.122.0/24",
            ),
            (
                "224.0.0.0/8",
                "subnet 224.0.0.0/8 is no address range for guests: take a private one, such as 192.168.122.0/24",
            ),
            ("fd00::/64", "subnet fd00::/64: IPv6 is not supported here yet; give an IPv4 one"),
            ("192.168.122.0", "'192.168.122.0' is not a subnet: write it as 192.168.122.0/24"),
            ("192.168.122.0/33", "'192.168.122.0/33' is not a subnet: write it as 192.168.122.0/24"),
            ("", "'' is not a subnet: write it as 192.168.122.0/24"),
        ];
        for (text, outcome) in cases {
            let shown = text.parse::<Subnet>().map_or_else(|refusal| refusal.to_string(), |subnet| subnet.to_string());
            assert_eq!(shown, outcome, "{text}");
        }
    }
}
