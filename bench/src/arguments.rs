//! What can be asked for. `cargo xtask bench` reads this file, too, so that it refuses a wrong word
//! before it builds for minutes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Measure vnet against what it takes the place of, in throw-away network namespaces.
///
/// Rates are counted at the receiver. Contestants take turns, forwards and backwards; what is quoted is
/// the median, and the median of vnet's ratio to each in the same round, with a 95 % interval. Figures
/// want a quiet machine; how quiet it was is printed along. Needs root.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Fewer rounds: about two minutes for everything
    #[arg(long)]
    pub quick: bool,
    /// What to measure; may be repeated (default: everything)
    #[arg(long = "scenario", value_enum, value_name = "NAME")]
    pub scenarios: Vec<Scenario>,
    /// Also write all that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The core for senders, forwarders and receivers alike (default: the last)
    #[arg(long, value_name = "NUMBER")]
    pub cpu: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 60-byte UDP from guest to guest, learned, against linux-bridge
    L2,
    /// 60-byte UDP of 10 000 connections from a guest to the outside, translated, against iptables and nft
    Nat,
    /// One iperf3 stream between a guest and the outside, translated, both ways, against iptables
    TcpNat,
    /// The same bridged, against linux-bridge
    TcpL2,
}

impl Scenario {
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Nat => "nat",
            Self::TcpNat => "tcp-nat",
            Self::TcpL2 => "tcp-l2",
        }
    }
}

impl Arguments {
    /// As they would be typed.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.quick {
            words.push("--quick".to_owned());
        }
        for scenario in &self.scenarios {
            words.extend(["--scenario".to_owned(), scenario.name().to_owned()]);
        }
        if let Some(file) = &self.json {
            words.extend(["--json".to_owned(), file.display().to_string()]);
        }
        if let Some(cpu) = self.cpu {
            words.extend(["--cpu".to_owned(), cpu.to_string()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn words_mean_what_was_typed() {
        for line in ["bench", "bench --quick", "bench --scenario l2 --scenario tcp-nat --json a.json --cpu 1"] {
            let cli = Cli::parse_from(line.split(' '));
            assert_eq!(cli.arguments.words(), line.split(' ').skip(1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn scenarios_are_called_by_their_names() {
        for scenario in Scenario::value_variants() {
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(*scenario));
        }
    }
}
