//! How contestants are compared.
//!
//! They take turns, a block each, in rounds whose order is reversed every time (A B, B A, …), so that a
//! machine that slows down or warms up favours nobody. The first round only warms up. Ratios are taken
//! within a round and their median is quoted: what disturbs a whole round cancels out.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    interrupt,
    quiet::{Noise, Watch},
    statistics::{Estimate, estimate, median},
};

/// What one block measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Frames or bits a second, counted at the receiver.
    pub rate: f64,
    /// Which share of what was sent never arrived, where that is counted.
    pub lost: Option<f64>,
}

/// What a contestant is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// vnet.
    Subject,
    /// vnet once more, in a world of its own: how far equals differ.
    Control,
    /// What people use today.
    Peer,
    /// What the hook or the devices allow.
    Limit,
}

/// One who competes.
pub struct Contestant<'a> {
    pub name: &'static str,
    pub part: Part,
    /// What the subject's ratio to this one should reach.
    pub goal: Option<f64>,
    /// Measures one block.
    pub block: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    FramesPerSecond,
    BitsPerSecond,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Effort {
    /// Rounds that count, of packet-rate scenarios.
    pub frame_rounds: usize,
    /// Frames a block. What is still under way when the source stops is counted and not timed: a
    /// thousand frames at most.
    pub frames: u32,
    /// Rounds that count, of TCP scenarios.
    pub stream_rounds: usize,
    /// Seconds a block of those.
    pub seconds: u32,
}

impl Effort {
    pub const fn full() -> Self {
        Self { frame_rounds: 31, frames: 1 << 20, stream_rounds: 15, seconds: 2 }
    }

    pub const fn quick() -> Self {
        Self { frame_rounds: 9, frames: 1 << 19, stream_rounds: 4, seconds: 1 }
    }
}

/// All about one contestant.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    pub name: &'static str,
    pub part: Part,
    pub median_rate: f64,
    pub median_lost: Option<f64>,
    /// The subject's rate over this one's, round by round.
    pub subject_ratio: Option<Estimate>,
    pub goal: Option<f64>,
    pub samples: Vec<Sample>,
}

/// What is compared, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub scenario: &'static str,
    pub title: String,
    pub unit: Unit,
    /// That count; one more goes before.
    pub rounds: usize,
    /// Which everything happens on.
    pub core: usize,
}

/// All about one comparison. The subject comes first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub plan: Plan,
    pub noise: Noise,
    pub standings: Vec<Standing>,
}

/// Lets the contestants, the subject first, take turns.
pub fn compare(plan: Plan, mut contestants: Vec<Contestant<'_>>) -> Result<Comparison> {
    eprintln!("{}: {}", plan.scenario, plan.title);
    let watch = Watch::start(plan.core)?;
    let rounds = plan.rounds;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..=rounds {
        let mut turns: Vec<_> = contestants.iter_mut().zip(&mut samples).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (contestant, samples) in turns {
            interrupt::check()?;
            let sample = (contestant.block)().with_context(|| contestant.name)?;
            if round > 0 {
                samples.push(sample);
            }
        }
        tell(&plan, round, &contestants, &samples);
    }
    let noise = watch.stop()?;
    let standings = contestants.iter().zip(&samples).map(|(contestant, own)| stand(contestant, own, &samples));
    Ok(Comparison { plan, noise, standings: standings.collect() })
}

fn stand(contestant: &Contestant<'_>, own: &[Sample], all: &[Vec<Sample>]) -> Standing {
    let rates: Vec<f64> = own.iter().map(|sample| sample.rate).collect();
    let lost: Option<Vec<f64>> = own.iter().map(|sample| sample.lost).collect();
    let ratios = || {
        let subject = all.first()?;
        Some(estimate(&subject.iter().zip(own).map(|(subject, own)| subject.rate / own.rate).collect::<Vec<_>>()))
    };
    Standing {
        name: contestant.name,
        part: contestant.part,
        median_rate: median(&rates),
        median_lost: lost.map(|lost| median(&lost)),
        subject_ratio: if contestant.part == Part::Subject { None } else { ratios() },
        goal: contestant.goal,
        samples: own.to_vec(),
    }
}

/// Progress, on stderr: one line a round.
fn tell(plan: &Plan, round: usize, who: &[Contestant<'_>], all: &[Vec<Sample>]) {
    let Plan { unit, rounds, .. } = plan;
    if round == 0 {
        eprintln!("  warmed up");
        return;
    }
    let rates = who.iter().zip(all).filter_map(|(contestant, samples)| {
        samples.last().map(|sample| format!("{} {}", contestant.name, unit.show(sample.rate)))
    });
    eprintln!("  round {round} of {rounds}: {} {}", rates.collect::<Vec<_>>().join(", "), unit.name());
}

impl Unit {
    pub const fn name(self) -> &'static str {
        match self {
            Self::FramesPerSecond => "Mpps",
            Self::BitsPerSecond => "Gbit/s",
        }
    }

    /// A rate as a number in front of the unit's name.
    pub fn show(self, rate: f64) -> String {
        match self {
            Self::FramesPerSecond => format!("{:.3}", rate / 1e6),
            Self::BitsPerSecond => format!("{:.1}", rate / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn plan(rounds: usize) -> Plan {
        Plan { scenario: "test", title: "a test".into(), unit: Unit::FramesPerSecond, rounds, core: 0 }
    }

    #[test]
    fn contestants_take_turns_and_ratios_are_taken_within_a_round() {
        let order = RefCell::new(Vec::new());
        // The machine halves its speed each round: the ratio does not care.
        let contestant = |name, part, factor: f64| {
            let (order, mut speed) = (&order, 1024.0);
            Contestant {
                name,
                part,
                goal: None,
                block: Box::new(move || {
                    order.borrow_mut().push(name);
                    speed /= 2.0;
                    Ok(Sample { rate: factor * speed, lost: Some(0.25) })
                }),
            }
        };
        let contestants = vec![contestant("a", Part::Subject, 3.0), contestant("b", Part::Peer, 2.0)];
        let comparison = compare(plan(3), contestants).expect("nobody fails");
        assert_eq!(order.borrow().join(""), "abbaabba");
        let [a, b] = comparison.standings.as_slice() else { panic!("two of them") };
        assert_eq!(a.samples.len(), 3, "the first round does not count");
        assert_eq!(a.median_rate, 3.0 * 128.0);
        assert_eq!((a.subject_ratio, a.median_lost), (None, Some(0.25)));
        assert_eq!(b.subject_ratio, Some(Estimate { median: 1.5, low: 1.5, high: 1.5 }));
    }

    #[test]
    fn a_failure_names_the_contestant() {
        let block = || -> Result<Sample> { anyhow::bail!("no frame arrived") };
        let failing = Contestant { name: "a bridge", part: Part::Subject, goal: None, block: Box::new(block) };
        let error = compare(plan(1), vec![failing]).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "a bridge: no frame arrived");
    }
}
