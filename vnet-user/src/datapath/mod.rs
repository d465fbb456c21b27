//! The datapath from the daemon's side: loads it, attaches it, keeps its tables.
//!
//! Programs, links and maps outlive the daemon: they are pinned, and a later daemon takes them over with
//! its own programs in their place, while traffic goes on. No other part of the daemon talks to bpf(2).

mod attach;
mod cgroup;
mod clock;
mod clsact;
mod error;
mod expiry;
mod load;
mod object;
mod pins;
mod probe;
mod qdisc;
mod relief;
mod shape;
mod sizes;
mod sockets;
mod sys;
mod tables;
mod tcx;

use std::{fmt, path::Path};

use aya::programs::TcAttachType;
use vnet_common::{Seconds, names::program};

use self::{
    attach::Attachments,
    pins::Pins,
    sizes::Sizes,
    sockets::{SocketHooks, SocketPlace},
};
pub use self::{
    attach::TcBackend,
    cgroup::CgroupChoice,
    error::{DatapathError, TableError},
    expiry::{ExpiryReport, Pass},
    object::is_built,
    probe::{FeatureReport, features},
    relief::Relief,
    sizes::DEFAULT_CONNECTIONS,
    tables::{Binding, Connection, EventReader, FdbRow, GuestUsage, NetworkSettings, Origin, TableFill, Tables, Tuple},
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

/// What the datapath is to be, as far as networks do not say.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Connections that there must be room for, where the tables do not stand yet.
    pub connections: u32,
    /// Whose processes' sockets are the host's own.
    pub cgroup: CgroupChoice,
    /// Where the tables do not stand yet: seconds for which TCP connections that stood before the tables did are taken up in their middle.
    pub pick_up: Seconds,
}

/// The loaded datapath.
///
/// Dropping it detaches nothing.
pub struct Datapath {
    attachments: Attachments,
    sockets: SocketHooks,
    tables: Tables,
}

impl Datapath {
    /// Loads this build's datapath with its maps pinned below `pin_dir`, in a directory of this ABI's
    /// version; mounts a bpffs where there is none. Maps that stand there are used on, after a check of
    /// their shape, and whatever is attached runs this build's programs from now on.
    pub fn open(pin_dir: &Path, wishes: &Wishes) -> Result<Self, DatapathError> {
        let object = object::embedded()?;
        probe::check()?;
        let pins = Pins::open(pin_dir)?;
        let sizes = Sizes::to_use(pins.maps(), wishes.connections)?;
        shape::check(object, pins.maps(), sizes)?;
        let place = SocketPlace::find(&wishes.cgroup)?;
        let loaded = load::load(object, &pins, sizes, place.as_ref().map(|place| place.netns))?;
        let tables = Tables::open(pins.maps(), loaded.expirers)?;
        tables.make_ready(sizes, wishes.pick_up)?;
        let attachments = Attachments::open(&pins, loaded.hooks)?;
        let sockets = SocketHooks::open(&pins, place.zip(loaded.sockets))?;
        Ok(Self { attachments, sockets, tables })
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

    /// Leads what the host's own processes ask of forwards to the guests. Where that cannot be it is logged,
    /// once, and done without.
    pub fn attach_sockets(&mut self) -> Result<(), DatapathError> {
        self.sockets.attach()
    }

    /// Leaves the host's own processes alone, at once.
    pub fn detach_sockets(&mut self) -> Result<(), DatapathError> {
        self.sockets.detach()
    }

    /// True where the host's own processes are led to guests.
    pub fn has_sockets(&self) -> bool {
        self.sockets.is_attached()
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
