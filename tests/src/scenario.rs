//! A topology with a daemon and one network on it: where most tests begin.

use anyhow::Result;

use crate::{
    daemon::Daemon,
    topology::{SUBNET, Topology, UPLINK, World},
};

/// Fields are dropped in this order: the daemon first.
#[derive(Debug)]
pub struct Scenario {
    pub vnet: Daemon,
    pub world: World,
}

/// The network of the scenarios.
pub const NETWORK: &str = "net1";

impl Scenario {
    /// A running daemon and nothing else.
    pub fn bare(topology: Topology) -> Result<Self> {
        let world = topology.build()?;
        Ok(Self { vnet: Daemon::start(&world)?, world })
    }

    /// `net1`, made by `vnet network add net1 ARGUMENTS`, with every guest's port on it.
    pub fn with(topology: Topology, arguments: &str) -> Result<Self> {
        let scenario = Self::bare(topology)?;
        scenario.vnet.line(&format!("network add {NETWORK} {arguments}"))?;
        for guest in scenario.world.guests() {
            scenario.vnet.line(&format!("port add {NETWORK} {}", guest.port))?;
        }
        Ok(scenario)
    }

    /// Guests of a nat network, an uplink and a machine outside.
    pub fn nat(guests: usize) -> Result<Self> {
        Self::with(Topology::new().guests(guests).uplink(), &format!("--mode nat --subnet {SUBNET} --uplink {UPLINK}"))
    }

    /// Guests of an isolated network.
    pub fn isolated(guests: usize) -> Result<Self> {
        Self::with(Topology::new().guests(guests), "--mode isolated")
    }

    /// The same with nobody speaking of its own accord.
    pub fn quiet(guests: usize) -> Result<Self> {
        Self::with(Topology::new().guests(guests).quiet(), "--mode isolated")
    }

    /// Guests of a bridge network in the uplink's own subnet.
    pub fn bridge(guests: usize) -> Result<Self> {
        Self::with(Topology::new().bridged_guests(guests).uplink(), &format!("--mode bridge --uplink {UPLINK}"))
    }
}
