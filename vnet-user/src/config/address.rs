//! Addresses of guests, and VLANs.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use vnet_common::{Mac, vport::UNTAGGED};

use super::{NetworkName, name::one_line};
use crate::Refusal;

/// The MAC address of one device: neither multicast nor zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(Mac);

impl MacAddress {
    pub fn mac(self) -> Mac {
        self.0
    }

    /// The address of a network's gateway: of this host and that name, so that a network that is deleted
    /// and made again is still the one in its guests' ARP tables.
    pub fn of_gateway(name: &NetworkName) -> Self {
        // Where there is no identity of the machine, the name alone has to do.
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let text = machine.bytes().chain(name.as_str().bytes());
        // FNV-1a: any hash that never changes will do.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let [a, b, c, d, e, f, ..] = text.fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes();
        Self::locally_administered([a, b, c, d, e, f])
    }

    /// A locally administered address out of any bytes.
    pub fn locally_administered(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Self(Mac(bytes))
    }
}

impl TryFrom<Mac> for MacAddress {
    type Error = Refusal;

    fn try_from(mac: Mac) -> Result<Self, Refusal> {
        if mac.is_group() || mac.is_zero() { Err(Refusal::NotAGuestMac(mac.to_string())) } else { Ok(Self(mac)) }
    }
}

impl FromStr for MacAddress {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        text.parse::<Mac>().map_err(|_| Refusal::BadMac(one_line(text)))?.try_into()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// A VLAN identifier, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Vlan(u16);

impl Vlan {
    pub const NONE: Self = Self(UNTAGGED);

    /// The identifier; 0 for none.
    pub fn id(self) -> u16 {
        self.0
    }

    pub fn is_untagged(&self) -> bool {
        *self == Self::NONE
    }

    /// From an identifier that a user wrote: 0 means none only where it is left out.
    pub fn from_id(id: Option<u16>) -> Result<Self, Refusal> {
        match id {
            None => Ok(Self::NONE),
            Some(id @ 1..=4094) => Ok(Self(id)),
            Some(id) => Err(Refusal::BadVlan(id)),
        }
    }
}

impl TryFrom<u16> for Vlan {
    type Error = Refusal;

    fn try_from(id: u16) -> Result<Self, Refusal> {
        Self::from_id((id != UNTAGGED).then_some(id))
    }
}

impl From<Vlan> for u16 {
    fn from(vlan: Vlan) -> Self {
        vlan.0
    }
}

/// An IPv4 address that a user wrote.
pub fn parse_ipv4(text: &str) -> Result<Ipv4Addr, Refusal> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(address)) => Err(Refusal::Ipv6NotYet(format!("address {address}"))),
        Err(_) => Err(Refusal::BadAddress(one_line(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_mac_is_one_devices() {
        assert_eq!("52:54:00:12:34:56".parse::<MacAddress>().unwrap().to_string(), "52:54:00:12:34:56");
        for bad in ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00", "x"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn made_up_addresses_are_local_and_unicast() {
        for first in 0..=u8::MAX {
            let Mac([octet, ..]) = MacAddress::locally_administered([first, 1, 2, 3, 4, 5]).mac();
            assert_eq!(octet & 3, 2);
        }
    }

    #[test]
    fn vlans_are_1_to_4094() {
        assert_eq!(Vlan::from_id(None), Ok(Vlan::NONE));
        assert!(Vlan::from_id(Some(1)).is_ok() && Vlan::from_id(Some(4094)).is_ok());
        for bad in [0, 4095, 5000] {
            assert_eq!(Vlan::from_id(Some(bad)), Err(Refusal::BadVlan(bad)));
        }
    }
}
