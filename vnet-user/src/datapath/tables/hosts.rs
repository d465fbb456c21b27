//! What the host itself is: its own addresses, those of its pools, and the subnets of its routed networks.
//!
//! Each is set as a whole and written as a difference: an entry that stays is never missing.

use std::collections::HashMap;

use vnet_common::{
    Ip,
    config::{NetworkId, SubnetKey},
    vport::LocalEntry,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Tables, table::Table};
use crate::datapath::TableError;

impl Tables {
    /// Sets the host's own addresses, each with the device that carries it.
    pub fn set_locals(&self, addresses: &[(Ip, u32)]) -> Result<(), TableError> {
        let wanted = addresses.iter().map(|(address, ifindex)| (*address, LocalEntry { ifindex: *ifindex }));
        self.0.writing(|| replace(&self.0.locals, wanted))
    }

    /// The host's own addresses as the datapath knows them.
    pub fn locals(&self) -> Result<Vec<(Ip, u32)>, TableError> {
        Ok(self.0.locals.entries()?.into_iter().map(|(address, entry)| (address, entry.ifindex)).collect())
    }

    /// Sets the external addresses of pools, each with its network.
    pub fn set_externals(&self, addresses: &[(Ip, NetworkId)]) -> Result<(), TableError> {
        let wanted = addresses.iter().map(|(address, network)| (*address, u32::from(*network)));
        self.0.writing(|| replace(&self.0.externals, wanted))
    }

    /// The external addresses of pools as the datapath knows them.
    pub fn externals(&self) -> Result<Vec<(Ip, NetworkId)>, TableError> {
        let entries = self.0.externals.entries()?;
        Ok(entries.into_iter().map(|(address, network)| (address, network as NetworkId)).collect())
    }

    /// Sets the subnets of routed networks.
    pub fn set_routed_subnets(&self, subnets: &[(SubnetKey, NetworkId)]) -> Result<(), TableError> {
        let wanted = subnets.iter().map(|(key, network)| (masked(key), u32::from(*network)));
        self.0.writing(|| replace(&self.0.routed_subnets, wanted))
    }

    /// The subnets of routed networks as the datapath knows them.
    pub fn routed_subnets(&self) -> Result<Vec<(SubnetKey, NetworkId)>, TableError> {
        let entries = self.0.routed_subnets.entries()?;
        Ok(entries.into_iter().map(|(key, network)| (key, network as NetworkId)).collect())
    }
}

/// Makes `table` hold `wanted` and nothing else: first what is new or different, then away with the rest.
fn replace<K, V>(table: &Table<K, V>, wanted: impl Iterator<Item = (K, V)>) -> Result<(), TableError>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy + PartialEq,
{
    let wanted: HashMap<Vec<u8>, (K, V)> = wanted.map(|(key, value)| (key.as_bytes().to_vec(), (key, value))).collect();
    let present: HashMap<Vec<u8>, (K, V)> =
        table.entries()?.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), (key, value))).collect();
    for (bytes, (key, value)) in &wanted {
        if present.get(bytes).is_none_or(|(_, there)| there != value) {
            table.insert(key, *value)?;
        }
    }
    for (bytes, (key, _)) in &present {
        if !wanted.contains_key(bytes) {
            table.remove(key)?;
        }
    }
    Ok(())
}

/// The key with the bits behind its prefix cleared: the kernel's trie keeps them as they came, and the
/// difference would see two subnets in one.
fn masked(key: &SubnetKey) -> SubnetKey {
    let mut words = key.address.v6_raw();
    let mut left = key.length;
    for word in &mut words {
        *word &= match left {
            0 => 0,
            32.. => u32::MAX,
            bits => (u32::MAX << (32 - bits)).to_be(),
        };
        left = left.saturating_sub(32);
    }
    SubnetKey { length: key.length, address: Ip::from_v6_raw(words) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_subnet_key_loses_its_host_bits() {
        let key =
            |length: u32, address: [u8; 4]| SubnetKey { length: 96 + length, address: Ipv4Addr::from(address).into() };
        assert_eq!(masked(&key(20, [10, 1, 255, 7])), key(20, [10, 1, 240, 0]));
        assert_eq!(masked(&key(32, [10, 1, 255, 7])), key(32, [10, 1, 255, 7]));
        assert_eq!(masked(&key(0, [10, 1, 255, 7])), key(0, [0, 0, 0, 0]));
    }
}
