//! Filters as users write them, understood.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use vnet_common::{
    config::{NetworkId, OUTSIDE},
    conntrack::{STATES, protocol},
    vport::VportId,
};

use crate::{
    Refusal,
    api::types::ConnectionQuery,
    config::{DeviceName, NetworkName},
    daemon::switch::Asked,
    datapath::{Binding, Connection, Origin},
    error::Result,
};

/// Words of a query that choose nothing, but say what to do with what is chosen.
const ORDERS: [&str; 3] = ["sort", "limit", "all"];

/// A filter that was understood: all of it must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    network: Option<NetworkId>,
    protocols: Option<&'static [u8]>,
    src: Option<IpNet>,
    dst: Option<IpNet>,
    sport: Option<RangeInclusive<u16>>,
    dport: Option<RangeInclusive<u16>>,
    outside: Option<IpAddr>,
    state: Option<String>,
    vport: Option<VportId>,
    origin: Option<Origin>,
    idle_over: Option<u32>,
}

impl Filter {
    pub(super) fn new(query: &ConnectionQuery, asked: &Asked) -> Result<Self> {
        // A name without a number yet has no connections either: no record has the number 0.
        let network = query.network.as_deref().map(|name| -> Result<NetworkId> {
            let name: NetworkName = name.parse()?;
            asked.config.network(&name)?;
            Ok(asked.runtime.network(&name).unwrap_or(OUTSIDE))
        });
        let vport = query.port.as_deref().map(|device| -> Result<VportId> {
            let device: DeviceName = device.parse()?;
            if !asked.config.ports().any(|(_, _, port)| port.device == device) {
                return Err(Refusal::NotAPortAnywhere(device).into());
            }
            Ok(asked.runtime.vport(&device).unwrap_or(0))
        });
        let words = Self::of_words(query)?;
        Ok(Self { network: network.transpose()?, vport: vport.transpose()?, ..words })
    }

    /// All but names.
    fn of_words(query: &ConnectionQuery) -> Result<Self, Refusal> {
        Ok(Self {
            protocols: query.proto.as_deref().map(parse_protocol).transpose()?,
            src: query.src.as_deref().map(parse_addresses).transpose()?,
            dst: query.dst.as_deref().map(parse_addresses).transpose()?,
            sport: query.sport.as_deref().map(|text| parse_ports("--sport", text)).transpose()?,
            dport: query.dport.as_deref().map(|text| parse_ports("--dport", text)).transpose()?,
            outside: query.outside.as_deref().map(parse_address).transpose()?,
            state: query.state.as_deref().map(parse_state).transpose()?,
            origin: query.origin.as_deref().map(parse_origin).transpose()?,
            idle_over: query.idle_over.as_deref().map(|text| parse_number("--idle-over", text)).transpose()?,
            ..Self::default()
        })
    }

    pub(super) fn matches(&self, row: &Connection) -> bool {
        let ends = &row.original;
        // Queries have one identifier, whichever word asks for it.
        let dst_port = if is_query(row.protocol) { ends.src_port } else { ends.dst_port };
        self.network.is_none_or(|network| network == row.network)
            && self.protocols.is_none_or(|protocols| protocols.contains(&row.protocol))
            && self.src.is_none_or(|net| net.contains(&ends.src))
            && self.dst.is_none_or(|net| net.contains(&ends.dst))
            && self.sport.as_ref().is_none_or(|ports| ports.contains(&ends.src_port))
            && self.dport.as_ref().is_none_or(|ports| ports.contains(&dst_port))
            && self.outside.is_none_or(|address| address == row.outside_address())
            && self.state.as_deref().is_none_or(|state| state == row.state)
            && self.vport.is_none_or(|vport| vport == row.guest_vport)
            && self.origin.is_none_or(|origin| origin == row.origin)
            && self.idle_over.is_none_or(|seconds| row.idle_seconds > seconds)
    }

    /// Of the words that bindings take.
    pub(super) fn matches_binding(&self, row: &Binding) -> bool {
        self.network.is_none_or(|network| network == row.network)
            && self.protocols.is_none_or(|protocols| protocols.contains(&row.protocol))
            && self.src.is_none_or(|net| net.contains(&row.inside.0))
            && self.outside.is_none_or(|address| address == row.outside.0)
    }
}

/// True for protocols whose queries have an identifier instead of ports.
pub(super) fn is_query(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// True where no filter was given.
pub(super) fn takes_all(query: &ConnectionQuery) -> bool {
    query.words().iter().all(|(word, given)| given.is_none() || ORDERS.contains(word))
}

/// Refuses words that mean nothing here, lest they be thought to choose something.
pub(super) fn refuse_others(query: &ConnectionQuery, means: impl Fn(&str) -> bool, what: &str) -> Result<(), Refusal> {
    match query.words().into_iter().find(|(word, given)| given.is_some() && !means(word)) {
        Some((word, _)) => bad(format!("{what} takes no --{}", word.replace('_', "-"))),
        None => Ok(()),
    }
}

/// True for words that choose.
pub(super) fn is_filter(word: &str) -> bool {
    !ORDERS.contains(&word)
}

pub(super) fn parse_number(word: &str, text: &str) -> Result<u32, Refusal> {
    text.parse().or_else(|_| bad(format!("'{}' is not a number: {word} takes one, from 0", shown(text))))
}

fn parse_protocol(text: &str) -> Result<&'static [u8], Refusal> {
    match text {
        "tcp" => Ok(&[protocol::TCP]),
        "udp" => Ok(&[protocol::UDP]),
        "icmp" => Ok(&[protocol::ICMP, protocol::ICMPV6]),
        "sctp" => Ok(&[protocol::SCTP]),
        _ => bad(format!("'{}' is not a protocol: --proto takes tcp, udp, icmp or sctp", shown(text))),
    }
}

fn parse_addresses(text: &str) -> Result<IpNet, Refusal> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| Refusal::BadFilter(shown(text)))
}

fn parse_address(text: &str) -> Result<IpAddr, Refusal> {
    text.parse().or_else(|_| bad(format!("'{}' is not an address: --outside takes one, as 192.0.2.1", shown(text))))
}

fn parse_ports(word: &str, text: &str) -> Result<RangeInclusive<u16>, Refusal> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => bad(format!(
            "'{}' is not a port or range: {word} takes 80 or 8000-8010, or an ICMP identifier",
            shown(text)
        )),
    }
}

fn parse_state(text: &str) -> Result<String, Refusal> {
    if STATES.contains(&text) {
        return Ok(text.to_owned());
    }
    bad(format!("'{}' is not a state: --state takes one of {}", shown(text), STATES.join(", ")))
}

fn parse_origin(text: &str) -> Result<Origin, Refusal> {
    match text {
        "snat" => Ok(Origin::Guest),
        "forward" => Ok(Origin::Forward),
        "mapping" => Ok(Origin::Binding),
        _ => bad(format!("'{}' is not an origin: --origin takes snat, forward or mapping", shown(text))),
    }
}

pub(super) fn bad<T>(reason: String) -> Result<T, Refusal> {
    Err(Refusal::BadRequest(reason))
}

/// What the user wrote, fit for one line.
pub(super) fn shown(text: &str) -> String {
    text.escape_debug().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Tuple;

    fn row() -> Connection {
        let tuple = |src: &str, dst: &str, src_port, dst_port| Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port,
            dst_port,
        };
        Connection {
            protocol: protocol::UDP,
            network: 1,
            guest_vport: 2,
            state: "replied",
            origin: Origin::Guest,
            original: tuple("10.0.0.2", "203.0.113.1", 4000, 53),
            reply: tuple("203.0.113.1", "192.0.2.1", 53, 50_000),
            age_seconds: 20,
            idle_seconds: 10,
            expires_in_seconds: 290,
        }
    }

    fn query(words: &[(&str, &str)]) -> ConnectionQuery {
        let map: serde_json::Map<_, _> =
            words.iter().map(|(word, value)| ((*word).to_owned(), (*value).into())).collect();
        serde_json::from_value(map.into()).unwrap()
    }

    #[test]
    fn each_filter_takes_its_own_and_nothing_else() {
        let cases = [
            ("proto", "udp", "tcp"),
            ("src", "10.0.0.2", "10.0.0.3"),
            ("src", "10.0.0.0/8", "192.0.2.0/24"),
            ("dst", "203.0.113.0/24", "192.0.2.1"),
            ("sport", "4000", "4001"),
            ("sport", "3990-4000", "4001-65535"),
            ("dport", "53", "54"),
            ("outside", "192.0.2.1", "192.0.2.2"),
            ("state", "replied", "unreplied"),
            ("origin", "snat", "forward"),
            ("idle_over", "9", "10"),
        ];
        for (word, right, wrong) in cases {
            for (value, matches) in [(right, true), (wrong, false)] {
                let filter = Filter::of_words(&query(&[(word, value)])).unwrap();
                assert_eq!(filter.matches(&row()), matches, "{word} {value}");
            }
        }
    }

    #[test]
    fn all_filters_must_hold() {
        let filter = Filter::of_words(&query(&[("proto", "udp"), ("sport", "1")])).unwrap();
        assert!(!filter.matches(&row()));
    }

    #[test]
    fn a_query_has_its_identifier_for_both_ports() {
        let mut row = row();
        row.protocol = protocol::ICMP;
        (row.original.src_port, row.original.dst_port) = (77, 0);
        for word in ["sport", "dport"] {
            assert!(Filter::of_words(&query(&[(word, "77")])).unwrap().matches(&row), "{word}");
        }
    }

    #[test]
    fn bad_words_are_refused_with_what_would_be_right() {
        let cases = [
            ("proto", "gre", "sctp"),
            ("src", "banana", "192.168.122.0/24"),
            ("src", "10.0.0.0/33", "192.168.122.0/24"),
            ("sport", "80-", "8000-8010"),
            ("dport", "90-80", "8000-8010"),
            ("dport", "70000", "--dport"),
            ("outside", "10.0.0.0/8", "192.0.2.1"),
            ("state", "closed", "half-closed"),
            ("origin", "guest", "snat, forward or mapping"),
            ("idle_over", "5m", "--idle-over"),
        ];
        for (word, value, hint) in cases {
            let text = Filter::of_words(&query(&[(word, value)])).unwrap_err().to_string();
            assert!(text.contains(value) && text.contains(hint) && text.lines().count() == 1, "{text}");
        }
    }

    #[test]
    fn orders_are_no_filters() {
        assert!(takes_all(&query(&[("limit", "5"), ("sort", "age"), ("all", "true")])));
        assert!(!takes_all(&query(&[("port", "tap0")])));
        let text = refuse_others(&query(&[("idle_over", "5")]), |word| word == "src", "bindings").unwrap_err();
        assert_eq!(text.to_string(), "bindings takes no --idle-over");
    }
}
