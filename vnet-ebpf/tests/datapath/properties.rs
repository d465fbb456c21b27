//! Random scripts: XDP does what TC would have done or nothing at all, and the invariants hold.

use std::collections::HashMap;

use proptest::prelude::*;
use vnet_common::{
    DropReason,
    config::{GENERATION_STEP, NatPolicy, Timeouts},
    names::expiry::Mode,
    vport::VportId,
};
use vnet_ebpf::{
    context::Route,
    datapath::expire::{expire_connection, expire_fdb},
    tables::Tables as _,
};

use crate::{
    deterministic,
    script::{self, Sent, Step},
    world::*,
};

type Result = std::result::Result<(), TestCaseError>;

/// What the counters must say, kept from the fates alone.
#[derive(Default)]
struct Ledger {
    received: HashMap<VportId, (u64, u64)>,
    sent: HashMap<VportId, (u64, u64)>,
    drops: HashMap<(VportId, DropReason), u64>,
}

impl Ledger {
    fn book(&mut self, from: VportId, length: u64, fate: &Fate, replies: &[Vec<u8>]) {
        let note = |ways: &mut HashMap<VportId, (u64, u64)>, vport: VportId| {
            let way = ways.entry(vport).or_default();
            *way = (way.0 + 1, way.1 + length);
        };
        if !matches!(fate, Fate::NotOurs | Fate::Kept(_)) {
            note(&mut self.received, from);
        }
        for vport in fate.leaves_by() {
            note(&mut self.sent, vport);
        }
        for reply in replies {
            let way = self.sent.entry(from).or_default();
            *way = (way.0 + 1, way.1 + reply.len() as u64);
        }
        if let Fate::Dropped(reason) = fate {
            *self.drops.entry((from, *reason)).or_default() += 1;
        }
    }

    fn check(&self, world: &World) -> Result {
        for vport in VPORTS {
            let stats = world.stats(vport);
            let received = self.received.get(&vport).copied().unwrap_or_default();
            let sent = self.sent.get(&vport).copied().unwrap_or_default();
            prop_assert_eq!((stats.rx_frames, stats.rx_bytes), received, "received by {}", vport);
            prop_assert_eq!((stats.tx_frames, stats.tx_bytes), sent, "sent by {}", vport);
            for reason in DropReason::ALL {
                let drops = self.drops.get(&(vport, *reason)).copied().unwrap_or_default();
                prop_assert_eq!(stats.drops[*reason as usize], drops, "{:?} at {}", reason, vport);
            }
        }
        Ok(())
    }
}

/// True where a frame from one vport may leave by the other.
fn belong_together(world: &World, from: VportId, to: VportId) -> bool {
    let is_uplink_of = |uplink, vport| {
        let network = network_of(vport);
        network != 0 && world.tables.network(network).unwrap().has_uplink(uplink)
    };
    (network_of(from) == network_of(to) && network_of(from) != 0) || is_uplink_of(to, from) || is_uplink_of(from, to)
}

fn check_fate(world: &World, sent: &Sent, fate: &Fate) -> Result {
    for to in fate.leaves_by() {
        // By an outside address of ours guests reach others' forwards, and their own.
        let is_hairpin = is_to_own_address(&sent.arrival.bytes) && is_guest_of_nat(sent.from) && is_guest_of_nat(to);
        prop_assert!(is_hairpin || belong_together(world, sent.from, to), "{} reached {}", sent.from, to);
        prop_assert!(is_hairpin || to != sent.from || is_arp(&sent.arrival.bytes), "back out of {}", to);
    }
    let (Fate::Sent(_, out) | Fate::Delivered(_, out) | Fate::Resolved(_, _, out)) = fate else { return Ok(()) };
    prop_assert_eq!(out.len(), sent.arrival.bytes.len());
    prop_assert_eq!(script::judge(sent, out), Ok(()));
    Ok(())
}

fn is_to_own_address(frame: &[u8]) -> bool {
    let dst = frame.get(30..34);
    frame.get(12..14) == Some(&[8, 0]) && (dst == Some(&EXTERNAL.octets()) || dst == Some(&SECOND_ADDRESS.octets()))
}

fn is_guest_of_nat(vport: VportId) -> bool {
    matches!(network_of(vport), NAT | OTHER_NAT)
}

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6])
}

/// Runs a frame at XDP (in a copy of the world) and at TC, and compares.
fn frame(world: &World, sent: &Sent) -> std::result::Result<Fate, TestCaseError> {
    let at_xdp = world.copy();
    let accelerated = at_xdp.xdp(sent.from, sent.arrival.clone());
    let is_left = matches!(accelerated, Fate::PassUp | Fate::NotOurs);
    if is_left {
        prop_assert_eq!(at_xdp.tables(), world.tables(), "tables after a frame left to TC");
        prop_assert_eq!(at_xdp.counters(), world.counters(), "counters after a frame left to TC");
    }
    // A CPU with clean working memory comes to the same.
    let at_other_cpu = world.copy();
    let elsewhere = at_other_cpu.other_cpu().tc(sent.from, sent.arrival.clone());
    let fate = world.tc(sent.from, sent.arrival.clone());
    prop_assert_eq!(&fate, &elsewhere, "with clean working memory");
    prop_assert_eq!(world.tables(), at_other_cpu.tables(), "with clean working memory");
    if !is_left {
        prop_assert!(!sent.arrival.is_partial, "XDP sent a frame with a partial checksum");
        prop_assert_eq!(accelerated, in_bytes(sent, &fate), "XDP did not what TC does");
        prop_assert_eq!(at_xdp.tables(), world.tables(), "tables after XDP and after TC");
        if sent.arrival.tag.is_none() {
            prop_assert_eq!(at_xdp.counters(), world.counters(), "counters after XDP and after TC");
        }
    }
    Ok(fate)
}

/// The fate with the tag in the bytes, as XDP has it.
fn in_bytes(sent: &Sent, fate: &Fate) -> Fate {
    match (sent.arrival.tag, fate) {
        (Some(tci), Fate::Sent(to, bytes)) => Fate::Sent(*to, crate::frames::tagged(0x8100, tci, bytes)),
        _ => fate.clone(),
    }
}

fn expire_all(world: &World) {
    world.sweep_connections();
    world.sweep_bindings();
    for (key, _) in world.tables.fdb().entries() {
        expire_fdb(&world.tables, &key, Mode::Expired, world.now());
    }
}

fn set_route(world: &World, number: u8) {
    let by = |vport, dst_mac| Route::Via { ifindex: ifindex(vport), src_mac: mac(vport), dst_mac };
    let route = match number % 8 {
        0 => Route::None,
        1 => Route::Unresolved { ifindex: ifindex(UPLINK), next_hop: SILENT_ROUTER.into() },
        2 => by(OTHER_UPLINK, ROUTER_MAC),
        _ => by(UPLINK, ROUTER_MAC),
    };
    world.kernel.set_route(std::net::Ipv4Addr::UNSPECIFIED.into(), 96, route);
}

fn step(world: &World, ledger: &mut Ledger, step: &Step) -> Result {
    match step {
        Step::Frame(sent) => {
            let fate = frame(world, sent)?;
            check_fate(world, sent, &fate)?;
            let replies = world.replies.take();
            for reply in replies.iter().filter(|_| sent.is_valid && !sent.arrival.is_partial) {
                prop_assert_eq!(crate::frames::judge(reply), Ok(()));
            }
            ledger.book(sent.from, sent.arrival.bytes.len() as u64, &fate, &replies);
        }
        Step::Wait(seconds) => world.wait(*seconds),
        Step::Expire => expire_all(world),
        Step::Flush(number) => {
            let entries = world.tables.connections().entries();
            if let Some((index, _)) = number.checked_rem(entries.len()).and_then(|number| entries.get(number)) {
                expire_connection(&world.tables, *index, Mode::Force, world.now());
            }
        }
        Step::Bump => {
            world.tables.network(NAT).unwrap().generation.add(GENERATION_STEP);
        }
        Step::Route(number) => set_route(world, *number),
        Step::Spare => {
            for (index, _) in world.tables.connections().entries() {
                expire_connection(&world.tables, index, Mode::Spare, world.now());
            }
        }
        Step::Policy(policy) => world.change_network(NAT, |network| {
            network.nat = NatPolicy { first_port: script::FIRST, last_port: script::LAST, ..*policy };
        }),
        Step::Room(connections, bindings) => {
            world.tables.connections().set_capacity(*connections);
            world.tables.bindings().set_capacity(*bindings);
        }
        Step::Toggle(vport) => world.change_vport(*vport, |entry| {
            entry.ifindex = if entry.ifindex == 0 { ifindex(*vport) } else { 0 };
        }),
    }
    prop_assert_eq!(world.check(), Ok(()));
    Ok(())
}

proptest! {
    #![proptest_config(deterministic(256))]

    #[test]
    fn whatever_happens_the_tables_stay_whole_and_xdp_agrees_with_tc(
        steps in proptest::collection::vec(script::steps(), 1..80),
    ) {
        let world = script::world();
        let mut ledger = Ledger::default();
        for happening in &steps {
            step(&world, &mut ledger, happening)?;
        }
        ledger.check(&world)?;
        // In the end everything can be given back.
        world.flush_connections();
        world.wait(Timeouts::RFC.cool_down);
        world.sweep_bindings();
        prop_assert_eq!(world.check_empty(), Ok(()));
    }

    #[test]
    fn any_bytes_do_no_harm_at_any_hook(
        bytes in proptest::collection::vec(any::<u8>(), 0..160),
        ether_type in prop_oneof![Just([8, 0]), Just([8, 6]), Just([0x81, 0]), Just([0x86, 0xdd])],
        to_gateway in any::<bool>(),
        gso_size in prop_oneof![Just(0), any::<u32>()],
        linear in 0..160_usize,
    ) {
        let world = script::world();
        for vport in VPORTS {
            let mut bytes = bytes.clone();
            if bytes.len() >= 14 {
                bytes[12..14].copy_from_slice(&ether_type);
                bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, vport as u8]);
                if to_gateway {
                    let dst = if vport == UPLINK { UPLINK_MAC } else { mac(GATEWAY) };
                    bytes[..6].copy_from_slice(&dst.0);
                }
            }
            let arrival = Arrival::from(bytes).gso(gso_size).linear(linear);
            let sent = Sent { from: vport, arrival: arrival.clone(), is_valid: false };
            let fate = frame(&world, &sent)?;
            check_fate(&world, &sent, &fate)?;
            world.run::<true>(Hook::GatewayEgress, vport, &arrival);
            world.run::<true>(Hook::UplinkEgress, vport, &arrival);
        }
        prop_assert_eq!(world.check(), Ok(()));
    }
}
