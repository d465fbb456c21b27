//! Takes steps.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use vnet_common::{
    Be16, Ip,
    config::{NatPolicy, NetworkId, SubnetKey},
    fdb::FdbKind,
    forward::ForwardKey,
};

use super::plan::Step;
use crate::{
    config::DeviceName,
    datapath::{Datapath, Origin, Tables},
    error::Result,
    host::{
        PortSet,
        sysctl::{self, DeviceSysctl},
    },
    netlink::{Host, Link, LinkChange, Netlink},
    state::{HostSetting, Journal, Record},
};

/// What steps are taken with.
pub(super) struct Applier<'a> {
    pub(super) datapath: &'a mut Datapath,
    pub(super) netlink: &'a Netlink,
    pub(super) journal: &'a mut Journal,
    pub(super) host: &'a Host,
}

impl Applier<'_> {
    pub(super) async fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::TurnOn(ifindex, setting) => self.turn_on(*ifindex, *setting).await,
            Step::TurnBack(ifindex, setting) => self.turn_back(*ifindex, *setting).await,
            Step::ReservePorts(wanted) => self.reserve_ports(wanted),
            Step::Detach(ifindex, hook) => Ok(self.datapath.detach(*ifindex, *hook)?),
            Step::Attach(ifindex, hook) => Ok(self.datapath.attach(*ifindex, &self.host.name_of(*ifindex), *hook)?),
            Step::DetachSockets => Ok(self.datapath.detach_sockets()?),
            Step::AttachSockets => Ok(self.datapath.attach_sockets()?),
            // System calls on maps: short, or (flushes) as long as the table.
            step => tokio::task::block_in_place(|| write(self.datapath.tables(), step)),
        }
    }

    async fn turn_on(&mut self, ifindex: u32, setting: HostSetting) -> Result<()> {
        // Gone between the look and the step: the next look sees to it.
        let Some(link) = self.host.link_by_index(ifindex) else { return Ok(()) };
        if is_on(link, setting)? {
            return Ok(());
        }
        let Ok(device) = link.name.parse::<DeviceName>() else { return Ok(()) };
        self.journal.record(Record { device, ifindex, setting })?;
        self.switch(link, setting, true).await
    }

    async fn turn_back(&mut self, ifindex: u32, setting: HostSetting) -> Result<()> {
        if !self.journal.has_record(ifindex, setting) {
            return Ok(());
        }
        if let Some(link) = self.host.link_by_index(ifindex) {
            self.switch(link, setting, false).await?;
        }
        self.journal.forget(ifindex, setting)
    }

    async fn switch(&self, link: &Link, setting: HostSetting, on: bool) -> Result<()> {
        let change = match setting {
            HostSetting::Up => LinkChange::Up(on),
            HostSetting::Promiscuous => LinkChange::Promiscuous(on),
            HostSetting::DisableIpv6 => return DeviceSysctl::DisableIpv6.set(&link.name, on),
        };
        self.netlink.change_link(link.ifindex, &link.name, change).await
    }

    /// Adds what is missing to the host's list and takes away what only we had put there.
    fn reserve_ports(&mut self, wanted: &PortSet) -> Result<()> {
        let current = sysctl::reserved_ports()?;
        let ours: PortSet = self.journal.reserved_ports().parse().unwrap_or_default();
        let kept = current.difference(&ours.difference(wanted));
        let added = wanted.difference(&kept);
        // Written down before it is made, in case this is the last thing done.
        self.journal.set_reserved_ports(ours.union(&added).to_string())?;
        let next = kept.union(wanted);
        if next != current {
            sysctl::set_reserved_ports(&next)?;
        }
        let still_ours = ours.difference(&ours.difference(wanted));
        self.journal.set_reserved_ports(still_ours.union(&added).to_string())
    }
}

/// The switch as it is now.
pub(super) fn is_on(link: &Link, setting: HostSetting) -> Result<bool> {
    Ok(match setting {
        HostSetting::Up => link.is_up,
        HostSetting::Promiscuous => link.is_promiscuous,
        // A host without IPv6 does not speak it.
        HostSetting::DisableIpv6 => DeviceSysctl::DisableIpv6.get(&link.name)?.unwrap_or(true),
    })
}

fn write(tables: &Tables, step: &Step) -> Result<()> {
    match step {
        Step::RemoveForwards(keys) => {
            tables.forwards_remove(keys)?;
            end_forwarded(tables, keys)?;
        }
        Step::InsertForwards(entries) => tables.forwards_insert(entries)?,
        Step::Unbind(ifindex) => drop(tables.unbind_ifindex(*ifindex)?),
        Step::Bind(ifindex, id) => tables.bind_ifindex(*ifindex, *id)?,
        Step::RemoveFdb(key) => drop(tables.fdb_remove(key)?),
        Step::InsertFdb(key, id, kind) => tables.fdb_insert(key, *id, *kind, true)?,
        Step::EndNetwork(id) => {
            tables.flush_connections(|connection| connection.network == *id)?;
            tables.flush_bindings(*id)?;
            tables.fdb_flush(*id, &[FdbKind::Learned, FdbKind::Static, FdbKind::Local])?;
            tables.clear_flood(*id)?;
            tables.clear_network(*id)?;
        }
        Step::SetNetwork(id, settings) => tables.set_network(*id, settings)?,
        Step::DecideAgain(id) => tables.bump_generation(*id)?,
        Step::EndStranded(networks) => end_stranded(tables, networks)?,
        Step::SetFlood(id, members) => tables.set_flood(*id, members)?,
        Step::ClearFlood(id) => drop(tables.clear_flood(*id)?),
        Step::SetVport { id, entry, is_new } => {
            if *is_new {
                tables.reset_vport_stats(*id)?;
            }
            tables.set_vport(*id, entry)?;
        }
        Step::ForgetGuests(id) => drop(tables.fdb_drop_vport(*id)?),
        Step::ClearVport(id) => {
            tables.fdb_drop_vport(*id)?;
            tables.clear_vport(*id)?;
            tables.reset_vport_stats(*id)?;
        }
        Step::SetLocals(locals) => {
            let locals: Vec<(Ip, u32)> = locals.iter().map(|(address, ifindex)| (*address, *ifindex)).collect();
            tables.set_locals(&locals)?;
        }
        Step::SetExternals(externals) => {
            let externals: Vec<_> = externals.iter().map(|(address, network)| (*address, *network)).collect();
            tables.set_externals(&externals)?;
        }
        Step::SetRoutedSubnets(subnets) => {
            let subnets: Vec<_> = subnets
                .iter()
                .map(|((length, address), network)| (SubnetKey { length: *length, address: *address }, *network))
                .collect();
            tables.set_routed_subnets(&subnets)?;
        }
        // Not in the tables.
        Step::TurnOn(..) | Step::TurnBack(..) | Step::ReservePorts(_) | Step::Detach(..) | Step::Attach(..) => {}
        Step::DetachSockets | Step::AttachSockets => {}
    }
    Ok(())
}

/// Ends the connections of these networks whose outside address is none of theirs any more, and frees the
/// bindings that held it.
fn end_stranded(tables: &Tables, networks: &BTreeSet<NetworkId>) -> Result<()> {
    let outside = Outside {
        locals: tables.locals()?.into_iter().map(|(address, _)| address.into()).collect(),
        pools: tables.networks()?.into_iter().map(|(id, settings)| (id, settings.nat)).collect(),
    };
    tables.flush_connections(|connection| {
        networks.contains(&connection.network) && !outside.has(connection.network, connection.outside_address())
    })?;
    for network in networks {
        tables.flush_bindings(*network)?;
    }
    Ok(())
}

/// The addresses that connections have on the outside: the host's own, and the networks' pools.
struct Outside {
    locals: HashSet<IpAddr>,
    pools: HashMap<NetworkId, NatPolicy>,
}

impl Outside {
    fn has(&self, network: NetworkId, address: IpAddr) -> bool {
        let in_pool =
            |nat: &NatPolicy| (IpAddr::from(nat.first_address)..=IpAddr::from(nat.last_address)).contains(&address);
        self.locals.contains(&address) || self.pools.get(&network).is_some_and(in_pool)
    }
}

/// Ends the connections that came in through these forwards.
fn end_forwarded(tables: &Tables, keys: &[ForwardKey]) -> Result<()> {
    let keys: HashSet<&ForwardKey> = keys.iter().collect();
    tables.flush_connections(|connection| {
        let to = &connection.original;
        let key = |address| ForwardKey::new(address, Be16::new(to.dst_port), connection.protocol);
        connection.origin == Origin::Forward
            && [Ip::from(to.dst), Ip::UNSPECIFIED].into_iter().any(|a| keys.contains(&key(a)))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_pool_is_as_good_as_one_of_the_host() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let [first_address, last_address] = ["192.0.2.16", "192.0.2.31"].map(|text| Ip::from(address(text)));
        let pool = NatPolicy { first_address, last_address, ..NatPolicy::new(1024, 65535) };
        let outside = Outside {
            locals: [address("198.51.100.2")].into(),
            pools: [(1, pool), (2, NatPolicy::new(1024, 65535))].into(),
        };
        for text in ["198.51.100.2", "192.0.2.16", "192.0.2.31"] {
            assert!(outside.has(1, address(text)), "{text}");
        }
        assert!(!outside.has(1, address("192.0.2.32")) && !outside.has(2, address("192.0.2.16")));
    }
}
