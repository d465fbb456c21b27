//! What must hold of the tables whatever has passed.

use std::{collections::HashMap, rc::Rc};

use vnet_common::{
    Be16, Ip,
    config::{NetworkId, OUTSIDE},
    flow::{Direction, FlowEntry, FlowKey, ORIGIN_SNAT},
    nat::{BindingEntry, BindingKey},
};
use vnet_ebpf::tables::Tables as _;

use crate::world::World;

type Flow = (FlowKey, Rc<FlowEntry>);
type Binding = (BindingKey, Rc<BindingEntry>);

impl World {
    /// Both halves or neither, one owner a port, users counted right. `Err` says what does not hold.
    pub fn check(&self) -> Result<(), String> {
        let flows = self.tables.flows().entries();
        for flow in &flows {
            self.check_halves(flow)?;
        }
        for binding in self.tables.bindings().entries() {
            self.check_sides(&binding)?;
            check_users(&binding, &flows)?;
        }
        for flow in &flows {
            self.check_translation(flow)?;
        }
        check_owners(&flows)
    }

    fn check_halves(&self, (key, entry): &Flow) -> Result<(), String> {
        let partner_key = entry.partner_key(key.protocol);
        let Some(partner) = self.tables.flows().get(&partner_key) else {
            return Err(format!("half a connection: {key:?} {entry:?}"));
        };
        let is_mutual = partner.partner_key(key.protocol) == *key
            && partner.direction != entry.direction
            && (partner.origin, partner.network, partner.created) == (entry.origin, entry.network, entry.created);
        if is_mutual { Ok(()) } else { Err(format!("halves of two connections: {key:?} {entry:?} and {partner:?}")) }
    }

    /// Both halves hold the same state. (Where two CPUs touch a connection that is just being made, only
    /// both together tell its state.)
    pub fn check_states(&self) -> Result<(), String> {
        for (key, entry) in self.tables.flows().entries() {
            let partner = self.tables.flows().get(&entry.partner_key(key.protocol));
            if partner.is_none_or(|partner| partner.seen() != entry.seen()) {
                return Err(format!("states differ: {key:?} {entry:?}"));
            }
        }
        Ok(())
    }

    fn check_sides(&self, (key, entry): &Binding) -> Result<(), String> {
        let other =
            BindingKey { address: entry.address, port: entry.port, network: entry.network, vlan: entry.vlan, ..*key };
        let back = self.tables.bindings().get(&other);
        let names_it = back.is_some_and(|back| {
            (back.address, back.port, back.network, back.vlan) == (key.address, key.port, key.network, key.vlan)
        });
        if names_it { Ok(()) } else { Err(format!("half a binding: {key:?} {entry:?}")) }
    }

    /// A guest's connection shows what its binding says.
    fn check_translation(&self, (key, entry): &Flow) -> Result<(), String> {
        if !is_users(entry) {
            return Ok(());
        }
        let binding = self.tables.bindings().get(&inside(key));
        let is_bound = binding.is_some_and(|binding| (binding.address, binding.port) == (entry.src, entry.src_port));
        if is_bound { Ok(()) } else { Err(format!("a connection without its binding: {key:?} {entry:?}")) }
    }
}

/// True for the entry that stands for a user of a binding.
fn is_users(entry: &FlowEntry) -> bool {
    entry.origin == ORIGIN_SNAT && entry.direction == Direction::Original as u8
}

fn inside(key: &FlowKey) -> BindingKey {
    BindingKey {
        address: key.src,
        port: key.src_port,
        network: key.network,
        vlan: key.vlan,
        protocol: key.protocol,
        pad: 0,
    }
}

fn check_users((key, entry): &Binding, flows: &[Flow]) -> Result<(), String> {
    if key.network == OUTSIDE {
        return Ok(());
    }
    let users = flows.iter().filter(|(flow, entry)| is_users(entry) && inside(flow) == *key).count();
    let counted = entry.connections.load();
    if usize::try_from(counted) == Ok(users) {
        return Ok(());
    }
    Err(format!("{counted} users counted, {users} there: {key:?} {entry:?}"))
}

/// Whoever is reached by an external port of a guest's connection.
type Owner = (Ip, Be16, NetworkId);

fn check_owners(flows: &[Flow]) -> Result<(), String> {
    let mut owners: HashMap<(Ip, Be16, u8), Owner> = HashMap::new();
    for (key, entry) in flows {
        if entry.origin != ORIGIN_SNAT || entry.direction != Direction::Reply as u8 {
            continue;
        }
        let owner = (entry.dst, entry.dst_port, entry.network);
        let first = *owners.entry((key.dst, key.dst_port, key.protocol)).or_insert(owner);
        if first != owner {
            return Err(format!("{:?}:{:?} belongs to {first:?} and to {owner:?}", key.dst, key.dst_port));
        }
    }
    Ok(())
}
