//! What guests use, against their quotas.

use vnet_common::{Seconds, flow::since, vport::VportId};

use super::Tables;
use crate::datapath::TableError;

/// One guest port's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestUsage {
    pub vport: VportId,
    pub connections: u32,
    /// External ports that it holds, cooling ones too.
    pub bindings: u32,
}

impl Tables {
    /// Guests that use anything.
    pub fn guest_usages(&self) -> Result<Vec<GuestUsage>, TableError> {
        let mut usages = Vec::new();
        self.0.guests.for_each(|vport, used| {
            let usage = GuestUsage { vport, connections: used.connections.load(), bindings: used.bindings.load() };
            if usage.connections != 0 || usage.bindings != 0 {
                usages.push(usage);
            }
            Ok(())
        })?;
        Ok(usages)
    }

    /// Guests, and slots of [`vnet_common::nat::exhausted_slot`], for which no external port was free at most
    /// `within` seconds ago.
    pub(in crate::datapath) fn exhausted(
        &self,
        within: Seconds,
        now: Seconds,
    ) -> Result<Vec<(VportId, usize)>, TableError> {
        let mut exhausted = Vec::new();
        self.0.guests.for_each(|vport, used| {
            let stamps = used.exhausted.iter().map(|stamp| stamp.load()).enumerate();
            let recent = stamps.filter(|(_, stamp)| *stamp != 0 && since(*stamp, now) <= within);
            exhausted.extend(recent.map(|(slot, _)| (vport, slot)));
            Ok(())
        })?;
        Ok(exhausted)
    }
}
