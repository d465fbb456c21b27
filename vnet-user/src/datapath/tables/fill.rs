//! How full the tables are.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Tables, table::Table};
use crate::datapath::TableError;

/// One table's fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFill {
    pub table: &'static str,
    pub used: usize,
    pub capacity: u32,
}

impl Tables {
    /// Every table that can fill up. Connections and bindings are not read for it, whatever their number.
    pub fn fill(&self) -> Result<Vec<TableFill>, TableError> {
        let tables = &self.0;
        // Arrays are never full of entries, but of entries in use; slot 0 is none.
        let slots = |table: &'static str, used, capacity: u32| TableFill { table, used, capacity: capacity - 1 };
        Ok(vec![
            slots(tables.networks.name(), self.networks()?.len(), tables.networks.capacity()),
            slots(tables.vports.name(), self.vports()?.len(), tables.vports.capacity()),
            count(&tables.fdb)?,
            count(&tables.forwards)?,
            TableFill {
                table: tables.connections.name(),
                used: tables.connections.count(&tables.pools)?,
                capacity: tables.connections.capacity(),
            },
            TableFill {
                table: tables.bindings.name(),
                used: tables.bindings.count(&tables.pools)?,
                capacity: tables.bindings.capacity(),
            },
            count(&tables.locals)?,
            count(&tables.routed_subnets)?,
            count(&tables.fragments)?,
            count(&tables.held_fragments)?,
        ])
    }
}

fn count<K, V>(table: &Table<K, V>) -> Result<TableFill, TableError>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes,
{
    let mut used = 0;
    table.for_each(|_, _| {
        used += 1;
        Ok(())
    })?;
    Ok(TableFill { table: table.name(), used, capacity: table.capacity() })
}
