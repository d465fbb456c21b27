//! Port forwards.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};
use vnet_common::conntrack::protocol;

use super::{name::one_line, parse_ipv4};
use crate::Refusal;

/// Protocols that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Refusal::BadProtocol(one_line(text))),
        }
    }
}

/// One or more neighbouring L4 ports, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The dynamic ports of RFC 6335 section 6.
    pub const DYNAMIC: Self = Self { first: 49152, last: 65535 };

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub fn overlaps(self, first: u16, last: u16) -> bool {
        self.first <= last && first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::BadPorts(one_line(text));
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port @ 1..) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(bad()),
        };
        let (first, last) = match text.split_once('-') {
            None => (port(text)?, port(text)?),
            Some((first, last)) => (port(first)?, port(last)?),
        };
        if first > last {
            return Err(Refusal::ReversedRange { first, last });
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Where a forward listens: `[ADDRESS:]PORT[-PORT]`; no address means all addresses of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen {
    pub address: Option<Ipv4Addr>,
    pub ports: PortRange,
}

impl Listen {
    /// True where some packet would match both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_address = match (self.address, other.address) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same_address && self.ports.overlaps(other.ports.first, other.ports.last)
    }
}

impl FromStr for Listen {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.starts_with('[') {
            return Err(Refusal::Ipv6NotYet(format!("listen address {}", one_line(text))));
        }
        match text.rsplit_once(':') {
            None if text.contains('.') || text.is_empty() => Err(Refusal::BadListen(one_line(text))),
            None => Ok(Self { address: None, ports: text.parse()? }),
            Some((address, ports)) => {
                let address = parse_ipv4(address)?;
                Ok(Self { address: (!address.is_unspecified()).then_some(address), ports: ports.parse()? })
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => self.ports.fmt(f),
            Some(address) => write!(f, "{address}:{}", self.ports),
        }
    }
}

/// Where a forward leads: `ADDRESS[:PORT[-PORT]]`; no ports means those that are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    pub address: Ipv4Addr,
    pub ports: Option<PortRange>,
}

impl FromStr for Target {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.starts_with('[') || text.matches(':').count() > 1 {
            return Err(Refusal::Ipv6NotYet(format!("target {}", one_line(text))));
        }
        if !text.contains('.') {
            return Err(Refusal::BadTarget(one_line(text)));
        }
        match text.split_once(':') {
            None => Ok(Self { address: parse_ipv4(text)?, ports: None }),
            Some((address, ports)) => Ok(Self { address: parse_ipv4(address)?, ports: Some(ports.parse()?) }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            None => self.address.fmt(f),
            Some(ports) => write!(f, "{}:{ports}", self.address),
        }
    }
}

/// Text in, text out, checked on the way in.
macro_rules! text_in_serde {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = Refusal;

            fn try_from(text: String) -> Result<Self, Refusal> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_in_serde!(Listen Target);

/// A forward, its ranges of one length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ForwardFields", into = "ForwardFields")]
pub struct ForwardConfig {
    pub protocol: Protocol,
    pub listen: Listen,
    pub address: Ipv4Addr,
    pub ports: PortRange,
    /// The host's own processes reach the guest by 127.0.0.1, too.
    pub loopback: bool,
}

/// [`ForwardConfig`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForwardFields {
    protocol: Protocol,
    listen: Listen,
    to: Target,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    loopback: bool,
}

impl ForwardConfig {
    /// Not by loopback.
    pub fn new(protocol: Protocol, listen: Listen, target: Target) -> Result<Self, Refusal> {
        let ports = target.ports.unwrap_or(listen.ports);
        if ports.count() != listen.ports.count() {
            return Err(Refusal::RangesDiffer {
                listen: listen.to_string(),
                listen_count: listen.ports.count(),
                target: target.to_string(),
                target_count: ports.count(),
            });
        }
        Ok(Self { protocol, listen, address: target.address, ports, loopback: false })
    }

    /// The same, by loopback or not. A forward on one address is not: 127.0.0.1 is another.
    pub fn with_loopback(self, loopback: bool) -> Result<Self, Refusal> {
        match self.listen.address {
            Some(address) if loopback => Err(Refusal::LoopbackBesideAddress(address)),
            _ => Ok(Self { loopback, ..self }),
        }
    }

    pub fn target(&self) -> Target {
        Target { address: self.address, ports: Some(self.ports) }
    }

    pub fn key(&self) -> ForwardKeyText {
        ForwardKeyText { protocol: self.protocol, listen: self.listen }
    }
}

impl TryFrom<ForwardFields> for ForwardConfig {
    type Error = Refusal;

    fn try_from(fields: ForwardFields) -> Result<Self, Refusal> {
        Self::new(fields.protocol, fields.listen, fields.to)?.with_loopback(fields.loopback)
    }
}

impl From<ForwardConfig> for ForwardFields {
    fn from(forward: ForwardConfig) -> Self {
        let to = forward.target();
        Self { protocol: forward.protocol, listen: forward.listen, to, loopback: forward.loopback }
    }
}

/// What names a forward: protocol and listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardKeyText {
    pub protocol: Protocol,
    pub listen: Listen,
}

impl fmt::Display for ForwardKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.listen)
    }
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
