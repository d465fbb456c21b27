//! What was changed on the host, so that it can be undone.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Incarnation, file};
use crate::{config::DeviceName, error::Result};

/// Host changes not undone yet, and the file that keeps them. Each is written down before it is made.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Entries,
}

/// A property of a device that vnet turns on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostSetting {
    /// The host must not speak on a guest's port.
    DisableIpv6,
    /// A bridge's uplink takes frames for every guest.
    Promiscuous,
    /// A port that is down carries nothing.
    Up,
}

/// A property that was off and that vnet turned on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub device: DeviceName,
    /// Another device under the same name has its own settings.
    pub ifindex: u32,
    pub setting: HostSetting,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entries {
    incarnation: Incarnation,
    /// Gateway devices made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gateway_devices: Vec<DeviceName>,
    /// What was added to `net.ipv4.ip_local_reserved_ports`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reserved_ports: String,
    #[serde(default, rename = "turned_on", skip_serializing_if = "Vec::is_empty")]
    records: Vec<Record>,
}

impl Journal {
    pub fn load(run_dir: &Path, incarnation: &Incarnation) -> Result<Self> {
        let path = run_dir.join("host.toml");
        let kept = file::read(&path)?.and_then(|text| match toml::from_str::<Entries>(&text) {
            Ok(entries) => Some(entries),
            Err(error) => {
                tracing::warn!("{} is broken; what it held is not undone: {}", path.display(), error.message());
                None
            }
        });
        let entries = kept
            .filter(|entries| entries.incarnation == *incarnation)
            .unwrap_or_else(|| Entries { incarnation: incarnation.clone(), ..Entries::default() });
        Ok(Self { path, entries })
    }

    pub fn records(&self) -> &[Record] {
        &self.entries.records
    }

    pub fn has_record(&self, ifindex: u32, setting: HostSetting) -> bool {
        self.entries.records.iter().any(|record| record.ifindex == ifindex && record.setting == setting)
    }

    pub fn has_gateway_device(&self, device: &DeviceName) -> bool {
        self.entries.gateway_devices.contains(device)
    }

    pub fn gateway_devices(&self) -> &[DeviceName] {
        &self.entries.gateway_devices
    }

    pub fn reserved_ports(&self) -> &str {
        &self.entries.reserved_ports
    }

    pub fn record(&mut self, record: Record) -> Result<()> {
        self.change(|entries| {
            if !entries.records.contains(&record) {
                entries.records.push(record);
            }
        })
    }

    pub fn forget(&mut self, ifindex: u32, setting: HostSetting) -> Result<()> {
        self.change(|entries| entries.records.retain(|kept| kept.ifindex != ifindex || kept.setting != setting))
    }

    /// Forgets the settings of devices that are gone: there is nothing to undo.
    pub fn forget_devices(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<()> {
        self.change(|entries| entries.records.retain(|kept| !is_gone(kept.ifindex)))
    }

    pub fn record_gateway_device(&mut self, device: &DeviceName) -> Result<()> {
        self.change(|entries| {
            if !entries.gateway_devices.contains(device) {
                entries.gateway_devices.push(device.clone());
            }
        })
    }

    pub fn forget_gateway_device(&mut self, device: &DeviceName) -> Result<()> {
        self.change(|entries| entries.gateway_devices.retain(|kept| kept != device))
    }

    pub fn set_reserved_ports(&mut self, ranges: String) -> Result<()> {
        self.change(|entries| entries.reserved_ports = ranges)
    }

    fn change(&mut self, change: impl FnOnce(&mut Entries)) -> Result<()> {
        let mut next = self.entries.clone();
        change(&mut next);
        if next != self.entries {
            file::write(&self.path, &file::to_toml(&next)?)?;
            self.entries = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_known_after_a_restart_until_it_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let here = Incarnation::default();
        let record = Record { device: "tap0".parse().unwrap(), ifindex: 7, setting: HostSetting::Up };
        let mut journal = Journal::load(dir.path(), &here).unwrap();
        journal.record(record.clone()).unwrap();
        journal.record(record.clone()).unwrap();
        journal.record_gateway_device(&"vn-a".parse().unwrap()).unwrap();
        journal.set_reserved_ports("49152-65535".into()).unwrap();

        let mut again = Journal::load(dir.path(), &here).unwrap();
        assert_eq!(again.records(), [record]);
        assert!(again.has_gateway_device(&"vn-a".parse().unwrap()));
        assert_eq!(again.reserved_ports(), "49152-65535");
        again.forget(7, HostSetting::Up).unwrap();
        assert!(Journal::load(dir.path(), &here).unwrap().records().is_empty());
    }
}
