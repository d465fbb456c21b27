//! The loaded programs at the edges of their tables: full ones, and entries that come to their end.

use anyhow::{Context, Result, ensure};
use vnet_common::{
    DropReason, Ip, Word,
    fdb::{FdbEntry, FdbKind},
    flow::Connection,
    names::{expiry::Mode, map, program},
    stats::EventCount,
};
use vnet_tests::{
    cases::{PROHIBITED, at, from_outside, to_gateway},
    frame::{ETHERTYPE_TEST, Ipv4, Mac, ethernet},
    maps,
    programs::{run_expiry, tc},
    switch::{GUEST1, GUEST2, Port, Setup, Switch, coarse_seconds},
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

/// Guest 1's packet from a port is refused, and it is told so (RFC 5508 REQ-8).
fn is_prohibited(switch: &Switch, port: u16) -> Result<()> {
    let run = switch.tc(Port::Guest1, &udp(port))?;
    let told = (run.verdict, run.bytes.get(34..36));
    ensure!(told == (tc::REDIRECT, Some(&PROHIBITED[..])), "{told:?}");
    Ok(())
}

/// Reasons for which guest 1's frames were dropped, and how often.
fn dropped(switch: &Switch) -> Result<Vec<(&'static str, u64)>> {
    Ok(maps::drops(&maps::stats(&switch.ebpf, Port::Guest1 as u32)?))
}

/// Lets all connections have been idle for so long.
fn age(switch: &mut Switch, idle: u32) -> Result<()> {
    let now = coarse_seconds()?;
    for (index, connection) in connections(switch)? {
        connection.last_seen.store(now.wrapping_sub(idle));
        maps::Connections::put(&mut switch.ebpf, index, connection)?;
    }
    Ok(())
}

fn connections(switch: &Switch) -> Result<Vec<(u32, Connection)>> {
    maps::Connections::live(&switch.ebpf)
}

/// Records' numbers, as expiry takes them.
fn keys<R>(records: &[(u32, R)]) -> Vec<Vec<u8>> {
    records.iter().map(|(index, _)| index.to_ne_bytes().to_vec()).collect()
}

/// Lets everything that has ended be out of its grace.
fn pass_grace(switch: &mut Switch) -> Result<()> {
    let long_ago = coarse_seconds()?.wrapping_sub(10);
    for index in 1..=maps::Pools::get(&switch.ebpf, 0)?.fresh.load() {
        let record = maps::ConnectionRecords::get(&switch.ebpf, index)?;
        if record.last_seen.load() == 0 {
            record.created.store(long_ago);
            maps::Connections::put(&mut switch.ebpf, index, record)?;
        }
    }
    Ok(())
}

#[test]
fn a_full_connection_table_refuses_new_connections_and_keeps_the_old_ones() -> Result<()> {
    // Seven records: number 0 is never used.
    on_switch(&maps::pair_sizes(8, 64), |switch| {
        for port in 50_000..50_007 {
            ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "port {port}");
        }
        for port in 50_007..50_013 {
            is_prohibited(switch, port).with_context(|| format!("port {port} of a full table"))?;
        }
        assert_eq!(dropped(switch)?, [(DropReason::TableFull.name(), 6)]);
        assert_eq!(connections(switch)?.len(), 7);
        assert_eq!(maps::Connections::slots(&switch.ebpf)?, 14, "half a connection was left");
        for port in 50_000..50_007 {
            ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "the old flow from {port}");
            let answer = from_outside(&Ipv4::udp(at(OUTSIDE, 53), at(HOST, port), b"abcd"));
            ensure!(switch.tc(Port::Uplink, &answer)?.verdict == tc::REDIRECT, "its answer");
        }
        // What was refused holds no port for ever: its binding is used by nobody.
        for (_, binding) in maps::Bindings::live(&switch.ebpf)? {
            let port = binding.external_port.get();
            assert_eq!(binding.connections.load(), u32::from(port < 50_007), "users of port {port}");
        }
        assert_eq!(maps::Guests::get(&switch.ebpf, Port::Guest1 as u32)?.connections.load(), 7);
        // Room again, and it goes on.
        let all = keys(&connections(switch)?);
        assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, Mode::Force, &all)?, 7);
        assert_eq!(maps::Connections::slots(&switch.ebpf)?, 0);
        is_prohibited(switch, 50_009).context("a record was used again at once")?;
        pass_grace(switch)?;
        ensure!(switch.tc(Port::Guest1, &udp(50_009))?.verdict == tc::REDIRECT, "after room was made");
        Ok(())
    })
}

#[test]
fn a_full_table_of_bindings_refuses_and_leaves_no_half() -> Result<()> {
    on_switch(&maps::pair_sizes(64, 8), |switch| {
        for port in 50_000..50_007 {
            ensure!(switch.tc(Port::Guest1, &udp(port))?.verdict == tc::REDIRECT, "port {port}");
        }
        is_prohibited(switch, 50_007)?;
        assert_eq!(dropped(switch)?, [(DropReason::TableFull.name(), 1)]);
        assert_eq!(maps::Bindings::live(&switch.ebpf)?.len(), 7);
        assert_eq!(maps::Bindings::slots(&switch.ebpf)?, 14, "half a binding was left");
        assert_eq!(connections(switch)?.len(), 7);
        // A second destination of a bound port needs no binding.
        let other = to_gateway(&Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 53), b"abcd"));
        ensure!(switch.tc(Port::Guest1, &other)?.verdict == tc::REDIRECT, "a bound port");
        Ok(())
    })
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
            age(switch, limit - 2)?;
            let all = keys(&connections(switch)?);
            assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, Mode::Expired, &all)?, 0, "{name}: too early");
            assert_eq!(connections(switch)?.len(), 1, "{name}");
            age(switch, limit)?;
            let twice = [all.clone(), all].concat();
            assert_eq!(run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, Mode::Expired, &twice)?, 1, "{name}: too late");
            assert_eq!(connections(switch)?.len(), 0, "{name}: it was left");
            assert_eq!(maps::Connections::slots(&switch.ebpf)?, 0, "{name}: a slot was left");
        }
        Ok(())
    })
}

#[test]
fn a_binding_lives_as_long_as_its_last_connection_and_its_port_cools_down() -> Result<()> {
    on_switch(&[], |switch| {
        let second = to_gateway(&Ipv4::udp(at(GUEST1.1, 50_000), at(INTERNET, 53), b"abcd"));
        for frame in [udp(50_000), second] {
            ensure!(switch.tc(Port::Guest1, &frame)?.verdict == tc::REDIRECT);
        }
        let binding = |switch: &Switch| -> Result<_> {
            maps::Bindings::live(&switch.ebpf)?.into_iter().next().context("no binding")
        };
        let expire = |switch: &mut Switch, idle: u32| -> Result<u32> {
            let (index, record) = binding(switch)?;
            record.last_used.store(coarse_seconds()?.wrapping_sub(idle));
            maps::Bindings::put(&mut switch.ebpf, index, record)?;
            run_expiry(&switch.ebpf, program::EXPIRE_BINDINGS, Mode::Expired, &[index.to_ne_bytes().to_vec()])
        };
        let end = |switch: &Switch, address: std::net::Ipv4Addr| -> Result<u32> {
            let mut ended = connections(switch)?;
            ended.retain(|(_, connection)| connection.original.dst == Ip::from(address).v4_raw());
            run_expiry(&switch.ebpf, program::EXPIRE_FLOWS, Mode::Force, &keys(&ended))
        };
        assert_eq!(binding(switch)?.1.connections.load(), 2);
        assert_eq!(end(switch, OUTSIDE)?, 1);
        assert_eq!(binding(switch)?.1.connections.load(), 1);
        assert_eq!(expire(switch, 3600)?, 0, "it is in use");
        assert_eq!(end(switch, INTERNET)?, 1);
        assert_eq!(expire(switch, 118)?, 0, "its port is cooling down");
        assert_eq!(expire(switch, 120)?, 1);
        assert_eq!(maps::Bindings::live(&switch.ebpf)?.len(), 0);
        assert_eq!(maps::Bindings::slots(&switch.ebpf)?, 0, "one side was left");
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
            run_expiry(&switch.ebpf, program::EXPIRE_FDB, Mode::Expired, &keys)
        };
        assert_eq!(expire(switch, 298)?, 0, "too early");
        assert_eq!(expire(switch, 300)?, 1);
        let left: Vec<_> = maps::Fdb::all(&switch.ebpf)?.iter().map(|(key, _)| key.mac.0).collect();
        ensure!(left.len() == 3 && !left.contains(&GUEST1.0.0), "{left:?}");
        Ok(())
    })
}
