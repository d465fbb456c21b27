//! vnet's NAT against netfilter's, packet by packet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use vnet_tests::{
    cases::{
        Case, Expect,
        matrix::{self, EXTERNAL, INSIDE},
    },
    frame::ETHERNET,
    oracle::{
        compare::{Report, run},
        explain::{ERROR_RATE, EXPLANATIONS},
        side::{OUTSIDE_END, Side},
    },
    switch::Port,
};

/// Change it for other sequences: VNET_ORACLE_SEED.
const SEED: u64 = 0x766e_6574;
const STEPS: usize = 40_000;
/// Slower machines do fewer steps.
const LIMIT: Duration = Duration::from_secs(40);
/// Fewer say nothing.
const ENOUGH: usize = 2000;

/// Keeps this thread on one CPU: packets that it sends one after the other are handled in this order.
fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true)).context("no CPU")?;
    let mut one = CpuSet::new();
    one.set(first)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

#[test]
fn every_difference_from_netfilter_is_a_requirement_of_an_rfc() -> Result<()> {
    stay_on_one_cpu()?;
    let seed = match std::env::var("VNET_ORACLE_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => SEED,
    };
    println!("seed {seed}");
    let Report { steps, alike, explained } = run(seed, STEPS, LIMIT)?;
    println!("{steps} steps, {alike} packets alike");
    for (explanation, count) in EXPLANATIONS.iter().zip(&explained) {
        println!("{count}: {} ({})", explanation.why, explanation.requirement);
    }
    ensure!(steps >= ENOUGH && alike * 3 > steps, "{steps} steps, and only {alike} packets came out of both");
    // What explains nothing is stale, but for a rate that slow machines do not reach.
    for (explanation, count) in EXPLANATIONS.iter().zip(explained) {
        ensure!(count > 0 || explanation.requirement == ERROR_RATE, "never needed: {}", explanation.why);
    }
    Ok(())
}

/// What netfilter does with a case of the matrix is what the case expects.
fn is_netfilters(side: &Side, case: &Case, number: usize) -> Result<()> {
    let end = |port: Port| if port == Port::Uplink { OUTSIDE_END } else { 0 };
    let pass = |port: Port, frame: &[u8]| {
        side.send_bytes(end(port), &frame[ETHERNET..])?;
        side.settle(end(port), number)
    };
    for (port, frame) in &case.before {
        pass(*port, frame)?;
    }
    let came = pass(case.from, &case.frame)?;
    let Expect::Sends(port, expected) = &case.expect else {
        ensure!(came.is_empty(), "netfilter sends {came:02x?}");
        return Ok(());
    };
    let found = came.iter().any(|(at, frame)| *at == end(*port) && frame[ETHERNET..] == expected[ETHERNET..]);
    ensure!(found, "expected {expected:02x?}, netfilter sends {came:02x?}");
    Ok(())
}

#[test]
fn the_matrix_expects_what_netfilter_does_byte_for_byte() -> Result<()> {
    stay_on_one_cpu()?;
    // netfilter puts fragments together before it translates, passes source quenches on, and leaves
    // query identifiers alone.
    let judged = |case: &Case| !case.name.starts_with("Echo") && !case.name.contains(": 4/0");
    let cases: Vec<Case> = matrix::whole_packets().into_iter().filter(judged).collect();
    ensure!(cases.len() > 300, "{} cases", cases.len());
    let side = Side::netfilter(Some((INSIDE, EXTERNAL)))?;
    for (number, case) in cases.iter().enumerate() {
        is_netfilters(&side, case, number).with_context(|| case.name.clone())?;
    }
    Ok(())
}
