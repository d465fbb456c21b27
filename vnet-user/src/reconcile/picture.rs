//! Everything that vnet keeps in the kernel, as one value.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vnet_common::{
    Ip,
    config::NetworkId,
    fdb::{FdbKey, FdbKind},
    forward::{ForwardEntry, ForwardKey},
    vport::{VportEntry, VportId},
};

use super::plan::Step;
use crate::{
    datapath::{Datapath, Hook, NetworkSettings},
    error::Result,
    host::PortSet,
    state::{HostSetting, Journal},
};

/// SNAT range of a network that does not translate.
pub const UNTRANSLATED: (u16, u16) = (0, 0);

/// The wanted or the present state of tables, programs and host settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub vports: BTreeMap<VportId, VportEntry>,
    /// ifindex → vport.
    pub bindings: BTreeMap<u32, VportId>,
    pub networks: BTreeMap<NetworkId, NetworkSettings>,
    pub floods: BTreeMap<NetworkId, Vec<VportId>>,
    /// Static and local entries; learned ones are the datapath's own.
    pub fdb: HashMap<FdbKey, (VportId, FdbKind)>,
    pub locals: HashMap<Ip, u32>,
    /// Prefix length over 128 bits, and network address.
    pub routed_subnets: HashMap<(u32, Ip), NetworkId>,
    /// External addresses of pools.
    pub externals: HashMap<Ip, NetworkId>,
    pub forwards: HashMap<ForwardKey, ForwardEntry>,
    /// Programs on devices.
    pub hooks: BTreeSet<(u32, Hook)>,
    /// Programs on the calls of the host's own sockets.
    pub sockets: bool,
    /// Switches turned on, by ifindex.
    pub settings: BTreeSet<(u32, HostSetting)>,
    /// Ports that the host must not pick for its own connections.
    pub reserved_ports: PortSet,
}

impl Picture {
    /// What the pinned tables hold, and what was changed on the host.
    pub fn present(datapath: &Datapath, journal: &Journal) -> Result<Self> {
        let tables = datapath.tables();
        let networks: BTreeMap<_, _> = tables.networks()?.into_iter().collect();
        let mut floods = BTreeMap::new();
        for id in networks.keys() {
            let members = tables.flood(*id)?;
            if !members.is_empty() {
                floods.insert(*id, members);
            }
        }
        let fixed = tables.fdb(None)?.into_iter().filter(|row| row.kind != FdbKind::Learned);
        let subnets = tables.routed_subnets()?.into_iter();
        Ok(Self {
            vports: tables.vports()?.into_iter().collect(),
            bindings: tables.bindings_by_ifindex()?.into_iter().collect(),
            networks,
            floods,
            fdb: fixed.map(|row| (row.key(), (row.vport, row.kind))).collect(),
            locals: tables.locals()?.into_iter().collect(),
            routed_subnets: subnets.map(|(key, network)| ((key.length, key.address), network)).collect(),
            externals: tables.externals()?.into_iter().collect(),
            forwards: tables.forwards()?.into_iter().collect(),
            hooks: datapath.attached().into_iter().collect(),
            sockets: datapath.has_sockets(),
            settings: journal.records().iter().map(|record| (record.ifindex, record.setting)).collect(),
            reserved_ports: journal.reserved_ports().parse().unwrap_or_default(),
        })
    }

    /// Follows one step that was taken.
    pub fn follow(&mut self, step: &Step) {
        match step {
            Step::RemoveForwards(keys) => {
                for key in keys {
                    self.forwards.remove(key);
                }
            }
            Step::InsertForwards(entries) => self.forwards.extend(entries.iter().copied()),
            Step::Detach(ifindex, hook) => drop(self.hooks.remove(&(*ifindex, *hook))),
            Step::Attach(ifindex, hook) => drop(self.hooks.insert((*ifindex, *hook))),
            Step::DetachSockets => self.sockets = false,
            Step::AttachSockets => self.sockets = true,
            Step::Unbind(ifindex) => drop(self.bindings.remove(ifindex)),
            Step::Bind(ifindex, id) => drop(self.bindings.insert(*ifindex, *id)),
            Step::RemoveFdb(key) => drop(self.fdb.remove(key)),
            Step::InsertFdb(key, id, kind) => drop(self.fdb.insert(*key, (*id, *kind))),
            Step::EndNetwork(id) => {
                self.networks.remove(id);
                self.floods.remove(id);
                self.fdb.retain(|key, _| key.network != *id);
            }
            Step::SetNetwork(id, settings) => drop(self.networks.insert(*id, settings.clone())),
            Step::SetFlood(id, members) => drop(self.floods.insert(*id, members.clone())),
            Step::ClearFlood(id) => drop(self.floods.remove(id)),
            Step::SetVport { id, entry, .. } => drop(self.vports.insert(*id, *entry)),
            Step::ForgetGuests(_) | Step::DecideAgain(_) | Step::EndStranded(_) => {}
            Step::ClearVport(id) => drop(self.vports.remove(id)),
            Step::SetLocals(locals) => self.locals = locals.clone(),
            Step::SetRoutedSubnets(subnets) => self.routed_subnets = subnets.clone(),
            Step::SetExternals(externals) => self.externals = externals.clone(),
            Step::TurnOn(ifindex, setting) => drop(self.settings.insert((*ifindex, *setting))),
            Step::TurnBack(ifindex, setting) => drop(self.settings.remove(&(*ifindex, *setting))),
            Step::ReservePorts(ports) => self.reserved_ports = ports.clone(),
        }
    }
}
