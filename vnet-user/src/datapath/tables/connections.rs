//! Connections, for people.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use vnet_common::{
    Seconds, Word,
    config::{NetworkId, Timeouts},
    conntrack,
    event::ConnectionEvent,
    flow::{Connection as Record, Endpoints, ORIGIN_BINDING, ORIGIN_FORWARD, since},
    names::expiry::Mode,
    vport::VportId,
};

use super::Tables;
use crate::datapath::{TableError, clock};

/// Addresses and ports of one direction, as its packets arrive. ICMP queries have their identifier as the
/// source port, replies as the destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
}

/// An address as it stands in records.
pub(super) fn address(raw: u32) -> IpAddr {
    Ipv4Addr::from(raw.to_ne_bytes()).into()
}

impl From<&Endpoints> for Tuple {
    fn from(ends: &Endpoints) -> Self {
        Self {
            src: address(ends.src),
            dst: address(ends.dst),
            src_port: ends.src_port.get(),
            dst_port: ends.dst_port.get(),
        }
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    /// The network of the guest that it is accounted to, whoever opened it.
    pub network: NetworkId,
    /// That guest's vport when the connection began.
    pub guest_vport: VportId,
    pub state: &'static str,
    pub origin: Origin,
    pub original: Tuple,
    /// As the reply's packets arrive, before they are translated back.
    pub reply: Tuple,
    pub age_seconds: Seconds,
    pub idle_seconds: Seconds,
    pub expires_in_seconds: Seconds,
}

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A guest opened it to the outside.
    Guest,
    /// Through a forward, from outside or by another guest.
    Forward,
    /// From outside to a port that a guest holds already.
    Binding,
}

impl Connection {
    fn new(record: &Record, timeouts: Option<&Timeouts>, now: Seconds) -> Self {
        let seen = record.seen.load();
        let idle_seconds = since(record.last_seen.load(), now);
        let timeout = timeouts.map_or(0, |timeouts| conntrack::timeout(record.protocol, seen, timeouts));
        Self {
            protocol: record.protocol,
            network: record.home(),
            guest_vport: record.guest_vport.into(),
            state: conntrack::state_name(record.protocol, seen),
            origin: match record.origin {
                ORIGIN_FORWARD => Origin::Forward,
                ORIGIN_BINDING => Origin::Binding,
                _ => Origin::Guest,
            },
            original: (&record.original).into(),
            reply: (&record.reply).into(),
            age_seconds: since(record.created.load(), now),
            idle_seconds,
            expires_in_seconds: timeout.saturating_sub(idle_seconds),
        }
    }

    /// The connection that something happened to, as it stood then.
    pub fn of_event(event: &ConnectionEvent, timeouts: Option<&Timeouts>) -> Self {
        let record = Record {
            original: event.original,
            reply: event.reply,
            original_network: event.original_network,
            reply_network: event.reply_network,
            protocol: event.protocol,
            origin: event.origin,
            guest_vport: event.guest_vport,
            last_seen: Word::new(event.last_seen),
            seen: Word::new(event.seen),
            created: Word::new(event.created),
            ..Record::default()
        };
        Self::new(&record, timeouts, event.at)
    }

    /// The outside address of ours that it shows: where it was opened to, or what its guest appears as.
    pub fn outside_address(&self) -> IpAddr {
        match self.origin {
            Origin::Guest => self.reply.dst,
            Origin::Forward | Origin::Binding => self.original.dst,
        }
    }
}

impl Tables {
    /// The connections that `wanted` says yes to.
    pub fn connections(&self, mut wanted: impl FnMut(&Connection) -> bool) -> Result<Vec<Connection>, TableError> {
        let mut rows = Vec::new();
        self.each_connection(|_, row| {
            if wanted(&row) {
                rows.push(row);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> Result<usize, TableError> {
        self.0.connections.count(&self.0.pools)
    }

    /// Ends the connections that `doomed` says yes to; returns how many. Their bindings go when their ports
    /// have cooled down.
    pub fn flush_connections(&self, mut doomed: impl FnMut(&Connection) -> bool) -> Result<usize, TableError> {
        let mut ended = self.0.expirers.connections.batch(Mode::Force);
        self.each_connection(|index, row| if doomed(&row) { ended.add(index) } else { Ok(()) })?;
        ended.finish()
    }

    fn each_connection(
        &self,
        mut visit: impl FnMut(u32, Connection) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let timeouts = self.timeouts()?;
        let now = clock::now();
        self.0.connections.for_each(&self.0.pools, |index, record| {
            visit(index, Connection::new(&record, timeouts.get(&record.home()), now))
        })
    }

    /// Idle times by network.
    pub fn timeouts(&self) -> Result<HashMap<NetworkId, Timeouts>, TableError> {
        Ok(self.networks()?.into_iter().map(|(id, settings)| (id, settings.timeouts)).collect())
    }
}

#[cfg(test)]
mod tests {
    use vnet_common::{
        Be16, Ip,
        config::OUTSIDE,
        conntrack::{REPLIED, protocol},
        flow::ORIGIN_GUEST,
    };

    use super::*;

    fn raw(address: [u8; 4]) -> u32 {
        Ip::from(Ipv4Addr::from(address)).v4_raw()
    }

    const GUEST: [u8; 4] = [192, 168, 122, 10];
    const SERVER: [u8; 4] = [203, 0, 113, 5];
    const EXTERNAL: [u8; 4] = [198, 51, 100, 1];

    /// A guest's UDP connection to a server, begun at 100, last seen at 120.
    fn record() -> Record {
        let (src_port, dst_port) = (Be16::new(4000), Be16::new(53));
        Record {
            original: Endpoints { src: raw(GUEST), dst: raw(SERVER), src_port, dst_port },
            reply: Endpoints { src: raw(SERVER), dst: raw(EXTERNAL), src_port: dst_port, dst_port: Be16::new(50_000) },
            original_network: 3,
            reply_network: OUTSIDE,
            protocol: protocol::UDP,
            origin: ORIGIN_GUEST,
            guest_vport: 12,
            created: Word::new(100),
            last_seen: Word::new(120),
            seen: Word::new(REPLIED),
            ..Record::default()
        }
    }

    #[test]
    fn a_row_says_what_its_record_does() {
        let wanted = Connection {
            protocol: protocol::UDP,
            network: 3,
            guest_vport: 12,
            state: "replied",
            origin: Origin::Guest,
            original: Tuple { src: IpAddr::from(GUEST), dst: IpAddr::from(SERVER), src_port: 4000, dst_port: 53 },
            reply: Tuple { src: IpAddr::from(SERVER), dst: IpAddr::from(EXTERNAL), src_port: 53, dst_port: 50_000 },
            age_seconds: 30,
            idle_seconds: 10,
            expires_in_seconds: 290,
        };
        assert_eq!(Connection::new(&record(), Some(&Timeouts::RFC), 130), wanted);
        assert_eq!(wanted.outside_address(), IpAddr::from(EXTERNAL));
    }

    #[test]
    fn a_row_past_its_time_or_without_a_network_expires_at_once() {
        let row = Connection::new(&record(), Some(&Timeouts::RFC), 1000);
        assert_eq!((row.idle_seconds, row.expires_in_seconds), (880, 0));
        let row = Connection::new(&record(), None, 121);
        assert_eq!(row.expires_in_seconds, 0);
    }
}
