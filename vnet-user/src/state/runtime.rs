//! The numbers by which the datapath knows networks and ports. Pinned flows and FDB entries hold
//! them, so they are kept over restarts of the daemon, and a number is not soon used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use vnet_common::{
    config::{MAX_NETWORKS, NetworkId},
    vport::{MAX_VPORTS, VportId},
};

use super::{Incarnation, file};
use crate::{
    Refusal,
    config::{Config, DeviceName, NetworkName},
    error::Result,
};

/// Numbers given out, and the file that keeps them.
#[derive(Clone, Debug)]
pub struct Runtime {
    path: PathBuf,
    numbers: Numbers,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    incarnation: Incarnation,
    last_network: u32,
    last_vport: u32,
    #[serde(default)]
    network: BTreeMap<NetworkName, NetworkId>,
    /// By device: a device is one vport, whatever the number of networks that it serves.
    #[serde(default)]
    vport: BTreeMap<DeviceName, VportId>,
}

impl Runtime {
    /// What was kept, if it is of this incarnation and readable. Otherwise nothing: numbers can be
    /// found again in the pinned tables, or given out anew.
    pub fn load(run_dir: &Path, incarnation: &Incarnation) -> Result<Self> {
        let path = run_dir.join("runtime.toml");
        let kept = file::read(&path)?.and_then(|text| match toml::from_str::<Numbers>(&text) {
            Ok(numbers) => Some(numbers),
            Err(error) => {
                tracing::warn!("{} is broken and not used: {}", path.display(), error.message());
                None
            }
        });
        let numbers = kept
            .filter(|numbers| numbers.incarnation == *incarnation)
            .unwrap_or_else(|| Numbers { incarnation: incarnation.clone(), ..Numbers::default() });
        Ok(Self { path, numbers })
    }

    pub fn network(&self, name: &NetworkName) -> Option<NetworkId> {
        self.numbers.network.get(name).copied()
    }

    pub fn vport(&self, device: &DeviceName) -> Option<VportId> {
        self.numbers.vport.get(device).copied()
    }

    pub fn network_name(&self, id: NetworkId) -> Option<&NetworkName> {
        self.numbers.network.iter().find(|(_, number)| **number == id).map(|(name, _)| name)
    }

    pub fn vport_device(&self, id: VportId) -> Option<&DeviceName> {
        self.numbers.vport.iter().find(|(_, number)| **number == id).map(|(device, _)| device)
    }

    /// Takes over numbers found in the pinned tables, for names that have none.
    pub fn adopt(&mut self, networks: &[(NetworkName, NetworkId)], vports: &[(DeviceName, VportId)]) -> Result<()> {
        let mut next = self.numbers.clone();
        for (name, id) in networks {
            if !next.network.values().any(|taken| taken == id) {
                next.network.entry(name.clone()).or_insert(*id);
            }
        }
        for (device, id) in vports {
            if !next.vport.values().any(|taken| taken == id) {
                next.vport.entry(device.clone()).or_insert(*id);
            }
        }
        // What was given out last is not known: go on behind the highest.
        next.last_network = next.network.values().map(|id| u32::from(*id)).fold(next.last_network, u32::max);
        next.last_vport = next.vport.values().copied().fold(next.last_vport, u32::max);
        self.replace(next)
    }

    /// Gives numbers to everything in `config` that has none, and writes them down before anybody uses
    /// them.
    pub fn allocate(&mut self, config: &Config) -> Result<()> {
        let mut next = self.numbers.clone();
        for (name, network) in &config.networks {
            next.take_network(name)?;
            if network.mode.has_gateway() {
                next.take_vport(&name.gateway_device())?;
            }
        }
        for (_, _, port) in config.ports() {
            next.take_vport(&port.device)?;
        }
        self.replace(next)
    }

    /// Forgets the numbers of everything that is not in `config`.
    pub fn release(&mut self, config: &Config) -> Result<()> {
        let mut devices: BTreeSet<DeviceName> = config.ports().map(|(_, _, port)| port.device.clone()).collect();
        let gateways = config.networks.iter().filter(|(_, network)| network.mode.has_gateway());
        devices.extend(gateways.map(|(name, _)| name.gateway_device()));
        let mut next = self.numbers.clone();
        next.network.retain(|name, _| config.networks.contains_key(name));
        next.vport.retain(|device, _| devices.contains(device));
        self.replace(next)
    }

    fn replace(&mut self, next: Numbers) -> Result<()> {
        if next != self.numbers {
            file::write(&self.path, &file::to_toml(&next)?)?;
            self.numbers = next;
        }
        Ok(())
    }
}

impl Numbers {
    fn take_network(&mut self, name: &NetworkName) -> Result<()> {
        if self.network.contains_key(name) {
            return Ok(());
        }
        let taken: BTreeSet<u32> = self.network.values().map(|id| u32::from(*id)).collect();
        let most = MAX_NETWORKS as usize - 1;
        let id = next_free(self.last_network, MAX_NETWORKS, &taken).ok_or(Refusal::TooManyNetworks { most })?;
        self.last_network = id;
        self.network.insert(name.clone(), id as NetworkId);
        Ok(())
    }

    fn take_vport(&mut self, device: &DeviceName) -> Result<()> {
        if self.vport.contains_key(device) {
            return Ok(());
        }
        let taken: BTreeSet<u32> = self.vport.values().copied().collect();
        let most = MAX_VPORTS as usize - 1;
        let id = next_free(self.last_vport, MAX_VPORTS, &taken).ok_or(Refusal::TooManyVports { most })?;
        self.last_vport = id;
        self.vport.insert(device.clone(), id);
        Ok(())
    }
}

/// The first free number after `last`, round and round: a number just given back may still stand in
/// some flow.
fn next_free(last: u32, slots: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    (last + 1..slots).chain(1..=last).find(|id| !taken.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, NetworkConfig};

    fn config(names: &[&str]) -> Config {
        let networks = names.iter().map(|name| (name.parse().unwrap(), NetworkConfig::new(Mode::Nat)));
        Config { networks: networks.collect() }
    }

    #[test]
    fn numbers_outlive_the_daemon_and_are_not_soon_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let here = Incarnation::default();
        let mut runtime = Runtime::load(dir.path(), &here).unwrap();
        runtime.allocate(&config(&["a", "b"])).unwrap();
        let (a, b): (NetworkName, NetworkName) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!((runtime.network(&a), runtime.network(&b)), (Some(1), Some(2)));
        runtime.release(&config(&["b"])).unwrap();

        let mut again = Runtime::load(dir.path(), &here).unwrap();
        assert_eq!((again.network(&a), again.network(&b)), (None, Some(2)));
        again.allocate(&config(&["a", "b"])).unwrap();
        assert_eq!((again.network(&a), again.network(&b)), (Some(3), Some(2)));
        assert_eq!(again.network_name(3), Some(&a));
    }

    #[test]
    fn numbers_of_another_boot_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        Runtime::load(dir.path(), &Incarnation::default()).unwrap().allocate(&config(&["a"])).unwrap();
        let there = Incarnation::current().unwrap();
        assert_eq!(Runtime::load(dir.path(), &there).unwrap().network(&"a".parse().unwrap()), None);
    }

    #[test]
    fn numbers_found_in_the_tables_are_kept_unless_they_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let here = Incarnation::default();
        let mut runtime = Runtime::load(dir.path(), &here).unwrap();
        runtime
            .adopt(&[("a".parse().unwrap(), 7), ("b".parse().unwrap(), 7)], &[("tap0".parse().unwrap(), 9)])
            .unwrap();
        let again = Runtime::load(dir.path(), &here).unwrap();
        assert_eq!(again.network(&"a".parse().unwrap()), Some(7));
        assert_eq!(again.network(&"b".parse().unwrap()), None);
        assert_eq!(again.vport(&"tap0".parse().unwrap()), Some(9));
    }

    #[test]
    fn the_last_free_number_is_found() {
        let taken: BTreeSet<u32> = [1, 2, 4].into();
        assert_eq!(next_free(4, 5, &taken), Some(3));
        assert_eq!(next_free(4, 5, &(1..5).collect()), None);
        assert_eq!(next_free(0, 5, &BTreeSet::new()), Some(1));
    }
}
