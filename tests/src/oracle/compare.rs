//! Runs a sequence through both sides and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    explain::{ERROR_RATE, EXPLANATIONS, History, Outcome, explain},
    render,
    script::{Content, Cut, FORWARDS, Inside, PSH_ACK, SYN, Script, Step, behind},
    side::{OUTSIDE_END, Side},
};
use crate::{
    frame::{ICMP, Ipv4, TCP, be16, summary},
    topology::HOST,
};

/// A router on the way, from which errors come.
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// Steps shown of an unexplained difference: those about the same guest's port.
const SHOWN: usize = 30;

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub steps: usize,
    /// Packets that came out of both sides alike.
    pub alike: usize,
    /// How often each of [`EXPLANATIONS`] was needed.
    pub explained: Vec<usize>,
}

/// Runs `steps` steps, or as many as fit in the time.
pub fn run(seed: u64, steps: usize, limit: Duration) -> Result<Report> {
    let mut sides = [Side::netfilter(None)?, Side::vnet()?];
    let mut script = Script::new(seed);
    let mut history = History::default();
    let mut report = Report { explained: vec![0; EXPLANATIONS.len()], ..Report::default() };
    let mut done = Vec::new();
    let started = Instant::now();
    while report.steps < steps && started.elapsed() < limit {
        let step = script.step();
        report.steps += 1;
        let number = report.steps;
        let overloaded = overloaded(&sides[0], &step);
        let mut outcomes = Vec::new();
        for side in &mut sides {
            outcomes.push(perform(side, &step, number)?);
        }
        let [netfilter, vnet] = [&outcomes[0], &outcomes[1]];
        if netfilter == vnet {
            report.alike += vnet.len();
        } else {
            let outcome = Outcome { step: &step, netfilter, vnet, history: &history, overloaded };
            match explain(&outcome) {
                Some(reason) => report.explained[reason] += 1,
                None => bail!(unexplained(seed, number, &done, &outcome)),
            }
        }
        history.note(&step, &outcomes[0], overloaded);
        done.push((number, step));
    }
    one_mapping_for_every_destination(&sides[1])?;
    errors_are_missing_for_their_rate_alone(&sides[1], &report)?;
    Ok(report)
}

/// vnet counted what it did not answer. It counts more: some of it netfilter knows nothing of.
fn errors_are_missing_for_their_rate_alone(vnet: &Side, report: &Report) -> Result<()> {
    let counted = vnet.event("icmp-errors-limited")?;
    let explained = EXPLANATIONS.iter().zip(&report.explained);
    let missing: usize =
        explained.filter(|(because, _)| because.requirement == ERROR_RATE).map(|(_, count)| *count).sum();
    ensure!(missing as u64 <= counted, "{missing} errors are missing, and {counted} were too many");
    Ok(())
}

/// Who else has the port that a step sends to, or is about, towards that remote.
fn overloaded(side: &Side, step: &Step) -> Option<Inside> {
    let (Step::Back { inside, remote, .. }
    | Step::ErrorIn { inside, remote, .. }
    | Step::ErrorOut { inside, remote, .. }) = *step
    else {
        return None;
    };
    let owner = side.owners.get(&(inside.protocol, side.external(inside, remote), remote));
    owner.copied().filter(|owner| *owner != inside)
}

/// Sends what the step says, waits until all has come out, and tells what.
fn perform(side: &mut Side, step: &Step, number: usize) -> Result<Vec<String>> {
    let (sender, mut packet) = packet(side, step, number);
    packet.id = number as u16;
    let content = content(step);
    for piece in cut(packet, content.map_or(Cut::Whole, |content| content.cut)) {
        side.send(sender, &piece)?;
    }
    let came = side.settle(sender, number)?;
    if let Step::Out { inside, remote, .. } = step {
        for (_, frame) in came.iter().filter(|(end, _)| *end == OUTSIDE_END) {
            let Some(ip) = summary(frame).and_then(|frame| frame.ipv4) else { continue };
            let first = be16(frame, 20).unwrap_or(0) & 0x1fff == 0;
            let external = if ip.protocol == ICMP { be16(frame, ip.l4 + 4) } else { Some(ip.src_port) };
            if let Some(external) = external.filter(|_| first && ip.src == HOST && ip.protocol == inside.protocol) {
                side.learn(*inside, external, *remote);
            }
        }
    }
    Ok(render::lines(&came, &side.owners, matches!(step, Step::ErrorOut { .. })))
}

fn content(step: &Step) -> Option<Content> {
    match step {
        Step::Out { content, .. }
        | Step::Back { content, .. }
        | Step::Knock { content, .. }
        | Step::Hairpin { content, .. } => Some(*content),
        Step::ErrorIn { .. } | Step::ErrorOut { .. } => None,
    }
}

fn cut(packet: Ipv4, cut: Cut) -> Vec<Ipv4> {
    let mut pieces = if cut == Cut::Whole { vec![packet] } else { packet.fragments(40) };
    if cut == Cut::Reversed {
        pieces.reverse();
    }
    pieces
}

/// The end that sends, and its packet with this side's external ports.
fn packet(side: &mut Side, step: &Step, number: usize) -> (usize, Ipv4) {
    match *step {
        Step::Out { inside, remote, content } => {
            let local = SocketAddrV4::new(side.address(inside.guest), inside.port);
            (inside.guest, l4(inside.protocol, local, remote, content, number))
        }
        Step::Back { inside, remote, content } => {
            let external = side.external(inside, remote);
            let owner = (inside.protocol, external, remote);
            side.owners.entry(owner).or_insert(inside);
            (OUTSIDE_END, l4(inside.protocol, remote, SocketAddrV4::new(HOST, external), content, number))
        }
        Step::Knock { remote, protocol, port, content } => {
            if let Some(inside) = behind(protocol, port) {
                side.learn(inside, port, remote);
            }
            (OUTSIDE_END, l4(protocol, remote, SocketAddrV4::new(HOST, port), content, number))
        }
        Step::ErrorIn { inside, remote, error, quote } => {
            let external = SocketAddrV4::new(HOST, side.external(inside, remote));
            let about = l4(inside.protocol, external, remote, CAUSE, number).ttl(1);
            (OUTSIDE_END, Ipv4::icmp_error(ROUTER, HOST, error, &about.quoted(quote)))
        }
        Step::ErrorOut { inside, remote, error, quote } => {
            let local = SocketAddrV4::new(side.address(inside.guest), inside.port);
            let about = l4(inside.protocol, remote, local, CAUSE, number).ttl(63);
            (inside.guest, Ipv4::icmp_error(*local.ip(), *remote.ip(), error, &about.quoted(quote)))
        }
        Step::Hairpin { inside, target, content } => {
            let local = SocketAddrV4::new(side.address(inside.guest), inside.port);
            let external = side.external(target, SocketAddrV4::new(HOST, 0));
            (inside.guest, l4(inside.protocol, local, SocketAddrV4::new(HOST, external), content, number))
        }
    }
}

const CAUSE: Content = Content { flags: PSH_ACK, ttl: 64, cut: Cut::Whole };

/// A packet whose payload no other one has. Of ICMP, the side whose port is 0 is asked or answers.
fn l4(protocol: u8, from: SocketAddrV4, to: SocketAddrV4, content: Content, number: usize) -> Ipv4 {
    let text = format!("step {number} {}", ".".repeat(if content.cut == Cut::Whole { 1 } else { 100 }));
    let packet = match protocol {
        TCP if content.flags & SYN != 0 && content.cut == Cut::Whole => Ipv4::tcp(from, to, content.flags, b""),
        TCP => Ipv4::tcp(from, to, content.flags, text.as_bytes()),
        ICMP if to.port() == 0 => Ipv4::icmp_echo(*from.ip(), *to.ip(), 8, from.port(), text.as_bytes()),
        ICMP => Ipv4::icmp_echo(*from.ip(), *to.ip(), 0, to.port(), text.as_bytes()),
        _ => Ipv4::udp(from, to, text.as_bytes()),
    };
    packet.ttl(content.ttl)
}

/// RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1: one inside, one external port. And no two on one.
fn one_mapping_for_every_destination(vnet: &Side) -> Result<()> {
    let mut owned = BTreeMap::new();
    for ((inside, remote), external) in &vnet.externals {
        let forwarded = FORWARDS.iter().any(|forward| forward.1 == *external);
        if remote.is_none() || forwarded {
            continue;
        }
        let first = *owned.entry((inside.protocol, *external)).or_insert(*inside);
        if first != *inside {
            bail!("{first:?} and {inside:?} share the external port {external}");
        }
    }
    let insides: BTreeSet<_> = owned.values().collect();
    if insides.len() != owned.len() {
        bail!("an inside has two external ports: {owned:?}");
    }
    Ok(())
}

/// The report of a difference: the steps about the same insides or the same remote port first.
fn unexplained(seed: u64, number: usize, done: &[(usize, Step)], outcome: &Outcome<'_>) -> String {
    let about = insides(outcome.step);
    let related = done.iter().rev().filter(|(_, step)| insides(step).iter().any(|inside| about.contains(inside)));
    let mut story: Vec<String> = related.take(SHOWN).map(|(number, step)| format!("{number}: {step:?}")).collect();
    story.reverse();
    format!(
        "seed {seed}, step {number}: vnet and netfilter differ, and no requirement says why\nbefore:\n{}\nnow: {:?}\n\
         netfilter: {:#?}\nvnet: {:#?}",
        story.join("\n"),
        outcome.step,
        outcome.netfilter,
        outcome.vnet
    )
}

fn insides(step: &Step) -> Vec<Inside> {
    match *step {
        Step::Out { inside, .. }
        | Step::Back { inside, .. }
        | Step::ErrorIn { inside, .. }
        | Step::ErrorOut { inside, .. } => vec![inside],
        Step::Knock { protocol, port, .. } => behind(protocol, port).into_iter().collect(),
        Step::Hairpin { inside, target, .. } => vec![inside, target],
    }
}
