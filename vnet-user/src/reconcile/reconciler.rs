//! Keeps the kernel as the configuration says.

use std::collections::BTreeSet;

use vnet_common::config::NetworkId;

use super::{Picture, apply::is_on, failures::Failures, plan::networks_of};
use crate::{
    config::{Config, DeviceName, NetworkName},
    datapath::{Datapath, Tables, TcBackend},
    error::Result,
    netlink::{Host, Netlink},
    state::{Journal, Runtime},
};

pub struct Reconciler {
    pub(super) datapath: Datapath,
    pub(super) netlink: Netlink,
    pub(super) journal: Journal,
    pub runtime: Runtime,
    pub(super) present: Picture,
    /// What could not be done when the host was last followed. It has been logged, and no change is
    /// refused for it.
    standing: Vec<String>,
}

impl Reconciler {
    /// Takes over what is in the kernel.
    pub async fn adopt(
        datapath: Datapath,
        netlink: Netlink,
        mut journal: Journal,
        mut runtime: Runtime,
        config: &Config,
    ) -> Result<Self> {
        let host = netlink.host().await?;
        forget_what_is_off(&mut journal, &host)?;
        let present = Picture::present(&datapath, &journal)?;
        let (networks, vports) = recover_numbers(config, &present, &host);
        runtime.adopt(&networks, &vports)?;
        Ok(Self { datapath, netlink, journal, runtime, present, standing: Vec::new() })
    }

    /// Makes the kernel hold `new`, wholly or not at all: what was done is undone when a step fails.
    pub async fn change(&mut self, old: &Config, new: &Config) -> Result<()> {
        self.runtime.allocate(new)?;
        let mut failures = Failures::strict(self.standing.clone());
        let result = self.run(new, &mut failures).await;
        if result.is_err() {
            self.undo(old).await;
        }
        result
    }

    /// Goes back to `old`, as far as the kernel lets us.
    pub async fn undo(&mut self, old: &Config) {
        self.settle(old).await;
        if let Err(error) = self.runtime.release(old) {
            tracing::warn!("undoing a change: {error}");
        }
    }

    /// Makes the kernel hold `config` as far as it can; true where that is wholly. What cannot be done is
    /// logged once, for as long as it stands.
    pub async fn settle(&mut self, config: &Config) -> bool {
        let mut failures = Failures::lenient();
        let result = match self.runtime.allocate(config) {
            Ok(()) => self.run(config, &mut failures).await,
            Err(error) => Err(error),
        };
        let met = failures.into_texts(result);
        for text in met.iter().filter(|text| !self.standing.contains(text)) {
            tracing::warn!("{text}");
        }
        self.standing = met;
        self.standing.is_empty()
    }

    /// The tables, to be read (and learned entries flushed) beside the reconciler.
    pub fn tables(&self) -> &Tables {
        self.datapath.tables()
    }

    pub fn backend(&self) -> TcBackend {
        self.datapath.backend()
    }

    /// Has the paths of all networks that reach beyond their own decided again: a route changed.
    pub fn decide_all_again(&self) -> Result<()> {
        self.decide_again(self.present.networks.keys().copied())
    }

    /// Has the paths decided again that may lead over the device: a neighbour on it changed.
    pub fn decide_again_over(&self, ifindexes: &[u32]) -> Result<()> {
        let vports = ifindexes.iter().filter_map(|ifindex| self.present.bindings.get(ifindex));
        let networks: BTreeSet<NetworkId> = vports.flat_map(|id| networks_of(&self.present, *id)).collect();
        self.decide_again(networks)
    }

    fn decide_again(&self, networks: impl IntoIterator<Item = NetworkId>) -> Result<()> {
        for id in networks {
            if self.present.networks.get(&id).is_some_and(|settings| settings.mode.has_gateway()) {
                self.tables().bump_generation(id)?;
            }
        }
        Ok(())
    }
}

/// A switch that was written down and is off now was never turned on, or somebody turned it back: it
/// is not taken for done, and nothing is left to undo.
fn forget_what_is_off(journal: &mut Journal, host: &Host) -> Result<()> {
    for record in journal.records().to_vec() {
        let link = host.link_by_index(record.ifindex);
        if !link.map_or(Ok(false), |link| is_on(link, record.setting))? {
            journal.forget(record.ifindex, record.setting)?;
        }
    }
    Ok(())
}

type Numbers = (Vec<(NetworkName, u16)>, Vec<(DeviceName, u32)>);

/// Numbers as the pinned tables have them, should the file with them be lost: a device that is bound
/// to a vport keeps it, and a network is known by the devices on it.
fn recover_numbers(config: &Config, present: &Picture, host: &Host) -> Numbers {
    let (mut networks, mut vports) = (Vec::new(), Vec::new());
    let gateways = config.networks.keys().map(|name| (name, name.gateway_device()));
    let ports = config.ports().map(|(name, _, port)| (name, port.device.clone()));
    for (name, device) in gateways.chain(ports) {
        let Some(link) = host.link(device.as_str()) else { continue };
        let Some(id) = present.bindings.get(&link.ifindex) else { continue };
        let Some(entry) = present.vports.get(id) else { continue };
        if entry.network != vnet_common::config::OUTSIDE {
            networks.push((name.clone(), entry.network));
        }
        vports.push((device, *id));
    }
    (networks, vports)
}
