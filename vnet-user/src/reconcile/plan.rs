//! The steps from one picture to another, in an order in which no frame goes astray: what refers to a
//! thing goes before the thing goes, and comes after the thing has come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vnet_common::{
    Ip,
    config::{NetworkId, OUTSIDE},
    fdb::{FdbKey, FdbKind},
    forward::{ForwardEntry, ForwardKey},
    vport::{VportEntry, VportId, VportRole},
};

use super::Picture;
use crate::{
    datapath::{Hook, NetworkSettings},
    host::PortSet,
    state::HostSetting,
};

/// One change to the kernel; taking it twice does no harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Removes forwards and ends the connections that came through them.
    RemoveForwards(Vec<ForwardKey>),
    InsertForwards(Vec<(ForwardKey, ForwardEntry)>),
    Detach(u32, Hook),
    Attach(u32, Hook),
    /// Leaves the host's own sockets alone; leads them to guests.
    DetachSockets,
    AttachSockets,
    Unbind(u32),
    Bind(u32, VportId),
    RemoveFdb(FdbKey),
    InsertFdb(FdbKey, VportId, FdbKind),
    /// Ends a network with its connections, its MAC table and its flood list.
    EndNetwork(NetworkId),
    SetNetwork(NetworkId, NetworkSettings),
    SetFlood(NetworkId, Vec<VportId>),
    ClearFlood(NetworkId),
    SetVport {
        id: VportId,
        entry: VportEntry,
        /// A new port begins to count at zero.
        is_new: bool,
    },
    /// Forgets the MAC addresses behind a vport.
    ForgetGuests(VportId),
    ClearVport(VportId),
    SetLocals(HashMap<Ip, u32>),
    SetRoutedSubnets(HashMap<(u32, Ip), NetworkId>),
    SetExternals(HashMap<Ip, NetworkId>),
    TurnOn(u32, HostSetting),
    TurnBack(u32, HostSetting),
    ReservePorts(PortSet),
    /// Has the network's paths decided again.
    DecideAgain(NetworkId),
    /// Ends these networks' connections through outside addresses that the host has lost: its guests'
    /// sockets would keep them alive and stay dead on them.
    EndStranded(BTreeSet<NetworkId>),
}

/// The steps that make `present` into `wanted`.
pub fn plan(present: &Picture, wanted: &Picture) -> Vec<Step> {
    let mut steps = Vec::new();
    leave(present, wanted, &mut steps);
    change(present, wanted, &mut steps);
    enter(present, wanted, &mut steps);
    steps
}

/// What goes: nothing refers to it any more when it does.
fn leave(present: &Picture, wanted: &Picture, steps: &mut Vec<Step>) {
    let stale = present.forwards.iter().filter(|(key, entry)| wanted.forwards.get(key) != Some(entry));
    let keys: Vec<ForwardKey> = stale.map(|(key, _)| *key).collect();
    if !keys.is_empty() {
        steps.push(Step::RemoveForwards(keys));
    }
    // A port that vnet set up is set down while its frames are still ours.
    turn_back(present, wanted, true, steps);
    steps.extend(present.hooks.difference(&wanted.hooks).map(|(ifindex, hook)| Step::Detach(*ifindex, *hook)));
    if present.sockets && !wanted.sockets {
        steps.push(Step::DetachSockets);
    }
    let unbound = present.bindings.iter().filter(|(ifindex, id)| wanted.bindings.get(ifindex) != Some(id));
    steps.extend(unbound.map(|(ifindex, _)| Step::Unbind(*ifindex)));
    let gone = |network: &NetworkId| !wanted.networks.contains_key(network);
    let lost = present.fdb.iter().filter(|(key, entry)| wanted.fdb.get(key) != Some(entry) && !gone(&key.network));
    steps.extend(lost.map(|(key, _)| Step::RemoveFdb(*key)));
    steps.extend(present.networks.keys().copied().filter(gone).map(Step::EndNetwork));
}

/// What stays or comes, from the devices up to the networks; then the vports that nothing names now.
fn change(present: &Picture, wanted: &Picture, steps: &mut Vec<Step>) {
    let mut moved = BTreeSet::new();
    for (id, entry) in &wanted.vports {
        let before = present.vports.get(id);
        if before == Some(entry) {
            continue;
        }
        let is_elsewhere = |before: &VportEntry| (before.ifindex, before.network) != (entry.ifindex, entry.network);
        if before.is_some_and(is_elsewhere) && entry.network != OUTSIDE {
            steps.push(Step::ForgetGuests(*id));
        }
        steps.push(Step::SetVport { id: *id, entry: *entry, is_new: before.is_none() });
        moved.insert(*id);
    }
    if present.locals != wanted.locals {
        steps.push(Step::SetLocals(wanted.locals.clone()));
    }
    if present.routed_subnets != wanted.routed_subnets {
        steps.push(Step::SetRoutedSubnets(wanted.routed_subnets.clone()));
    }
    if present.externals != wanted.externals {
        steps.push(Step::SetExternals(wanted.externals.clone()));
    }
    // Ports are reserved before a network takes them, and given back after it has left them.
    let reserved = present.reserved_ports.union(&wanted.reserved_ports);
    if reserved != present.reserved_ports {
        steps.push(Step::ReservePorts(reserved.clone()));
    }
    let gone: BTreeSet<VportId> = present.vports.keys().copied().filter(|id| !wanted.vports.contains_key(id)).collect();
    change_networks(present, wanted, &moved, &gone, steps);
    if reserved != wanted.reserved_ports {
        steps.push(Step::ReservePorts(wanted.reserved_ports.clone()));
    }
    let stranded: BTreeSet<NetworkId> = moved
        .iter()
        .filter(|id| has_new_address(present.vports.get(id), wanted.vports.get(id)))
        .flat_map(|id| networks_of(wanted, *id))
        .collect();
    if !stranded.is_empty() {
        steps.push(Step::EndStranded(stranded));
    }
    insert_fdb(present, wanted, &moved, steps);
    steps.extend(gone.iter().copied().map(Step::ClearVport));
}

/// True for an uplink that shows another address now. One that only lost its address keeps its
/// connections: it may get the same address back.
fn has_new_address(before: Option<&VportEntry>, after: Option<&VportEntry>) -> bool {
    after.is_some_and(|after| {
        !after.external.is_unspecified() && before.is_some_and(|before| before.external != after.external)
    })
}

fn change_networks(
    present: &Picture,
    wanted: &Picture,
    moved: &BTreeSet<VportId>,
    gone: &BTreeSet<VportId>,
    steps: &mut Vec<Step>,
) {
    // Ports of a network whose paths may lead elsewhere now.
    let mut touched: BTreeSet<NetworkId> = BTreeSet::new();
    moved.iter().for_each(|id| touched.extend(networks_of(wanted, *id)));
    moved.union(gone).for_each(|id| touched.extend(networks_of(present, *id)));
    for (id, settings) in &wanted.networks {
        if present.networks.get(id) != Some(settings) {
            steps.push(Step::SetNetwork(*id, settings.clone()));
        } else if touched.contains(id) {
            steps.push(Step::DecideAgain(*id));
        }
        match (present.floods.get(id), wanted.floods.get(id)) {
            (before, Some(members)) if before != Some(members) => steps.push(Step::SetFlood(*id, members.clone())),
            (Some(_), None) => steps.push(Step::ClearFlood(*id)),
            _ => {}
        }
    }
}

/// The networks that a vport carries frames of.
pub(super) fn networks_of(picture: &Picture, id: VportId) -> Vec<NetworkId> {
    let Some(entry) = picture.vports.get(&id) else { return Vec::new() };
    if entry.role() != Some(VportRole::RoutedUplink) {
        return vec![entry.network];
    }
    let users = picture.networks.iter().filter(|(_, settings)| settings.uplinks.contains(&id));
    users.map(|(network, _)| *network).collect()
}

fn insert_fdb(present: &Picture, wanted: &Picture, moved: &BTreeSet<VportId>, steps: &mut Vec<Step>) {
    let ordered: BTreeMap<_, _> =
        wanted.fdb.iter().map(|(key, entry)| ((key.network, key.vlan, key.mac.0), (key, entry))).collect();
    for (key, (vport, kind)) in ordered.into_values() {
        // Forgetting the guests of a vport that moved has taken its static entries along.
        if present.fdb.get(key) != Some(&(*vport, *kind)) || moved.contains(vport) {
            steps.push(Step::InsertFdb(*key, *vport, *kind));
        }
    }
}

/// What comes alive: tables stand, so frames may.
fn enter(present: &Picture, wanted: &Picture, steps: &mut Vec<Step>) {
    turn_back(present, wanted, false, steps);
    turn_on(present, wanted, false, steps);
    let bound = wanted.bindings.iter().filter(|(ifindex, id)| present.bindings.get(ifindex) != Some(id));
    steps.extend(bound.map(|(ifindex, id)| Step::Bind(*ifindex, *id)));
    steps.extend(wanted.hooks.difference(&present.hooks).map(|(ifindex, hook)| Step::Attach(*ifindex, *hook)));
    turn_on(present, wanted, true, steps);
    let new = wanted.forwards.iter().filter(|(key, entry)| present.forwards.get(key) != Some(entry));
    let entries: Vec<_> = new.map(|(key, entry)| (*key, *entry)).collect();
    if !entries.is_empty() {
        steps.push(Step::InsertForwards(entries));
    }
    if wanted.sockets && !present.sockets {
        steps.push(Step::AttachSockets);
    }
}

fn turn_back(present: &Picture, wanted: &Picture, up: bool, steps: &mut Vec<Step>) {
    let old = present.settings.difference(&wanted.settings);
    let old = old.filter(|(_, setting)| (*setting == HostSetting::Up) == up);
    steps.extend(old.map(|(ifindex, setting)| Step::TurnBack(*ifindex, *setting)));
}

fn turn_on(present: &Picture, wanted: &Picture, up: bool, steps: &mut Vec<Step>) {
    let new = wanted.settings.difference(&present.settings);
    let new = new.filter(|(_, setting)| (*setting == HostSetting::Up) == up);
    steps.extend(new.map(|(ifindex, setting)| Step::TurnOn(*ifindex, *setting)));
}
