//! How large the tables of connections and bindings are.

use std::path::Path;

use aya::maps::MapInfo;
use tracing::info;
use vnet_common::{index::MAX_RECORDS, names::map};

use super::{
    DatapathError,
    error::{os_error, reason},
};

/// Connections that there is room for, unless the user says otherwise: about 40 MB with all that goes along.
pub const DEFAULT_CONNECTIONS: u32 = 262_144;

/// The least: a bucket index needs some room to spread.
const LEAST: u32 = 1024;

/// Records of both tables, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub connections: u32,
    pub bindings: u32,
}

impl Sizes {
    /// Room for at least that many connections, and for half as many bindings.
    fn for_connections(connections: u32) -> Self {
        let connections = connections.clamp(LEAST, MAX_RECORDS).next_power_of_two();
        Self { connections, bindings: (connections / 2).max(LEAST) }
    }

    /// Those of tables that stand in `directory`: connections are not thrown away for a table of another size.
    /// Else what is wished for.
    pub(super) fn to_use(directory: &Path, connections: u32) -> Result<Self, DatapathError> {
        let wished = Self::for_connections(connections);
        let sizes = Self::of_pins(directory)?.unwrap_or(wished);
        if sizes != wished {
            info!(
                "the table of connections keeps its {} entries; {} take effect when it is made anew, after a reboot",
                sizes.connections, wished.connections
            );
        }
        Ok(sizes)
    }

    /// Those of tables that stand; `None` where there are none.
    fn of_pins(directory: &Path) -> Result<Option<Self>, DatapathError> {
        let entries = |name| match MapInfo::from_pin(directory.join(name)) {
            Ok(info) => Ok(Some(info.max_entries())),
            Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(DatapathError::Pins {
                action: "look at",
                path: directory.join(name),
                source: std::io::Error::other(reason(&error)),
            }),
        };
        let (connections, bindings) = (entries(map::CONNECTIONS)?, entries(map::BINDINGS)?);
        Ok(connections.zip(bindings).map(|(connections, bindings)| Self { connections, bindings }))
    }

    /// Entries of the maps whose size is not the object's.
    pub(super) fn entries(self) -> [(&'static str, u32); 6] {
        [
            (map::CONNECTIONS, self.connections),
            (map::CONNECTION_BUCKETS, self.connections / 2),
            (map::CONNECTION_RING, self.connections),
            (map::BINDINGS, self.bindings),
            (map::BINDING_BUCKETS, self.bindings / 2),
            (map::BINDING_RING, self.bindings),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        let cases = [(0, 1024), (1000, 1024), (200_000, 262_144), (262_144, 262_144), (u32::MAX, MAX_RECORDS)];
        for (asked, connections) in cases {
            assert_eq!(Sizes::for_connections(asked).connections, connections, "{asked}");
        }
        assert_eq!(Sizes::for_connections(0).bindings, 1024);
    }
}
