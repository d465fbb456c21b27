//! Random and mutated frames into every hook: a known verdict, sound counters, sound tables.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use vnet_common::{fdb::FdbKind, flow::ORIGIN_BINDING, names::program, vport::VportRole};
use vnet_tests::{
    cases::all,
    checksum,
    frame::{ICMP, TCP, UDP, be16, summary},
    maps,
    programs::{run_tc, tc, xdp},
    switch::{Port, Setup, Switch, UPLINK_MAC},
};

const RUNS: u32 = 4000;

/// Frames that no test run takes are made long enough: the kernel wants whole IP headers.
fn runnable(mut frame: Vec<u8>) -> Vec<u8> {
    let shortest = match be16(&frame, 12) {
        Some(0x0800) => 34,
        Some(0x86dd) => 54,
        _ => 14,
    };
    if frame.len() < shortest {
        frame.resize(shortest, 0);
    }
    frame
}

/// Noise, and good frames with some bytes changed and the end cut off or lengthened.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let good: Vec<Vec<u8>> = all().into_iter().filter(|case| case.gso_size == 0).map(|case| case.frame).collect();
    let noise = prop::collection::vec(any::<u8>(), 14..300);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let mutated = (prop::sample::select(good), changes, 0_usize..80, any::<bool>()).prop_map(
        |(mut frame, changes, length, cut)| {
            for (place, byte) in changes {
                // Mostly headers: that is where it matters.
                let place = place.index(frame.len().min(60));
                frame[place] = byte;
            }
            if cut {
                frame.truncate(14.max(frame.len().saturating_sub(length)));
            } else {
                frame.extend(std::iter::repeat_n(0, length));
            }
            frame
        },
    );
    prop_oneof![1 => noise, 4 => mutated].prop_map(runnable)
}

/// Frames and drops that were counted at all ports: received, sent, dropped.
fn totals(switch: &Switch) -> Result<(u64, u64, u64)> {
    let counters = switch.counters()?;
    let sum = |pick: &dyn Fn(&vnet_common::stats::VportStats) -> u64| counters.iter().map(|(_, one)| pick(one)).sum();
    Ok((sum(&|one| one.rx_frames), sum(&|one| one.tx_frames), sum(&|one| one.drops.iter().sum())))
}

/// A packet that was dropped goes back as an ICMP error, which is right whatever the packet was.
fn is_icmp_error(frame: &[u8]) -> Result<()> {
    let ip = summary(frame).and_then(|frame| frame.ipv4).context("not IPv4")?;
    ensure!(ip.protocol == ICMP && ip.ttl == 64 && frame.len() <= 14 + 576, "{ip:?} of {} bytes", frame.len());
    ensure!(matches!(frame.get(34), Some(3 | 11)), "ICMP type {:?}", frame.get(34));
    let sums = checksum::judge(frame).map_err(anyhow::Error::msg)?;
    ensure!(sums == checksum::L4::Full, "{sums:?}");
    Ok(())
}

/// What holds for any frame at any port.
fn holds(switch: &Switch, from: Port, hook: &str, frame: &[u8]) -> Result<()> {
    let before = totals(switch)?;
    let fast = if hook == program::PORT_INGRESS { Some(switch.xdp(from, frame)?) } else { None };
    let after_xdp = totals(switch)?;
    if let Some(fast) = &fast {
        let counted = (after_xdp.0 - before.0, after_xdp.1 - before.1, after_xdp.2 - before.2);
        match fast.verdict {
            xdp::PASS => ensure!(fast.bytes == frame && counted == (0, 0, 0), "XDP passed it, but {counted:?}"),
            xdp::REDIRECT => ensure!(counted == (1, 1, 0), "XDP sent it, and counted {counted:?}"),
            other => anyhow::bail!("XDP's verdict {other}"),
        }
    }
    let slow = run_tc(&switch.ebpf, hook, switch.ifindex(from), 0, frame)?;
    let after = totals(switch)?;
    let (received, sent, dropped) = (after.0 - after_xdp.0, after.1 - after_xdp.1, after.2 - after_xdp.2);
    match slow.verdict {
        tc::REDIRECT if dropped == 1 => {
            ensure!((received, sent) == (1, 1), "refused: {received} {sent}");
            is_icmp_error(&slow.bytes)?;
        }
        tc::REDIRECT => ensure!((received, sent, dropped) == (1, 1, 0), "sent: {received} {sent} {dropped}"),
        tc::DROP if (received, sent, dropped) == (0, 0, 0) => {
            // It is kept, or goes round once more with those that were.
            let fragment = be16(frame, 20).is_some_and(|word| word & 0x3fff != 0);
            ensure!(be16(frame, 12) == Some(0x0800) && fragment, "neither counted nor a fragment");
        }
        tc::DROP => ensure!(
            received == 1 && (dropped == 1 && sent == 0 || dropped == 0 && sent > 0),
            "dropped or flooded: {received} {sent} {dropped}"
        ),
        tc::NEXT => {
            let guest = matches!(from, Port::Guest1 | Port::Guest2 | Port::Guest3);
            ensure!(!guest, "a guest's frame went up to the host");
            ensure!(dropped == 0 && slow.bytes == frame, "left to the host, but changed or counted as dropped");
        }
        other => anyhow::bail!("TC's verdict {other}"),
    }
    if let Some(fast) = fast.filter(|fast| fast.verdict == xdp::REDIRECT) {
        ensure!(slow.verdict == tc::REDIRECT && slow.bytes == fast.bytes, "XDP sent {fast:?}, TC says {slow:?}");
    }
    Ok(())
}

/// No half connection and no half binding, whatever came.
fn tables_are_sound(switch: &Switch) -> Result<()> {
    let connections = maps::Connections::live(&switch.ebpf)?;
    let slots = maps::Connections::slots(&switch.ebpf)?;
    ensure!(slots == 2 * connections.len(), "{slots} slots for {} connections", connections.len());
    let bindings = maps::Bindings::live(&switch.ebpf)?;
    let slots = maps::Bindings::slots(&switch.ebpf)?;
    ensure!(slots == 2 * bindings.len(), "{slots} slots for {} bindings", bindings.len());
    let used: u32 = bindings.iter().map(|(_, binding)| binding.connections.load()).sum();
    let users = connections
        .iter()
        .map(|(_, connection)| usize::from(connection.binding != 0) + usize::from(connection.origin == ORIGIN_BINDING));
    let users: usize = users.sum();
    ensure!(used as usize == users, "bindings count {used} users, connections are {users}");
    let guests = [Port::Guest1, Port::Guest2, Port::Guest3, Port::Gateway];
    for port in guests {
        let used = maps::Guests::get(&switch.ebpf, port as u32)?;
        let own = connections.iter().filter(|(_, connection)| connection.guest_vport == port as u16).count();
        ensure!(used.connections.load() as usize == own, "{port:?}: {used:?}, {own} connections");
    }
    Ok(())
}

/// Connections' entries at the end.
fn random_frames(setup: Setup, hooks: &[(Port, &'static str)]) -> Result<usize> {
    let mut switch = Switch::new(&[])?;
    switch.host().enter(|| {
        switch.reset(&setup)?;
        let switch = RefCell::new(&mut switch);
        let config = Config { cases: RUNS, failure_persistence: None, ..Config::default() };
        let at = prop::sample::select(hooks.to_vec());
        let run = TestRunner::new(config).run(&(at, frames()), |((from, hook), frame)| {
            let outcome = holds(&switch.borrow(), from, hook, &frame);
            outcome.map_err(|error| TestCaseError::fail(format!("{error:#}")))
        });
        run.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let switch = switch.borrow();
        tables_are_sound(&switch)?;
        Ok(maps::Connections::live(&switch.ebpf)?.len())
    })
}

const INGRESS: &str = program::PORT_INGRESS;

#[test]
fn any_frame_into_a_nat_network_ends_in_a_known_verdict() -> Result<()> {
    let guest = vnet_tests::switch::GUEST1.1;
    let forwards = vec![(TCP, None, 8080, guest, 80), (UDP, None, 5353, guest, 53)];
    let setup = Setup { forwards, ..Setup::default() };
    let hooks = [
        (Port::Guest1, INGRESS),
        (Port::Guest2, INGRESS),
        (Port::Guest3, INGRESS),
        (Port::Uplink, INGRESS),
        (Port::Gateway, program::GATEWAY_EGRESS),
    ];
    let connections = random_frames(setup, &hooks)?;
    ensure!(connections >= 20, "{connections} connections opened: the frames were too random");
    Ok(())
}

#[test]
fn any_frame_on_a_shared_wire_ends_in_a_known_verdict() -> Result<()> {
    // The network is a bridge one; the nat cases' frames are strangers' there.
    let setup = Setup {
        mode: 1,
        uplink_role: VportRole::BridgeUplink,
        members: vec![Port::Guest1, Port::Guest2, Port::Uplink],
        fdb: vec![(UPLINK_MAC, Port::Uplink, FdbKind::Local)],
        ..Setup::default()
    };
    let hooks = [(Port::Guest1, INGRESS), (Port::Uplink, INGRESS), (Port::Uplink, program::UPLINK_EGRESS)];
    assert_eq!(random_frames(setup, &hooks)?, 0, "a bridge has no connections");
    Ok(())
}
