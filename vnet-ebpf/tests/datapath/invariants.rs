//! What must hold of the tables whatever has passed.

use std::{collections::HashMap, rc::Rc};

use vnet_common::{
    Be16,
    config::NetworkId,
    flow::{Connection, Direction, ORIGIN_BINDING, ORIGIN_GUEST},
    nat::Binding,
    vport::VportId,
};
use vnet_ebpf::tables::Tables as _;

use crate::world::World;

type Connections = Vec<(u32, Rc<Connection>)>;
type Bindings = Vec<(u32, Rc<Binding>)>;

impl World {
    /// Both keys or neither, one owner a port, users and quotas counted right. `Err` says what does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.tables.connections().check().map_err(|wrong| format!("connections: {wrong}"))?;
        self.tables.bindings().check().map_err(|wrong| format!("bindings: {wrong}"))?;
        let (connections, bindings) = (self.tables.connections().entries(), self.tables.bindings().entries());
        for (index, binding) in &bindings {
            check_users(*index, binding, &connections)?;
        }
        for (_, connection) in &connections {
            self.check_translation(connection)?;
        }
        check_owners(&connections)?;
        self.check_quotas(&connections, &bindings)
    }

    /// A guest's connection shows what its binding says.
    fn check_translation(&self, connection: &Connection) -> Result<(), String> {
        if connection.origin != ORIGIN_GUEST {
            return Ok(());
        }
        let inside = (connection.original.src, connection.original.src_port, connection.original_network);
        let shown = connection.translated(Direction::Original);
        let binding = self.tables.bindings().at(connection.binding).filter(|binding| binding.last_used.load() != 0);
        let is_bound = binding.is_some_and(|binding| {
            (binding.internal, binding.internal_port, binding.network) == inside
                && (binding.external, binding.external_port) == (shown.src, shown.src_port)
                && binding.protocol == connection.protocol
        });
        if is_bound { Ok(()) } else { Err(format!("a connection without its binding: {connection:?}")) }
    }

    fn check_quotas(&self, connections: &Connections, bindings: &Bindings) -> Result<(), String> {
        let mut expected: HashMap<VportId, (u32, u32)> = HashMap::new();
        for (_, connection) in connections {
            expected.entry(connection.guest_vport.into()).or_default().0 += 1;
        }
        for (_, binding) in bindings {
            expected.entry(binding.guest_vport.into()).or_default().1 += 1;
        }
        for (vport, used) in self.tables.guest_uses() {
            let counted = (used.connections.load(), used.bindings.load());
            let there = expected.remove(&vport).unwrap_or_default();
            if counted != there {
                return Err(format!("vport {vport} has {there:?} connections and ports, {counted:?} are counted"));
            }
        }
        if expected.is_empty() { Ok(()) } else { Err(format!("accounted to nobody: {expected:?}")) }
    }

    /// Nothing lives, nothing is held, nothing is counted.
    pub fn check_empty(&self) -> Result<(), String> {
        self.check()?;
        let (connections, bindings) = (self.tables.connections().len(), self.tables.bindings().len());
        if (connections, bindings) == (0, 0) { Ok(()) } else { Err(format!("left over: {:#?}", self.tables())) }
    }
}

/// True where the connection leads to the binding by its external side.
fn leads_to(connection: &Connection, binding: &Binding) -> bool {
    connection.origin == ORIGIN_BINDING
        && (connection.original.dst, connection.original.dst_port) == (binding.external, binding.external_port)
        && connection.protocol == binding.protocol
}

fn check_users(index: u32, binding: &Binding, connections: &Connections) -> Result<(), String> {
    let by_source = connections.iter().filter(|(_, connection)| connection.binding == index).count();
    let by_target = connections.iter().filter(|(_, connection)| leads_to(connection, binding)).count();
    let (users, counted) = (by_source + by_target, binding.connections.load());
    if usize::try_from(counted) == Ok(users) {
        return Ok(());
    }
    Err(format!("{counted} users counted, {users} there: {index} {binding:?}"))
}

/// Whoever is reached by an external port of a guest's connection.
type Owner = (u32, Be16, NetworkId);

fn check_owners(connections: &Connections) -> Result<(), String> {
    let mut owners: HashMap<(u32, Be16, u8), Owner> = HashMap::new();
    for (_, connection) in connections {
        if connection.origin != ORIGIN_GUEST {
            continue;
        }
        let (original, shown) = (&connection.original, connection.translated(Direction::Original));
        let owner = (original.src, original.src_port, connection.original_network);
        let first = *owners.entry((shown.src, shown.src_port, connection.protocol)).or_insert(owner);
        if first != owner {
            return Err(format!("{shown:?} belongs to {first:?} and to {owner:?}"));
        }
    }
    Ok(())
}
