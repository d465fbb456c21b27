//! The datapath from the daemon's side: loads it, attaches it, keeps its tables.
//!
//! Programs, links and maps outlive the daemon: they are pinned, and a later daemon takes them over with
//! its own programs in their place, while traffic goes on. No other part of the daemon talks to bpf(2).

mod attach;
mod clock;
mod clsact;
mod error;
mod expiry;
mod load;
mod object;
mod pins;
mod probe;
mod qdisc;
mod shape;
mod sys;
mod tables;
mod tcx;

use std::{fmt, path::Path};

use aya::programs::TcAttachType;
use vnet_common::names::program;

use self::{attach::Attachments, pins::Pins};
pub use self::{
    attach::TcBackend,
    error::{DatapathError, TableError},
    expiry::{ExpiryReport, Pass},
    object::is_built,
    probe::{FeatureReport, features},
    tables::{Connection, FdbRow, NetworkSettings, TableFill, Tables, Tuple},
};

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// TC ingress of every port: the datapath.
    PortIngress,
    /// TC egress of `vn-NAME`: what the host sends into a network.
    GatewayEgress,
    /// TC egress of a bridge network's uplink: what the host sends out of the NIC.
    UplinkEgress,
}

impl Hook {
    pub const ALL: [Self; 3] = [Self::PortIngress, Self::GatewayEgress, Self::UplinkEgress];

    fn program(self) -> &'static str {
        match self {
            Self::PortIngress => program::PORT_INGRESS,
            Self::GatewayEgress => program::GATEWAY_EGRESS,
            Self::UplinkEgress => program::UPLINK_EGRESS,
        }
    }

    fn side(self) -> TcAttachType {
        match self {
            Self::PortIngress => TcAttachType::Ingress,
            Self::GatewayEgress | Self::UplinkEgress => TcAttachType::Egress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// The loaded datapath.
///
/// Dropping it detaches nothing.
pub struct Datapath {
    attachments: Attachments,
    tables: Tables,
}

impl Datapath {
    /// Loads this build's datapath with its maps pinned below `pin_dir`, in a directory of this ABI's
    /// version; mounts a bpffs where there is none. Maps that stand there are used on, after a check of
    /// their shape, and whatever is attached runs this build's programs from now on.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        let object = object::embedded()?;
        probe::check()?;
        let pins = Pins::open(pin_dir)?;
        shape::check(object, pins.maps())?;
        let loaded = load::load(object, &pins)?;
        let tables = Tables::open(pins.maps(), loaded.expirers)?;
        Ok(Self { attachments: Attachments::open(&pins, loaded.hooks)?, tables })
    }

    /// The tables; clone them to use them from several threads.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Attaches to the device, or puts this build's program in place of what is attached there.
    pub fn attach(&mut self, ifindex: u32, device: &str, hook: Hook) -> Result<(), DatapathError> {
        self.attachments.attach(ifindex, device, hook)
    }

    /// Detaches, at once. Fine where nothing is attached, and where the device is gone.
    pub fn detach(&mut self, ifindex: u32, hook: Hook) -> Result<(), DatapathError> {
        self.attachments.remove(ifindex, hook)
    }

    /// What is attached, whichever daemon attached it. Not what is left of devices that are gone, but a tcx
    /// link goes with its device into another namespace and stands here until it is detached.
    pub fn attached(&self) -> Vec<(u32, Hook)> {
        self.attachments.list()
    }

    /// How programs are attached from now on.
    pub fn backend(&self) -> TcBackend {
        self.attachments.backend
    }

    /// One pass over connections, bindings and the FDB; see [`Tables::expire`].
    pub fn expire(&self) -> Result<ExpiryReport, TableError> {
        self.tables.expire()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datapath_may_go_to_another_thread_and_its_tables_to_several() {
        fn moves<T: Send>() {}
        fn is_shared<T: Clone + Send + Sync>() {}
        moves::<Datapath>();
        is_shared::<Tables>();
    }
}
