//! Networks: what the datapath is told of each.

use vnet_common::{
    Mac, Seconds, Word,
    config::{
        GENERATION_STEP, MAX_GATEWAY_ADDRESSES, MAX_UPLINKS, NatPolicy, NetworkEntry, NetworkId, NetworkMode, Subnet,
        Timeouts,
    },
    names::map,
    vport::VportId,
};
use zerocopy::FromZeros;

use super::{Tables, slot};
use crate::datapath::TableError;

/// A network as the daemon wants it: [`NetworkEntry`] without its generation, which the tables keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    pub mode: NetworkMode,
    /// MAC address of `vn-NAME`; zero where the mode has no gateway.
    pub gateway_mac: Mac,
    /// The gateway's vport; 0 where the mode has none.
    pub gateway_vport: VportId,
    /// Free slots are all zero.
    pub subnets: [Subnet; MAX_GATEWAY_ADDRESSES],
    /// Uplinks that guests may leave through; 0: free.
    pub uplinks: [VportId; MAX_UPLINKS],
    pub nat: NatPolicy,
    pub timeouts: Timeouts,
    /// Idle time after which a learned FDB entry ends, in seconds.
    pub ageing: Seconds,
}

impl NetworkSettings {
    fn to_entry(&self, generation: u32) -> NetworkEntry {
        NetworkEntry {
            mode: self.mode as u8,
            pad: 0,
            gateway_mac: self.gateway_mac,
            gateway_vport: self.gateway_vport,
            subnets: self.subnets,
            uplinks: self.uplinks,
            nat: self.nat,
            timeouts: self.timeouts,
            ageing: self.ageing,
            generation: Word::new(generation),
        }
    }

    /// `None` for a free slot.
    fn from_entry(entry: &NetworkEntry) -> Option<Self> {
        Some(Self {
            mode: entry.mode()?,
            gateway_mac: entry.gateway_mac,
            gateway_vport: entry.gateway_vport,
            subnets: entry.subnets,
            uplinks: entry.uplinks,
            nat: entry.nat,
            timeouts: entry.timeouts,
            ageing: entry.ageing,
        })
    }
}

impl Tables {
    /// Sets the network. Paths that its flows keep are decided again.
    pub fn set_network(&self, id: NetworkId, settings: &NetworkSettings) -> Result<(), TableError> {
        self.change_network(id, |generation, _| Some(settings.to_entry(generation)))
    }

    /// Frees the network's slot; its frames are dropped from now on. The generation lives on, so that no
    /// flow left over takes a later network of this number for its own.
    pub fn clear_network(&self, id: NetworkId) -> Result<(), TableError> {
        self.change_network(id, |generation, _| {
            let mut free = NetworkEntry::new_zeroed();
            free.generation = Word::new(generation);
            Some(free)
        })
    }

    /// Has every path of the network decided again: a route, neighbour or port changed. Nothing happens
    /// where there is no such network.
    pub fn bump_generation(&self, id: NetworkId) -> Result<(), TableError> {
        self.change_network(id, |generation, entry| {
            NetworkSettings::from_entry(&entry).map(|settings| settings.to_entry(generation))
        })
    }

    /// All networks in use.
    pub fn networks(&self) -> Result<Vec<(NetworkId, NetworkSettings)>, TableError> {
        let entries = self.0.networks.entries()?;
        let networks = entries.iter().filter_map(|(id, entry)| {
            let id = NetworkId::try_from(*id).ok()?;
            Some((id, NetworkSettings::from_entry(entry)?))
        });
        Ok(networks.collect())
    }

    /// The network's present generation, 0 where it never had one.
    pub fn generation(&self, id: NetworkId) -> Result<u32, TableError> {
        let entry = self.0.networks.lookup(&u32::from(id))?;
        Ok(entry.map_or(0, |entry| entry.generation.load()))
    }

    /// Writes what `change` makes of the next generation and the present entry.
    ///
    /// The datapath may step the generation by one between the read and the write: that step is lost, but
    /// what is written differs from both, which is all that counts.
    fn change_network(
        &self,
        id: NetworkId,
        change: impl FnOnce(u32, NetworkEntry) -> Option<NetworkEntry>,
    ) -> Result<(), TableError> {
        let networks = &self.0.networks;
        let slot = slot(networks, u32::from(id))?;
        self.0.writing(|| {
            let Some(present) = networks.lookup(&slot)? else {
                return Err(TableError::NoSlot { table: map::NETWORKS, slot });
            };
            let generation = next_generation(present.generation.load());
            change(generation, present).map_or(Ok(()), |entry| networks.insert(&slot, entry))
        })
    }
}

/// One step on, and never 0, which stands for "not decided".
fn next_generation(present: u32) -> u32 {
    match present.wrapping_add(GENERATION_STEP) {
        0 => GENERATION_STEP,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn settings() -> NetworkSettings {
        let mut subnets = [Subnet::default(); MAX_GATEWAY_ADDRESSES];
        subnets[0] = Subnet { gateway: Ipv4Addr::new(192, 168, 122, 1).into(), length: 120, pad: [0; 3] };
        NetworkSettings {
            mode: NetworkMode::Nat,
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            gateway_vport: 3,
            subnets,
            uplinks: [5, 0, 0, 0],
            nat: NatPolicy { mapping: 1, ..NatPolicy::new(50_000, 59_999) },
            timeouts: Timeouts::RFC,
            ageing: 300,
        }
    }

    #[test]
    fn settings_survive_the_way_into_the_table_and_back() {
        let entry = settings().to_entry(0x2_0000);
        assert_eq!(entry.generation.load(), 0x2_0000);
        assert_eq!(NetworkSettings::from_entry(&entry), Some(settings()));
    }

    #[test]
    fn a_free_slot_is_no_network() {
        assert_eq!(NetworkSettings::from_entry(&NetworkEntry::new_zeroed()), None);
    }

    #[test]
    fn a_generation_steps_past_zero() {
        assert_eq!(next_generation(0), 0x1_0000);
        assert_eq!(next_generation(0x1_0003), 0x2_0003);
        assert_eq!(next_generation(0xffff_0000), 0x1_0000);
        assert_ne!(next_generation(0xffff_0001), 0);
    }
}
