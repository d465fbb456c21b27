//! Names that are names.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Refusal;

/// Longest network name: `vn-NAME` must fit into an interface name (15 characters).
const MAX_NETWORK_NAME: usize = 12;
/// `IFNAMSIZ` less the terminating zero.
const MAX_DEVICE_NAME: usize = 15;

/// The name of a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl NetworkName {
    /// The host's own leg in the network.
    pub fn gateway_device(&self) -> DeviceName {
        DeviceName(format!("vn-{self}"))
    }

    /// The other end of the gateway's veth pair, which only gives it a carrier.
    pub fn gateway_peer(&self) -> DeviceName {
        DeviceName(format!("vp-{self}"))
    }
}

impl FromStr for NetworkName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let first_is_fine = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let rest_is_fine = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !first_is_fine || !rest_is_fine || text.len() > MAX_NETWORK_NAME {
            return Err(Refusal::BadNetworkName(one_line(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for DeviceName {
    type Err = Refusal;

    /// What the kernel's `dev_valid_name()` takes.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > MAX_DEVICE_NAME || text == "." || text == ".." || text.contains(bad) {
            return Err(Refusal::BadDeviceName(one_line(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Text from outside, fit to be quoted in a one-line message.
pub(super) fn one_line(text: &str) -> String {
    let mut quoted: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        quoted.push('…');
    }
    quoted
}

/// The same small set of conversions for both kinds of name.
macro_rules! name_traits {
    ($($name:ident)*) => {$(
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Refusal;

            fn try_from(text: String) -> Result<Self, Refusal> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

name_traits!(NetworkName DeviceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_names_leave_room_for_the_devices_prefix() {
        for good in ["default", "a", "9lives", "lab-1.prod_x", "twelve_chars"] {
            assert!(good.parse::<NetworkName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "thirteen_char", "naïve", "a\nb"] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn device_names_are_the_kernels() {
        for good in ["eth0", "eth0.10", "tap-été"] {
            assert!(good.parse::<DeviceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen_chars_xx"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_of_a_hostile_name_stays_one_line() {
        let refusal = "a\nb\u{1b}[31m".parse::<NetworkName>().unwrap_err().to_string();
        assert!(!refusal.contains(['\n', '\u{1b}']), "{refusal}");
    }
}
