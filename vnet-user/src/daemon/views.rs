//! What the API shows, put together from what is asked for, the host and the tables.

use std::collections::BTreeMap;

use vnet_common::{DropReason, fdb::FdbKind, stats::VportStats, vport::VportId};

use super::{Switch, warnings::warnings};
use crate::{
    Refusal,
    api::types::{
        Counters, Drops, FdbEntry, Forward, Gateway, Network, NetworkDetail, Port, PortDetail, PortState, Role, Stats,
        Table,
    },
    config::{DeviceName, NetworkConfig, NetworkName, PortConfig},
    datapath::TableFill,
    error::Result,
    netlink::{Host, Link},
};

/// A network's state while it is not stopped (stopping comes later).
const ACTIVE: &str = "active";

impl Switch {
    pub async fn networks(&self) -> Vec<Network> {
        let config = self.asked().await.config;
        let row = |(name, network): (&NetworkName, &NetworkConfig)| Network {
            name: name.clone(),
            mode: network.mode,
            state: ACTIVE.into(),
            uplinks: uplinks(network),
            subnets: network.subnets.clone(),
            ports: network.ports.len(),
            forwards: network.forwards.len(),
        };
        config.networks.iter().map(row).collect()
    }

    pub async fn network(&self, name: &NetworkName) -> Result<NetworkDetail> {
        self.asked().await.config.network(name)?;
        let mut details = self.network_details(Some(name)).await?;
        details.pop().ok_or_else(|| Refusal::NoNetwork(name.clone()).into())
    }

    /// One network or all.
    pub async fn network_details(&self, only: Option<&NetworkName>) -> Result<Vec<NetworkDetail>> {
        let asked = self.asked().await;
        let host = self.netlink().host().await?;
        let mut ports = self.ports(only).await?;
        let mut connections: BTreeMap<u16, u64> = BTreeMap::new();
        tokio::task::block_in_place(|| {
            self.tables().connections(|connection| {
                *connections.entry(connection.network).or_default() += 1;
                false
            })
        })?;
        let mut details = Vec::new();
        for (name, network) in asked.config.networks.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            let id = asked.runtime.network(name);
            details.push(NetworkDetail {
                name: name.clone(),
                mode: network.mode,
                state: ACTIVE.into(),
                uplinks: uplinks(network),
                subnets: network.subnets.clone(),
                gateway: gateway(name, network),
                nat: network.mode.is_routed_outside().then(|| network.nat.clone()),
                ports: ports.extract_if(.., |port| port.network == *name).collect(),
                forwards: network.forwards.len(),
                fdb_entries: id.map_or(Ok(0), |id| self.tables().fdb(Some(id)).map(|rows| rows.len()))?,
                connections: id.and_then(|id| connections.get(&id).copied()).unwrap_or(0),
                warnings: warnings(network, &host),
            });
        }
        Ok(details)
    }

    /// The ports of one network or of all.
    pub async fn ports(&self, only: Option<&NetworkName>) -> Result<Vec<Port>> {
        let asked = self.asked().await;
        if let Some(name) = only {
            asked.config.network(name)?;
        }
        let host = self.netlink().host().await?;
        let ports = asked.config.ports().filter(|(name, _, _)| only.is_none_or(|only| only == *name));
        ports.map(|(name, _, port)| self.port_row(name, port, asked.runtime.vport(&port.device), &host)).collect()
    }

    /// One device, with every network that it serves.
    pub async fn port(&self, device: &DeviceName) -> Result<PortDetail> {
        let mut ports = self.ports(None).await?;
        ports.retain(|port| port.device == *device);
        let networks = ports.iter().map(|port| port.network.clone()).collect();
        let first = ports.into_iter().next();
        let port = first.ok_or_else(|| Refusal::NotAPortAnywhere(device.clone()))?;
        Ok(PortDetail { port, networks })
    }

    fn port_row(&self, name: &NetworkName, port: &PortConfig, id: Option<VportId>, host: &Host) -> Result<Port> {
        let link = host.link(port.device.as_str());
        let stats = id.map(|id| self.tables().vport_stats(id)).transpose()?;
        let (rx, tx) = stats.as_ref().map(counters).unwrap_or_default();
        Ok(Port {
            device: port.device.clone(),
            network: name.clone(),
            role: if port.uplink { Role::Uplink } else { Role::Guest },
            accel: "tc".into(),
            state: port_state(link),
            ifindex: link.map(|link| link.ifindex),
            device_mac: link.map(|link| link.mac.to_string()),
            mtu: link.map(|link| link.mtu),
            mac: port.mac,
            ip: port.addresses.clone(),
            rx,
            tx,
            drops: stats.as_ref().map(drops).unwrap_or_default(),
        })
    }

    pub async fn forwards(&self, only: Option<&NetworkName>) -> Result<Vec<Forward>> {
        let config = self.asked().await.config;
        if let Some(name) = only {
            config.network(name)?;
        }
        let forwards = config.forwards().filter(|(name, _)| only.is_none_or(|only| only == *name));
        let row = |(name, forward): (&NetworkName, &crate::config::ForwardConfig)| Forward {
            network: name.clone(),
            protocol: forward.protocol,
            listen: forward.listen,
            target: forward.target(),
            loopback: forward.loopback,
        };
        Ok(forwards.map(row).collect())
    }

    pub async fn fdb(&self, name: &NetworkName) -> Result<Vec<FdbEntry>> {
        let asked = self.asked().await;
        asked.config.network(name)?;
        let Some(id) = asked.runtime.network(name) else { return Ok(Vec::new()) };
        let mut rows = tokio::task::block_in_place(|| self.tables().fdb(Some(id)))?;
        rows.sort_by_key(|row| (row.vlan, row.mac.0));
        let entry = |row: crate::datapath::FdbRow| FdbEntry {
            mac: row.mac.to_string(),
            vlan: row.vlan,
            port: asked.runtime.vport_device(row.vport).map_or_else(|| "?".into(), ToString::to_string),
            kind: kind_name(row.kind).into(),
            age: (row.kind == FdbKind::Learned).then_some(row.age_seconds),
            moves: row.moves.into(),
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    pub async fn stats(&self) -> Result<Stats> {
        let asked = self.asked().await;
        let mut devices: Vec<&DeviceName> = asked.config.ports().map(|(_, _, port)| &port.device).collect();
        devices.sort();
        devices.dedup();
        let (mut rx, mut tx) = (Counters::default(), Counters::default());
        let mut sums = vec![0; DropReason::SLOTS];
        let gateways = asked.config.networks.keys().filter_map(|name| asked.runtime.vport(&name.gateway_device()));
        for id in devices.iter().filter_map(|device| asked.runtime.vport(device)).chain(gateways) {
            let stats = self.tables().vport_stats(id)?;
            let (more_rx, more_tx) = counters(&stats);
            rx = sum(rx, more_rx);
            tx = sum(tx, more_tx);
            sums.iter_mut().zip(stats.drops).for_each(|(sum, count)| *sum += count);
        }
        let dropped = DropReason::ALL.iter().map(|reason| (reason, sums[*reason as usize]));
        let drops = dropped.filter(|(_, count)| *count > 0).map(|(reason, count)| Drops {
            reason: reason.name().into(),
            count,
            meaning: reason.help().into(),
        });
        Ok(Stats {
            networks: asked.config.networks.len(),
            ports: devices.len(),
            rx,
            tx,
            drops: drops.collect(),
            events: self.tables().event_counts()?.into_iter().map(|(name, count)| (name.into(), count)).collect(),
            tables: tokio::task::block_in_place(|| self.table_fill())?,
            backend: self.backend().into(),
        })
    }

    fn table_fill(&self) -> Result<Vec<Table>> {
        let row = |fill: TableFill| Table {
            name: fill.table.to_lowercase().replace('_', "-"),
            used: fill.used as u64,
            capacity: fill.capacity.into(),
        };
        Ok(self.tables().fill()?.into_iter().map(row).collect())
    }
}

fn uplinks(network: &NetworkConfig) -> Vec<DeviceName> {
    network.ports.iter().filter(|port| port.uplink).map(|port| port.device.clone()).collect()
}

fn gateway(name: &NetworkName, network: &NetworkConfig) -> Option<Gateway> {
    let mac = network.gateway_mac.filter(|_| network.mode.has_gateway())?;
    let addresses = network.gateway_addresses();
    let addresses = addresses.map(|(address, subnet)| format!("{address}/{}", subnet.net().prefix_len()));
    Some(Gateway { device: name.gateway_device(), mac, addresses: addresses.collect() })
}

fn port_state(link: Option<&Link>) -> PortState {
    match link {
        None => PortState::Absent,
        Some(link) if link.has_carrier => PortState::Up,
        Some(_) => PortState::Down,
    }
}

fn counters(stats: &VportStats) -> (Counters, Counters) {
    (
        Counters { frames: stats.rx_frames, bytes: stats.rx_bytes },
        Counters { frames: stats.tx_frames, bytes: stats.tx_bytes },
    )
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters { frames: a.frames + b.frames, bytes: a.bytes + b.bytes }
}

fn drops(stats: &VportStats) -> BTreeMap<String, u64> {
    let counts = DropReason::ALL.iter().map(|reason| (reason.name(), stats.drops[*reason as usize]));
    counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

fn kind_name(kind: FdbKind) -> &'static str {
    match kind {
        FdbKind::Learned => "learned",
        FdbKind::Static => "static",
        FdbKind::Local => "local",
    }
}
