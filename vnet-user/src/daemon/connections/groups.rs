//! Connections counted by what they have in common.

use std::collections::BTreeMap;

use super::{
    filter::{is_filter, refuse_others, shown, takes_all},
    rows::{device_name, network_name, protocol_name},
};
use crate::{
    Refusal,
    api::types::{ConnectionQuery, Group, Usage},
    daemon::{Switch, switch::Asked},
    datapath::{self, GuestUsage, NetworkSettings},
    error::Result,
};

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Guest,
    State,
    Protocol,
    Network,
}

impl By {
    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "guest" => Ok(Self::Guest),
            "state" => Ok(Self::State),
            "proto" => Ok(Self::Protocol),
            "network" => Ok(Self::Network),
            _ => Err(Refusal::BadRequest(format!(
                "'{}' is nothing to count by: --by takes guest, state, proto or network",
                shown(text)
            ))),
        }
    }

    fn of(self, row: &datapath::Connection) -> Key {
        match self {
            Self::Guest => Key::Number(row.guest_vport),
            Self::State => Key::Word(row.state),
            Self::Protocol => Key::Number(row.protocol.into()),
            Self::Network => Key::Number(row.network.into()),
        }
    }
}

/// A group, before it has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u32),
    Word(&'static str),
}

/// What was read of the tables.
struct Counted {
    groups: BTreeMap<Key, u64>,
    usages: Vec<GuestUsage>,
    networks: Vec<(u16, NetworkSettings)>,
}

impl Switch {
    /// Connections counted by `guest`, `state`, `proto` or `network`; the largest group first.
    pub async fn connection_groups(&self, by: &str, query: &ConnectionQuery) -> Result<Vec<Group>> {
        refuse_others(query, is_filter, "count")?;
        let by = By::parse(by)?;
        let all_guests = by == By::Guest && takes_all(query);
        let (filter, _) = self.filter(query).await?;
        let counted = self.blocking(move |tables| {
            let mut groups: BTreeMap<Key, u64> = BTreeMap::new();
            tables.connections(|row| {
                if filter.matches(row) {
                    *groups.entry(by.of(row)).or_default() += 1;
                }
                false
            })?;
            let usages = if by == By::Guest { tables.guest_usages()? } else { Vec::new() };
            if all_guests {
                // Those too that hold ports only.
                for usage in &usages {
                    groups.entry(Key::Number(usage.vport)).or_default();
                }
            }
            Ok(Counted { groups, usages, networks: tables.networks()? })
        });
        let counted = counted.await?;
        let asked = self.asked().await;
        let mut groups: Vec<Group> =
            counted.groups.iter().map(|(key, count)| group(by, *key, *count, &counted, &asked)).collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        Ok(groups)
    }
}

fn group(by: By, key: Key, count: u64, counted: &Counted, asked: &Asked) -> Group {
    let name = match key {
        Key::Word(word) => word.to_owned(),
        Key::Number(vport) if by == By::Guest => device_name(vport, &asked.runtime),
        Key::Number(number) if by == By::Protocol => protocol_name(number as u8),
        Key::Number(id) => network_name(id as u16, &asked.runtime),
    };
    let usage = match key {
        Key::Number(vport) if by == By::Guest => Some(usage(vport, counted, asked)),
        _ => None,
    };
    Group { name, count, usage }
}

fn usage(vport: u32, counted: &Counted, asked: &Asked) -> Usage {
    let device = asked.runtime.vport_device(vport);
    let home = asked.config.ports().find(|(_, _, port)| Some(&port.device) == device).map(|(name, _, _)| name);
    let id = home.and_then(|name| asked.runtime.network(name));
    let settings = counted.networks.iter().find(|(number, _)| Some(*number) == id).map(|(_, settings)| settings);
    let used = counted.usages.iter().find(|usage| usage.vport == vport);
    let quota = |limit: fn(&NetworkSettings) -> u32| settings.map(limit).filter(|limit| *limit != 0);
    Usage {
        network: home.map_or_else(|| "?".into(), ToString::to_string),
        connections: used.map_or(0, |used| used.connections),
        connections_quota: quota(|settings| settings.nat.guest_connections),
        ports: used.map_or(0, |used| used.bindings),
        ports_quota: quota(|settings| settings.nat.guest_bindings),
    }
}
