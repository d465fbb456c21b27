//! Connections and bindings.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Addresses and ports of one direction; for ICMP queries an identifier instead of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// One row of `conntrack list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub protocol: String,
    pub state: String,
    pub network: String,
    /// The device of the guest that it is accounted to.
    pub port: String,
    /// `snat`: opened by a guest. `forward`: opened from outside. `mapping`: from outside, to a port that a
    /// guest holds.
    pub origin: String,
    pub original: Tuple,
    pub reply: Tuple,
    /// Seconds since it began.
    pub age: u32,
    /// Seconds since it was last seen.
    pub idle: u32,
    /// Seconds until it ends, if nothing more comes.
    pub expiry: u32,
}

/// Declares a query whose words are all optional, and their list.
macro_rules! query {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $word: Option<String>,)*
        }

        impl $name {
            /// Every word with what it was given.
            pub fn words(&self) -> Vec<(&'static str, Option<&str>)> {
                vec![$((stringify!($word), self.$word.as_deref()),)*]
            }
        }
    };
}

query! {
    /// Which connections (or bindings), and what of them. Words stand as the user wrote them; all of the
    /// filters must hold.
    ConnectionQuery {
        network,
        /// `tcp`, `udp`, `icmp` or `sctp`.
        proto,
        /// Address or subnet of the original direction; of bindings, of the inside.
        src,
        dst,
        /// Port or range of the original direction; of ICMP queries, the identifier.
        sport,
        dport,
        /// The outside address of ours.
        outside,
        state,
        /// The guest's device.
        port,
        origin,
        /// Seconds.
        idle_over,
        /// List: `age`, `idle` or `expiry`.
        sort,
        /// List: at most so many.
        limit,
        /// Flush: `true` where no filter is meant.
        all,
    }
}

/// One row of `conntrack count --by`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The guest's device, the state, the protocol or the network.
    pub name: String,
    pub count: u64,
    /// Guests only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a guest uses of its quotas; none: no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub network: String,
    pub connections: u32,
    pub connections_quota: Option<u32>,
    /// Outside ports held, cooling ones too.
    pub ports: u32,
    pub ports_quota: Option<u32>,
}

/// An address with its port or identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// One row of `conntrack bindings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub protocol: String,
    pub network: String,
    /// The guest's device.
    pub port: String,
    pub inside: End,
    pub outside: End,
    /// The only remote that it is for; none under endpoint-independent mapping.
    pub remote: Option<End>,
    /// Connections that use it.
    pub connections: u32,
    /// Seconds since it began.
    pub age: u32,
    /// Seconds since a connection last began or ended on it.
    pub idle: u32,
    /// True while no connection uses it and its outside port is kept from others.
    pub cooling: bool,
    /// Seconds until the outside port is free, where it cools down.
    pub free_in: Option<u32>,
}

/// One line of `conntrack events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    New(Connection),
    /// Its state is another one.
    Update(Connection),
    End {
        /// `expired`, `flushed`, or `spared` (to make room).
        reason: String,
        #[serde(flatten)]
        connection: Connection,
    },
    /// So many events were not told, as they came faster than they were taken.
    Lost {
        count: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let tuple = Tuple {
            src: [10, 0, 0, 2].into(),
            dst: [192, 0, 2, 1].into(),
            src_port: None,
            dst_port: None,
            id: Some(7),
        };
        let connection = Connection {
            protocol: "icmp".into(),
            state: "replied".into(),
            network: "net1".into(),
            port: "tap0".into(),
            origin: "snat".into(),
            original: tuple,
            reply: tuple,
            age: 1,
            idle: 2,
            expiry: 3,
        };
        let end = Event::End { reason: "spared".into(), connection };
        let text = serde_json::to_value(&end).unwrap();
        assert_eq!((&text["event"], &text["reason"], &text["port"]), (&"end".into(), &"spared".into(), &"tap0".into()));
        assert_eq!(serde_json::from_value::<Event>(text).unwrap(), end);
    }
}
