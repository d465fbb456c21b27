//! The loaded programs at the edges of their tables: full ones, and entries that come to their end.

use anyhow::{Context, Result, ensure};
use vnet_common::{
    DropReason, Word,
    config::OUTSIDE as OUTSIDE_NETWORK,
    fdb::{FdbEntry, FdbKind},
    flow::{FlowEntry, FlowKey},
    names::{map, program},
    stats::EventCount,
};
use vnet_tests::{
    cases::{at, from_outside, to_gateway},
    frame::{ETHERTYPE_TEST, Ipv4, Mac, ethernet},
    maps,
    programs::{run_expiry, tc},
    switch::{GUEST1, GUEST2, NETWORK, Port, Setup, Switch, coarse_seconds},
    topology::{HOST, INTERNET, OUTSIDE},
};
use zerocopy::IntoBytes;

/// Runs a test on a switch, inside its namespace.
fn on_switch(sizes: &[(&str, u32)], test: impl FnOnce(&mut Switch) -> Result<()> + Send) -> Result<()> {
    let mut switch = Switch::new(sizes)?;
    switch.host().enter(|| test(&mut switch))
}

/// Guest 1's datagram from a port.
fn udp(port: u16) -> Vec<u8> {
    to_gateway(&Ipv4::udp(at(GUEST1.1, port), at(OUTSIDE, 53), b"abcd"))
}

/// Reasons for which guest 1's frames were dropped, and how often.
fn dropped(switch: &Switch) -> Result<Vec<(&'static str, u64)>> {
    Ok(maps::drops(&maps::stats(&switch.ebpf, Port::Guest1 as u32)?))
}

/// Lets both directions of all connections have been idle for so long; a direction may be excepted.
fn age(switch: &mut Switch, idle: u32, except: impl Fn(&FlowKey) -> bool) -> Result<Vec<Vec<u8>>> {
    let now = coarse_seconds()?;
    let flows = maps::Flows::all(&switch.ebpf)?;
    let keys = flows.iter().map(|(key, _)| key.as_bytes().to_vec()).collect();
    for (key, mut flow) in flows {
        flow.last_seen = Word::new(if except(&key) { now } else { now.wrapping_sub(idle) });
        maps::Flows::put(&mut switch.ebpf, key, flow)?;
    }
    Ok(keys)
}

fn flows(switch: &Switch) -> Result<Vec<(FlowKey, FlowEntry)>> {
    maps::Flows::all(&switch.ebpf)
}

#[test]
fn a_full_flow_table_refuses_new_connections_and_keeps_the_old_ones() -> Result<()> {
    // An odd number: one direction finds room, the other does not, and neither must stay.
    for size in [8, 9] {
        on_switch(&[(map::FLOWS, size)], |switch| {
            for port in 50_000..50_004 {
                ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "port {port}");
            }
            for port in 50_004..50_010 {
                ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::DROP, "port {port} of a full table");
            }
            assert_eq!(dropped(switch)?, [(DropReason::TableFull.name(), 6)]);
            assert_eq!(flows(switch)?.len(), 8, "half a connection was left");
            for port in 50_000..50_004 {
                ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "the old flow from {port}");
                let answer = from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, port), b"abcd"));
                ensure!(switch.tc(Port::Uplink, &answer)?.verdict == tc::REDIRECT, "its answer");
            }
            // What was refused holds no port for ever: its binding is used by nobody.
            let bindings = maps::Bindings::all(&switch.ebpf)?;
            let used: Vec<_> = bindings
                .iter()
                .filter(|(key, _)| key.network == NETWORK)
                .map(|(key, binding)| (key.port.get(), binding.connections.load()))
                .collect();
            ensure!(used.iter().all(|(port, users)| *users == u32::from(*port < 50_004)), "users by port: {used:?}");
            // Room again, and it goes on.
            let keys: Vec<_> = flows(switch)?.iter().map(|(key, _)| key.as_bytes().to_vec()).collect();
            run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, true, &keys)?;
            ensure!(switch.tc(Port::Guest1, &udp(50_009))?.verdict == tc::REDIRECT, "after room was made");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_full_table_of_bindings_refuses_and_leaves_no_half() -> Result<()> {
    for size in [4, 5] {
        on_switch(&[(map::BINDINGS, size)], |switch| {
            for port in [50_000, 50_001] {
                ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "port {port}");
            }
            ensure!(switch.tc(Port::Guest1, &udp(50_002))?.verdict == tc::DROP);
            assert_eq!(dropped(switch)?, [(DropReason::TableFull.name(), 1)]);
            assert_eq!(maps::Bindings::all(&switch.ebpf)?.len(), 4, "half a binding was left");
            assert_eq!(flows(switch)?.len(), 4);
            // A second destination of a bound port needs no binding.
            let other = to_gateway(&Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 53), b"abcd"));
            ensure!(switch.tc(Port::Guest1, &other)?.verdict == tc::REDIRECT, "a bound port");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_full_mac_table_floods_and_counts_but_drops_nothing() -> Result<()> {
    on_switch(&[(map::FDB, 5)], |switch| {
        // The gateway and two guests stand in it already.
        let from = |last: u8| ethernet(GUEST1.0, Mac([2, 0, 0, 0, 0xcc, last]), ETHERTYPE_TEST, &[0; 46]);
        let before = maps::events(&switch.ebpf, EventCount::FdbFull)?;
        for last in 0..10 {
            ensure!(switch.tc(Port::Guest2, &from(last))?.verdict == tc::REDIRECT, "to a known address");
        }
        assert_eq!(maps::events(&switch.ebpf, EventCount::FdbFull)? - before, 8);
        assert_eq!(maps::Fdb::all(&switch.ebpf)?.len(), 5);
        let to_unknown = ethernet(Mac([2, 0, 0, 0, 0xcc, 9]), GUEST1.0, ETHERTYPE_TEST, &[0; 46]);
        let sent = maps::stats(&switch.ebpf, Port::Guest3 as u32)?.tx_frames;
        ensure!(switch.tc(Port::Guest1, &to_unknown)?.verdict == tc::DROP);
        assert_eq!(maps::stats(&switch.ebpf, Port::Guest3 as u32)?.tx_frames - sent, 1, "flooded");
        Ok(())
    })
}

#[test]
fn connections_end_when_they_have_been_idle_for_their_time_and_no_earlier() -> Result<()> {
    on_switch(&[], |switch| {
        let tcp = |flags| to_gateway(&Ipv4::tcp(at(GUEST1.1, 50_000), at(OUTSIDE, 80), flags, b""));
        let syn_ack = from_outside(&Ipv4::tcp(at(OUTSIDE, 80), at(HOST, 50_000), 0x12, b""));
        let echo = to_gateway(&Ipv4::icmp_echo(GUEST1.1, OUTSIDE, 8, 50_000, b"ping"));
        let (inside, wire) = (Port::Guest1, Port::Uplink);
        type Case<'a> = (&'a str, Vec<(Port, Vec<u8>)>, u32);
        let cases: [Case; 5] = [
            ("UDP", vec![(inside, udp(50_000))], 300),
            ("ICMP", vec![(inside, echo)], 60),
            ("TCP opening", vec![(inside, tcp(0x02))], 240),
            ("TCP", vec![(inside, tcp(0x02)), (wire, syn_ack.clone()), (inside, tcp(0x10))], 7440),
            ("TCP reset", vec![(inside, tcp(0x02)), (wire, syn_ack), (inside, tcp(0x10)), (inside, tcp(0x14))], 240),
        ];
        for (name, frames, limit) in cases {
            switch.reset(&Setup::default())?;
            for (from, frame) in frames {
                ensure!(switch.tc(from, &frame)?.verdict == tc::REDIRECT, "{name}");
            }
            // Two seconds of grace: the clock goes on while this runs.
            let keys = age(switch, limit - 2, |_| false)?;
            assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, false, &keys)?, 0, "{name}: too early");
            age(switch, limit, |key| key.network == OUTSIDE_NETWORK)?;
            assert_eq!(
                run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, false, &keys)?,
                0,
                "{name}: one direction lives"
            );
            age(switch, limit, |key| key.network == NETWORK)?;
            assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, false, &keys)?, 0, "{name}: the other lives");
            assert_eq!(flows(switch)?.len(), 2, "{name}");
            age(switch, limit, |_| false)?;
            // Both keys name one connection, which ends once.
            assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, false, &keys)?, 1, "{name}: too late");
            assert_eq!(flows(switch)?.len(), 0, "{name}: an entry was left");
        }
        Ok(())
    })
}

#[test]
fn a_binding_lives_as_long_as_its_last_connection_and_a_little_longer() -> Result<()> {
    on_switch(&[], |switch| {
        let second = to_gateway(&Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 53), b"abcd"));
        for frame in [udp(50_000), second] {
            ensure!(switch.tc(Port::Guest1, &frame)?.verdict == tc::REDIRECT);
        }
        let internal = |switch: &Switch| -> Result<_> {
            let bindings = maps::Bindings::all(&switch.ebpf)?;
            bindings.into_iter().find(|(key, _)| key.network == NETWORK).context("no internal side")
        };
        let expire = |switch: &mut Switch, idle: u32| -> Result<u32> {
            let (key, mut binding) = internal(switch)?;
            binding.last_used = Word::new(coarse_seconds()?.wrapping_sub(idle));
            maps::Bindings::put(&mut switch.ebpf, key, binding)?;
            run_expiry(&switch.ebpf, program::EXPIRE_BINDINGS, false, &[key.as_bytes().to_vec()])
        };
        let end = |switch: &Switch, address: std::net::Ipv4Addr| -> Result<u32> {
            let keys: Vec<_> = flows(switch)?
                .iter()
                .filter(|(key, _)| key.network == NETWORK && key.dst == address.into())
                .map(|(key, _)| key.as_bytes().to_vec())
                .collect();
            run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, true, &keys)
        };
        assert_eq!(internal(switch)?.1.connections.load(), 2);
        assert_eq!(end(switch, OUTSIDE)?, 1);
        assert_eq!(internal(switch)?.1.connections.load(), 1);
        assert_eq!(expire(switch, 3600)?, 0, "it is in use");
        assert_eq!(end(switch, INTERNET)?, 1);
        assert_eq!(expire(switch, 0)?, 0, "it was in use just now");
        assert_eq!(maps::Bindings::all(&switch.ebpf)?.len(), 2);
        assert_eq!(expire(switch, 3600)?, 1);
        assert_eq!(maps::Bindings::all(&switch.ebpf)?.len(), 0, "one side was left");
        Ok(())
    })
}

#[test]
fn learned_addresses_age_and_others_do_not() -> Result<()> {
    on_switch(&[], |switch| {
        let setup = Setup {
            fdb: vec![
                (Mac([2, 0, 0, 0, 0xdd, 1]), Port::Guest1, FdbKind::Static),
                (Mac([2, 0, 0, 0, 0xdd, 2]), Port::Uplink, FdbKind::Local),
            ],
            learned: vec![Port::Guest1, Port::Guest2],
            ..Setup::default()
        };
        switch.reset(&setup)?;
        let expire = |switch: &mut Switch, idle: u32| -> Result<u32> {
            let now = coarse_seconds()?;
            let mut keys = Vec::new();
            for (key, entry) in maps::Fdb::all(&switch.ebpf)? {
                // Guest 2 has spoken just now.
                let idle = if key.mac.0 == GUEST2.0.0 { 0 } else { idle };
                let aged = FdbEntry { last_seen: Word::new(now.wrapping_sub(idle)), ..entry };
                maps::Fdb::put(&mut switch.ebpf, key, aged)?;
                keys.push(key.as_bytes().to_vec());
            }
            run_expiry(&switch.ebpf, program::EXPIRE_FDB, false, &keys)
        };
        assert_eq!(expire(switch, 298)?, 0, "too early");
        assert_eq!(expire(switch, 300)?, 1);
        let left: Vec<_> = maps::Fdb::all(&switch.ebpf)?.iter().map(|(key, _)| key.mac.0).collect();
        ensure!(left.len() == 3 && !left.contains(&GUEST1.0.0), "{left:?}");
        Ok(())
    })
}
