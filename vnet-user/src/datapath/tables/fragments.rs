//! Fragments that wait for the rest of their datagram: aged here, ended in the kernel.

use vnet_common::{
    Seconds,
    config::{NetworkId, Timeouts},
    flow::since,
    fragment::OUTSIDE_TIMEOUT,
    names::expiry::Mode,
};

use super::Tables;
use crate::datapath::{TableError, expiry::Pass};

impl Tables {
    /// Ends datagrams, and frames kept for them, that have had their time.
    pub(in crate::datapath) fn expire_fragments(&self, now: Seconds) -> Result<Pass, TableError> {
        let timeouts = self.timeouts()?;
        let timeout =
            |network: NetworkId| timeouts.get(&network).map_or(OUTSIDE_TIMEOUT, |own: &Timeouts| own.fragment);
        let mut read = 0;
        let mut batch = self.0.expirers.fragments.batch(Mode::Expired);
        self.0.fragments.for_each(|key, entry| {
            read += 1;
            if since(entry.created, now) >= timeout(key.network) { batch.add(key) } else { Ok(()) }
        })?;
        let known = batch.report(read)?;
        let mut batch = self.0.expirers.held.batch(Mode::Expired);
        self.0.held_fragments.for_each(|key, held| {
            read += 1;
            if since(held.created, now) >= timeout(key.datagram.network) { batch.add(key) } else { Ok(()) }
        })?;
        let held = batch.report(read)?;
        Ok(Pass { read, candidates: known.candidates + held.candidates, ended: known.ended + held.ended })
    }
}
