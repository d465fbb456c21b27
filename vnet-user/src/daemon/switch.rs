//! The one place where the configuration changes: each change is checked, made in the kernel, saved,
//! and undone wholly if any of that fails.

use std::sync::Arc;

use tokio::sync::Mutex;
use vnet_common::fdb::{FdbKey, FdbKind};

use super::connections::Reporter;
use crate::{
    Refusal,
    api::types::{ForwardRequest, NetworkRequest},
    config::{
        Config, DeviceName, FdbConfig, ForwardConfig, ForwardKeyText, MacAddress, NatChange, NetworkName, PortConfig,
        Vlan,
    },
    datapath::Tables,
    edit,
    error::Result,
    host::{HostPorts, sockets},
    netlink::{Host, Netlink},
    reconcile::Reconciler,
    state::{Runtime, StateDir},
};

pub struct Switch {
    held: Mutex<Held>,
    tables: Tables,
    netlink: Netlink,
    backend: &'static str,
    reporter: Reporter,
}

/// What changes, under one lock.
struct Held {
    config: Arc<Config>,
    state: StateDir,
    reconciler: Reconciler,
}

/// What is asked for and the numbers that it has, at one moment.
pub struct Asked {
    pub config: Arc<Config>,
    pub runtime: Runtime,
}

impl Switch {
    pub fn new(config: Config, state: StateDir, reconciler: Reconciler, netlink: Netlink) -> Result<Self> {
        let tables = reconciler.tables().clone();
        let reporter = Reporter::start(tables.clone())?;
        let backend = reconciler.backend().name();
        let held = Held { config: Arc::new(config), state, reconciler };
        Ok(Self { held: Mutex::new(held), tables, netlink, backend, reporter })
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub fn backend(&self) -> &'static str {
        self.backend
    }

    pub async fn asked(&self) -> Asked {
        let held = self.held.lock().await;
        Asked { config: held.config.clone(), runtime: held.reconciler.runtime.clone() }
    }

    /// Follows the host; true where nothing is left to do.
    pub async fn settle(&self) -> bool {
        let mut held = self.held.lock().await;
        let config = held.config.clone();
        held.reconciler.settle(&config).await
    }

    pub async fn decide_all_again(&self) {
        warn_of(self.held.lock().await.reconciler.decide_all_again());
    }

    pub async fn decide_again_over(&self, ifindexes: &[u32]) {
        warn_of(self.held.lock().await.reconciler.decide_again_over(ifindexes));
    }

    pub async fn add_network(&self, request: NetworkRequest) -> Result<()> {
        let mac = MacAddress::of_gateway(&request.name);
        let ports = HostPorts::read()?;
        self.change(|config, host| edit::add_network(config, host, &ports, request, mac)).await
    }

    pub async fn set_network(&self, name: &NetworkName, change: NatChange) -> Result<()> {
        let ports = HostPorts::read()?;
        self.change(|config, host| edit::set_network(config, host, &ports, name, &change)).await
    }

    pub async fn delete_network(&self, name: &NetworkName) -> Result<()> {
        self.change(|config, _| edit::delete_network(config, name)).await
    }

    pub async fn add_port(&self, network: &NetworkName, port: PortConfig) -> Result<()> {
        self.change(|config, host| edit::add_port(config, host, network, port)).await
    }

    pub async fn delete_port(&self, network: &NetworkName, device: &DeviceName) -> Result<()> {
        self.change(|config, _| edit::delete_port(config, network, device)).await
    }

    pub async fn add_forward(&self, network: &NetworkName, request: ForwardRequest) -> Result<()> {
        let forward = ForwardConfig::new(request.protocol, request.listen, request.target)?;
        let forward = forward.with_loopback(request.loopback)?;
        let sockets = sockets::bound(forward.protocol)?;
        self.change(|config, _| edit::add_forward(config, &sockets, network, forward)).await
    }

    pub async fn delete_forward(&self, network: &NetworkName, key: &ForwardKeyText) -> Result<()> {
        self.change(|config, _| edit::delete_forward(config, network, key)).await
    }

    pub async fn add_fdb_entry(&self, network: &NetworkName, entry: FdbConfig) -> Result<()> {
        self.change(|config, host| edit::add_fdb_entry(config, host, network, entry)).await
    }

    /// Deletes a static entry, or a learned one.
    pub async fn delete_fdb_entry(&self, network: &NetworkName, mac: MacAddress, vlan: Vlan) -> Result<()> {
        let was_static = self.change(|config, host| edit::delete_fdb_entry(config, host, network, mac, vlan)).await?;
        let id = self.asked().await.runtime.network(network);
        let key = id.map(|id| FdbKey::new(id, vlan.id(), mac.mac()));
        if was_static || key.map_or(Ok(false), |key| self.tables.fdb_remove(&key))? {
            return Ok(());
        }
        Err(Refusal::NoFdbEntry { network: network.clone(), mac, vlan: vlan.id() }.into())
    }

    /// Forgets what was learned; returns how many addresses.
    pub async fn flush_fdb(&self, network: &NetworkName) -> Result<usize> {
        let asked = self.asked().await;
        asked.config.network(network)?;
        match asked.runtime.network(network) {
            Some(id) => Ok(self.tables.fdb_flush(id, &[FdbKind::Learned])?),
            None => Ok(0),
        }
    }

    /// Makes the change that `edit` makes to the configuration, or none.
    async fn change<T>(&self, edit: impl FnOnce(&mut Config, &Host) -> Result<T, Refusal>) -> Result<T> {
        let mut held = self.held.lock().await;
        let host = self.netlink.host().await?;
        let mut next = (*held.config).clone();
        let done = edit(&mut next, &host)?;
        held.make(next).await?;
        Ok(done)
    }
}

impl Held {
    async fn make(&mut self, next: Config) -> Result<()> {
        if *self.config == next {
            return Ok(());
        }
        let staged = self.state.stage(&next)?;
        let old = self.config.clone();
        self.reconciler.change(&old, &next).await?;
        if let Err(error) = staged.commit() {
            self.reconciler.undo(&old).await;
            return Err(error);
        }
        // The numbers of what went are free again; that they still stand in a file harms nobody.
        warn_of(self.reconciler.runtime.release(&next));
        self.config = Arc::new(next);
        Ok(())
    }
}

fn warn_of(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}
