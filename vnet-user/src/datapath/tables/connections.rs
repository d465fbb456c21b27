//! Connections, for people: both halves of each put together.
//!
//! The whole table is read in batches and joined here: a million flows take a second or so, where a
//! look-up each would take a system call each.

use std::{collections::HashMap, net::IpAddr};

use vnet_common::{
    Seconds,
    config::{NetworkId, Timeouts},
    conntrack,
    flow::{Direction, FlowEntry, FlowKey, ORIGIN_FORWARD, idle},
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

impl From<&FlowKey> for Tuple {
    fn from(key: &FlowKey) -> Self {
        Self { src: key.src.into(), dst: key.dst.into(), src_port: key.src_port.get(), dst_port: key.dst_port.get() }
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    /// The guest's network, whoever opened the connection.
    pub network: NetworkId,
    /// The guest's VLAN in it.
    pub vlan: u16,
    /// The guest's vport when the connection began.
    pub guest_vport: VportId,
    pub state: &'static str,
    /// Opened from outside through a forward; else by the guest.
    pub forwarded: bool,
    pub original: Tuple,
    /// As the reply's packets arrive, before they are translated back.
    pub reply: Tuple,
    pub age_seconds: Seconds,
    pub idle_seconds: Seconds,
    pub expires_in_seconds: Seconds,
}

/// What a row needs to know of the reply half.
struct Reply {
    idle: Seconds,
    seen: u32,
}

impl Connection {
    fn new(
        key: &FlowKey,
        entry: &FlowEntry,
        reply_key: &FlowKey,
        reply: Option<&Reply>,
        timeouts: Option<&Timeouts>,
        now: Seconds,
    ) -> Self {
        let seen = entry.seen() | reply.map_or(0, |reply| reply.seen);
        let own_idle = idle(now, &entry.last_seen);
        let idle_seconds = reply.map_or(own_idle, |reply| own_idle.min(reply.idle));
        let timeout = timeouts.map_or(0, |timeouts| conntrack::timeout(key.protocol, seen, timeouts));
        let forwarded = entry.origin == ORIGIN_FORWARD;
        Self {
            protocol: key.protocol,
            network: entry.network,
            // The guest's side of the connection is where its packets come from.
            vlan: if forwarded { reply_key.vlan } else { key.vlan },
            guest_vport: entry.guest_vport,
            state: conntrack::state_name(key.protocol, seen),
            forwarded,
            original: key.into(),
            reply: reply_key.into(),
            age_seconds: clock::since(entry.created, now),
            idle_seconds,
            expires_in_seconds: timeout.saturating_sub(idle_seconds),
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
        })?;
        Ok(rows)
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> Result<usize, TableError> {
        let mut count = 0;
        self.0.flows.for_each(|_, entry| {
            count += usize::from(is_original(&entry));
            Ok(())
        })?;
        Ok(count)
    }

    /// Ends the connections that `doomed` says yes to; returns how many. Their bindings go some seconds
    /// later, with the next expiry.
    pub fn flush_connections(&self, mut doomed: impl FnMut(&Connection) -> bool) -> Result<usize, TableError> {
        let mut keys = Vec::new();
        self.each_connection(|key, row| {
            if doomed(&row) {
                keys.push(*key);
            }
        })?;
        let mut ended = self.0.expirers.flows.batch(true);
        for key in keys {
            ended.add(key)?;
        }
        ended.finish()
    }

    fn each_connection(&self, mut visit: impl FnMut(&FlowKey, Connection)) -> Result<(), TableError> {
        let timeouts = self.timeouts()?;
        let now = clock::now();
        let mut originals = Vec::new();
        let mut replies = HashMap::new();
        self.0.flows.for_each(|key, entry| {
            if is_original(&entry) {
                originals.push((key, entry));
            } else {
                replies.insert(key, Reply { idle: idle(now, &entry.last_seen), seen: entry.seen() });
            }
            Ok(())
        })?;
        for (key, entry) in &originals {
            let reply_key = entry.partner_key(key.protocol);
            let reply = replies.get(&reply_key);
            let row = Connection::new(key, entry, &reply_key, reply, timeouts.get(&entry.network), now);
            visit(key, row);
        }
        Ok(())
    }

    /// Idle times by network.
    pub(in crate::datapath) fn timeouts(&self) -> Result<HashMap<NetworkId, Timeouts>, TableError> {
        Ok(self.networks()?.into_iter().map(|(id, settings)| (id, settings.timeouts)).collect())
    }
}

fn is_original(entry: &FlowEntry) -> bool {
    entry.direction == Direction::Original as u8
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vnet_common::{
        Be16, Ip, Word,
        config::OUTSIDE,
        conntrack::{REPLIED, protocol},
        flow::ORIGIN_SNAT,
    };
    use zerocopy::FromZeros;

    use super::*;

    fn ip(address: [u8; 4]) -> Ip {
        Ipv4Addr::from(address).into()
    }

    const GUEST: [u8; 4] = [192, 168, 122, 10];
    const SERVER: [u8; 4] = [203, 0, 113, 5];
    const EXTERNAL: [u8; 4] = [198, 51, 100, 1];

    /// A guest's UDP flow to a server, begun at 100, last seen at 120.
    fn snat_flow() -> (FlowKey, FlowEntry) {
        let key = FlowKey {
            src: ip(GUEST),
            dst: ip(SERVER),
            src_port: Be16::new(4000),
            dst_port: Be16::new(53),
            network: 3,
            vlan: 7,
            protocol: protocol::UDP,
            pad: 0,
            pad2: 0,
        };
        let entry = FlowEntry {
            src: ip(EXTERNAL),
            dst: ip(SERVER),
            src_port: Be16::new(50_000),
            dst_port: Be16::new(53),
            network: 3,
            vlan: 0,
            direction: Direction::Original as u8,
            origin: ORIGIN_SNAT,
            guest_vport: 12,
            created: 100,
            last_seen: Word::new(120),
            seen: Word::new(0),
            ..FlowEntry::new_zeroed()
        };
        (key, entry)
    }

    #[test]
    fn a_row_joins_both_halves() {
        let (key, entry) = snat_flow();
        let reply_key = entry.partner_key(key.protocol);
        assert_eq!(reply_key.network, OUTSIDE);
        let reply = Reply { idle: 4, seen: REPLIED };
        let row = Connection::new(&key, &entry, &reply_key, Some(&reply), Some(&Timeouts::RFC), 130);
        let wanted = Connection {
            protocol: protocol::UDP,
            network: 3,
            vlan: 7,
            guest_vport: 12,
            state: "replied",
            forwarded: false,
            original: Tuple { src: IpAddr::from(GUEST), dst: IpAddr::from(SERVER), src_port: 4000, dst_port: 53 },
            reply: Tuple { src: IpAddr::from(SERVER), dst: IpAddr::from(EXTERNAL), src_port: 53, dst_port: 50_000 },
            age_seconds: 30,
            idle_seconds: 4,
            expires_in_seconds: 296,
        };
        assert_eq!(row, wanted);
    }

    #[test]
    fn a_half_alone_is_shown_and_so_is_one_past_its_time() {
        let (key, entry) = snat_flow();
        let reply_key = entry.partner_key(key.protocol);
        let row = Connection::new(&key, &entry, &reply_key, None, Some(&Timeouts::RFC), 1000);
        assert_eq!((row.state, row.idle_seconds, row.expires_in_seconds), ("unreplied", 880, 0));
        let row = Connection::new(&key, &entry, &reply_key, None, None, 121);
        assert_eq!(row.expires_in_seconds, 0, "its network is gone");
    }
}
