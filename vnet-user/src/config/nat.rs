//! How a network's guests are translated: settings that have a default each, changed by name.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use vnet_common::{
    Ip,
    config::{self as abi, NatPolicy, Timeouts},
};

use super::{
    Limit, Mode, NetworkName, OnOff, SnatAddress, SnatPorts, Span,
    name::one_line,
    setting::{Word, read_from_a_word},
};
use crate::Refusal;

read_from_a_word!(Mapping Filtering);

/// What an outside port is kept for (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case", try_from = "Word")]
pub enum Mapping {
    /// One port of a guest keeps one outside port, whatever it talks to (RFC 4787 REQ-1)
    #[default]
    EndpointIndependent,
    /// Each remote address and port gets an outside port of its own
    EndpointDependent,
}

/// Who may send to an outside port in use (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case", try_from = "Word")]
pub enum Filtering {
    /// Anybody ("full cone")
    EndpointIndependent,
    /// Addresses that the guest has sent to from this port (RFC 4787 REQ-8)
    #[default]
    Address,
    /// Addresses and ports that the guest has sent to from this port
    AddressPort,
}

impl FromStr for Mapping {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| Refusal::BadMapping(one_line(text)))
    }
}

impl FromStr for Filtering {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| Refusal::BadFiltering(one_line(text)))
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::EndpointDependent => "endpoint-dependent",
        })
    }
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::Address => "address",
            Self::AddressPort => "address-port",
        })
    }
}

/// The NAT settings of a network, all of them. What is not said is the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatConfig {
    pub mapping: Mapping,
    pub filtering: Filtering,
    pub snat_address: SnatAddress,
    pub snat_ports: SnatPorts,
    /// Packets from the outside keep UDP and ICMP connections alive too (RFC 4787 REQ-6).
    pub inbound_refresh: OnOff,
    pub udp_timeout: Span,
    /// Of established connections.
    pub tcp_timeout: Span,
    /// Of connections that open or close.
    pub tcp_transitory_timeout: Span,
    pub icmp_timeout: Span,
    /// How long fragments wait for the rest of their datagram.
    pub fragment_timeout: Span,
    /// How long a freed outside port is not given to another connection.
    pub port_cool_down: Span,
    /// Connections of one guest port.
    pub guest_connections: Limit,
    /// Outside ports of one guest port.
    pub guest_ports: Limit,
    /// New connections of one guest port in a second.
    pub guest_rate: Limit,
}

/// Settings that only a network that translates has. The others go for connections through forwards too.
const OF_NAT_ONLY: [&str; 6] = ["mapping", "filtering", "snat-address", "snat-ports", "port-cool-down", "guest-ports"];

impl Default for NatConfig {
    fn default() -> Self {
        let rfc = Timeouts::RFC;
        Self {
            mapping: Mapping::default(),
            filtering: Filtering::default(),
            snat_address: SnatAddress::default(),
            snat_ports: SnatPorts::default(),
            inbound_refresh: OnOff::default(),
            udp_timeout: Span::of_seconds(rfc.udp),
            tcp_timeout: Span::of_seconds(rfc.tcp_established),
            tcp_transitory_timeout: Span::of_seconds(rfc.tcp_transitory),
            icmp_timeout: Span::of_seconds(rfc.icmp),
            fragment_timeout: Span::of_seconds(rfc.fragment),
            port_cool_down: Span::of_seconds(rfc.cool_down),
            guest_connections: Limit::of(32_768),
            guest_ports: Limit::of(8_192),
            guest_rate: Limit::OFF,
        }
    }
}

impl NatConfig {
    /// Every setting by its name on the command line, with its value as it is written there.
    pub fn rows(&self) -> [(&'static str, String); 14] {
        [
            ("mapping", self.mapping.to_string()),
            ("filtering", self.filtering.to_string()),
            ("snat-address", self.snat_address.to_string()),
            ("snat-ports", self.snat_ports.to_string()),
            ("inbound-refresh", self.inbound_refresh.to_string()),
            ("udp-timeout", self.udp_timeout.to_string()),
            ("tcp-timeout", self.tcp_timeout.to_string()),
            ("tcp-transitory-timeout", self.tcp_transitory_timeout.to_string()),
            ("icmp-timeout", self.icmp_timeout.to_string()),
            ("fragment-timeout", self.fragment_timeout.to_string()),
            ("port-cool-down", self.port_cool_down.to_string()),
            ("guest-connections", self.guest_connections.to_string()),
            ("guest-ports", self.guest_ports.to_string()),
            ("guest-rate", self.guest_rate.to_string()),
        ]
    }

    /// True where networks of this mode have the setting.
    pub fn has_setting(mode: Mode, key: &str) -> bool {
        mode == Mode::Nat || mode.is_routed_outside() && !OF_NAT_ONLY.contains(&key)
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What differs from the defaults.
    pub fn changes(&self) -> Result<NatChange, Refusal> {
        let (mut fields, standard) = (fields(self)?, fields(&Self::default())?);
        fields.retain(|key, value| standard.get(key) != Some(value));
        Ok(NatChange(fields))
    }

    /// For files: only what differs from the defaults.
    pub(super) fn serialize_changes<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.changes().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }

    /// The datapath's words for it.
    pub fn policy(&self) -> NatPolicy {
        let ports = self.snat_ports.range();
        let pool = self.snat_address.pool();
        NatPolicy {
            first_address: pool.map_or(Ip::UNSPECIFIED, |pool| pool.first().into()),
            last_address: pool.map_or(Ip::UNSPECIFIED, |pool| pool.last().into()),
            mapping: match self.mapping {
                Mapping::EndpointIndependent => abi::Mapping::EndpointIndependent,
                Mapping::EndpointDependent => abi::Mapping::EndpointDependent,
            } as u8,
            filtering: match self.filtering {
                Filtering::EndpointIndependent => abi::Filtering::EndpointIndependent,
                Filtering::Address => abi::Filtering::Address,
                Filtering::AddressPort => abi::Filtering::AddressAndPort,
            } as u8,
            inbound_refresh: self.inbound_refresh.0.into(),
            guest_connections: self.guest_connections.number(),
            guest_bindings: self.guest_ports.number(),
            guest_new_per_second: self.guest_rate.number(),
            ..NatPolicy::new(ports.first(), ports.last())
        }
    }

    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            udp: self.udp_timeout.seconds(),
            tcp_established: self.tcp_timeout.seconds(),
            tcp_transitory: self.tcp_transitory_timeout.seconds(),
            icmp: self.icmp_timeout.seconds(),
            fragment: self.fragment_timeout.seconds(),
            cool_down: self.port_cool_down.seconds(),
        }
    }
}

fn fields(nat: &NatConfig) -> Result<Map<String, Value>, Refusal> {
    match serde_json::to_value(nat) {
        Ok(Value::Object(fields)) => Ok(fields),
        other => Err(Refusal::BadRequest(format!("settings that are no object: {other:?}"))),
    }
}

/// Settings that are to be others: names with the values as [`NatConfig`] shows them or as the command line
/// writes them; `null` and `"default"` put the default back. Checked when it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NatChange(Map<String, Value>);

impl NatChange {
    /// Adds one setting as the command line writes it.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match self.0.insert(key.into(), value.into()) {
            None => Ok(()),
            Some(_) => Err(Refusal::SettingTwice(one_line(key))),
        }
    }

    /// The settings as they are after the change. Refused where networks of this mode have no such setting.
    pub fn apply(&self, nat: &NatConfig, name: &NetworkName, mode: Mode) -> Result<NatConfig, Refusal> {
        let mut nat = nat.clone();
        for (given, value) in &self.0 {
            let key = known(given)?;
            if !NatConfig::has_setting(mode, key) {
                let takers = if OF_NAT_ONLY.contains(&key) { "nat" } else { "nat and routed" };
                return Err(Refusal::SettingNotTaken { key, network: name.clone(), mode, takers });
            }
            let mut fields = fields(&nat)?;
            let field = key.replace('-', "_");
            if value.is_null() || value == "default" {
                fields.remove(&field);
            } else {
                fields.insert(field, value.clone());
            }
            let read = serde_json::from_value(Value::Object(fields));
            nat = read.map_err(|error| Refusal::BadRequest(format!("{key}: {error}")))?;
        }
        Ok(nat)
    }
}

/// The setting of this name, in the writing of the command line or of JSON.
fn known(given: &str) -> Result<&'static str, Refusal> {
    let rows = NatConfig::default().rows();
    let found = rows.iter().find(|(key, _)| *key == given.replace('_', "-"));
    found.map(|(key, _)| *key).ok_or_else(|| Refusal::NoSetting {
        given: one_line(given),
        keys: rows.each_ref().map(|(key, _)| *key).join(", "),
    })
}

#[cfg(test)]
#[path = "nat_tests.rs"]
mod tests;
