//! Vports, the devices behind them, and flood lists.

use vnet_common::{
    config::NetworkId,
    names::map,
    vport::{FloodList, MAX_FLOOD, VportEntry, VportId},
};

use super::{Tables, slot};
use crate::datapath::TableError;

impl Tables {
    pub fn set_vport(&self, id: VportId, entry: &VportEntry) -> Result<(), TableError> {
        let vports = &self.0.vports;
        vports.insert(&slot(vports, id)?, *entry)
    }

    /// Frees the vport's slot. Frames for it are dropped from now on.
    pub fn clear_vport(&self, id: VportId) -> Result<(), TableError> {
        self.set_vport(id, &VportEntry::default())
    }

    /// All vports in use.
    pub fn vports(&self) -> Result<Vec<(VportId, VportEntry)>, TableError> {
        let mut vports = self.0.vports.entries()?;
        vports.retain(|(_, entry)| entry.role().is_some());
        Ok(vports)
    }

    /// Frames that come in on `ifindex` belong to `id` from now on.
    pub fn bind_ifindex(&self, ifindex: u32, id: VportId) -> Result<(), TableError> {
        self.0.vport_by_ifindex.insert(&ifindex, slot(&self.0.vports, id)?)
    }

    /// False where the device was no vport's.
    pub fn unbind_ifindex(&self, ifindex: u32) -> Result<bool, TableError> {
        self.0.vport_by_ifindex.remove(&ifindex)
    }

    /// Device index → vport, all of them.
    pub fn bindings_by_ifindex(&self) -> Result<Vec<(u32, VportId)>, TableError> {
        self.0.vport_by_ifindex.entries()
    }

    /// Sets the vports that a flooded frame of `network` goes to, all at once.
    pub fn set_flood(&self, network: NetworkId, vports: &[VportId]) -> Result<(), TableError> {
        self.0.floods.insert(&u32::from(network), flood_list(vports)?)
    }

    /// False where the network had no list.
    pub fn clear_flood(&self, network: NetworkId) -> Result<bool, TableError> {
        self.0.floods.remove(&u32::from(network))
    }

    /// The vports that a flooded frame of `network` goes to.
    pub fn flood(&self, network: NetworkId) -> Result<Vec<VportId>, TableError> {
        let list = self.0.floods.lookup(&u32::from(network))?;
        Ok(list.map(|list| list.vports.into_iter().take(list.count as usize).collect()).unwrap_or_default())
    }
}

fn flood_list(vports: &[VportId]) -> Result<FloodList, TableError> {
    let mut list = FloodList { count: vports.len() as u32, vports: [0; MAX_FLOOD as usize] };
    let Some(slots) = list.vports.get_mut(..vports.len()) else {
        return Err(TableError::TooLong { table: map::FLOODS, count: vports.len(), most: MAX_FLOOD as usize });
    };
    slots.copy_from_slice(vports);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_list_holds_what_it_is_given_and_no_more_than_fits() {
        let list = flood_list(&[7, 9]).unwrap();
        assert_eq!((list.count, list.vports[..3].to_vec()), (2, vec![7, 9, 0]));
        assert_eq!(flood_list(&[1; MAX_FLOOD as usize]).unwrap().count, MAX_FLOOD);
        assert!(matches!(flood_list(&[1; MAX_FLOOD as usize + 1]), Err(TableError::TooLong { .. })));
    }
}
