//! Running a case, and comparing everything that it leaves.

use anyhow::{Context, Result, bail, ensure};
use vnet_common::stats::VportStats;

use super::{Case, Expect};
use crate::{
    maps,
    programs::{tc, xdp},
    switch::{Port, Switch},
};

/// What counters moved, as lines: `g1 rx 1 frame 60 bytes`.
fn moved(before: &[(Port, VportStats)], after: &[(Port, VportStats)]) -> Vec<String> {
    let mut lines = Vec::new();
    for ((port, then), (_, now)) in before.iter().zip(after) {
        let device = port.device();
        for (way, frames, bytes) in [
            ("rx", now.rx_frames - then.rx_frames, now.rx_bytes - then.rx_bytes),
            ("tx", now.tx_frames - then.tx_frames, now.tx_bytes - then.tx_bytes),
        ] {
            if frames + bytes > 0 {
                lines.push(format!("{device} {way} {frames} frames {bytes} bytes"));
            }
        }
        let earlier = maps::drops(then);
        for (reason, count) in maps::drops(now) {
            let past = earlier.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count);
            if count > past {
                lines.push(format!("{device} drop {reason} {}", count - past));
            }
        }
    }
    lines.sort();
    lines
}

/// The counters that a case must move.
fn expected_counters(case: &Case) -> Vec<String> {
    let length = case.frame.len();
    let sent = |port: &Port| format!("{} tx 1 frames {length} bytes", port.device());
    let mut lines = match &case.expect {
        Expect::NotOurs | Expect::Kept => return Vec::new(),
        Expect::ToHost => Vec::new(),
        Expect::Drop(reason) => vec![format!("{} drop {} 1", case.from.device(), reason.name())],
        Expect::Refuses(reason, frame) => vec![
            format!("{} drop {} 1", case.from.device(), reason.name()),
            format!("{} tx 1 frames {} bytes", case.from.device(), frame.len()),
        ],
        Expect::Sends(port, _) | Expect::Resolves(port, _) => vec![sent(port)],
        Expect::Answers(_) => vec![sent(&case.from)],
        Expect::Floods(ports) | Expect::FloodsAndToHost(ports) => ports.iter().map(sent).collect(),
    };
    lines.push(format!("{} rx 1 frames {length} bytes", case.from.device()));
    lines.sort();
    lines
}

/// Sets the tables up and lets the frames pass that come before.
fn prepare(switch: &mut Switch, case: &Case) -> Result<()> {
    switch.reset(&case.setup)?;
    for (number, (from, frame)) in case.before.iter().enumerate() {
        let earlier = switch.counters()?;
        let run = switch.tc(*from, frame)?;
        let counted = moved(&earlier, &switch.counters()?);
        let sent = run.verdict != tc::NEXT && !counted.iter().any(|line| line.contains(" drop "));
        ensure!(sent, "frame {number} before was not sent: verdict {}, {counted:?}", run.verdict as i32);
    }
    Ok(())
}

/// Runs a case on TC. Call it inside the switch's namespace.
pub fn on_tc(switch: &mut Switch, case: &Case) -> Result<()> {
    prepare(switch, case)?;
    let before = switch.counters()?;
    let run = switch.tc_gso(case.from, case.gso_size, &case.frame)?;
    let counted = moved(&before, &switch.counters()?);
    let (verdict, bytes) = match &case.expect {
        Expect::NotOurs | Expect::ToHost => (tc::NEXT, Some(&case.frame)),
        Expect::FloodsAndToHost(_) => (tc::NEXT, Some(&case.frame)),
        Expect::Drop(_) | Expect::Floods(_) | Expect::Kept => (tc::DROP, None),
        Expect::Sends(_, frame) | Expect::Answers(frame) | Expect::Resolves(_, frame) | Expect::Refuses(_, frame) => {
            (tc::REDIRECT, Some(frame))
        }
    };
    let expected = expected_counters(case);
    ensure!(
        run.verdict == verdict,
        "verdict {} instead of {verdict} ({:?}); counted {counted:?}",
        run.verdict as i32,
        case.expect
    );
    // The kernel writes the addresses of what it resolves itself.
    let skip = if matches!(case.expect, Expect::Resolves(..)) { 12 } else { 0 };
    if let Some(bytes) = bytes {
        same(&run.bytes[skip..], &bytes[skip..])?;
    }
    ensure!(counted == expected, "counted {counted:?} instead of {expected:?}");
    Ok(())
}

/// Runs a case on XDP after TC: passed untouched, or the same frame by the same port. True if XDP sent it.
pub fn on_xdp(switch: &mut Switch, case: &Case) -> Result<bool> {
    if case.from == Port::Gateway || case.gso_size > 0 {
        return Ok(false);
    }
    prepare(switch, case)?;
    let tables = (maps::Connections::live(&switch.ebpf)?.len(), maps::Bindings::live(&switch.ebpf)?.len());
    let before = switch.counters()?;
    let run = switch.xdp(case.from, &case.frame)?;
    let counted = moved(&before, &switch.counters()?);
    match run.verdict {
        xdp::PASS => {
            ensure!(!case.accelerated, "left to TC");
            same(&run.bytes, &case.frame).context("passed, but changed")?;
            ensure!(counted.is_empty(), "passed, but counted {counted:?}");
            let after = (maps::Connections::live(&switch.ebpf)?.len(), maps::Bindings::live(&switch.ebpf)?.len());
            ensure!(after == tables, "passed, but left entries: flows and bindings {tables:?} → {after:?}");
            // And TC makes of it what it always makes.
            let again = switch.tc(case.from, &case.frame)?;
            prepare(switch, case)?;
            let alone = switch.tc(case.from, &case.frame)?;
            ensure!(again == alone, "TC after XDP: {again:?}, TC alone: {alone:?}");
            Ok(false)
        }
        xdp::REDIRECT => {
            let Expect::Sends(_, frame) = &case.expect else { bail!("XDP sent what TC does not: {:?}", case.expect) };
            same(&run.bytes, frame).context("XDP's frame differs from TC's")?;
            let expected = expected_counters(case);
            ensure!(counted == expected, "XDP counted {counted:?} instead of {expected:?}");
            Ok(true)
        }
        other => bail!("XDP's verdict is {other}"),
    }
}

fn same(found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    bail!(
        "frames differ from byte {at} on ({} and {} bytes)\nfound    {}\nexpected {}",
        found.len(),
        expected.len(),
        hex(found),
        hex(expected)
    )
}

fn hex(bytes: &[u8]) -> String {
    let head: Vec<_> = bytes.iter().take(128).map(|byte| format!("{byte:02x}")).collect();
    head.join(" ")
}

/// Runs all cases, and names each that fails.
pub fn table(cases: &[Case], mut run: impl FnMut(&Case) -> Result<()>) -> Result<()> {
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    names.windows(2).try_for_each(|two| {
        ensure!(two[0] != two[1], "two cases are named {}", two[0]);
        Ok(())
    })?;
    let faults: Vec<_> =
        cases.iter().filter_map(|case| run(case).err().map(|error| format!("{}: {error:#}", case.name))).collect();
    ensure!(faults.is_empty(), "{} of {} cases fail:\n{}", faults.len(), cases.len(), faults.join("\n"));
    Ok(())
}
