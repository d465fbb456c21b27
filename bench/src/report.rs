//! What is told of it: tables for people, everything for programs.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, LineStyle, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;

use crate::{
    machine::Machine,
    method::{Comparison, Effort, Part, Plan, Standing, Unit},
    quiet::Noise,
};

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Which everything measured happened on.
    pub core: usize,
    pub effort: Effort,
    pub results: Vec<Comparison>,
}

/// Said once, below the tables.
pub const LEGEND: &str = "\
vnet ÷ this: median over rounds of vnet's rate divided by this one's in the same round, with a 95 % bootstrap
interval. Against a limit it is the share of what is possible that vnet reaches; against vnet itself (A/A), in
a world of its own, it is how far equals differ: smaller differences mean nothing.";

impl Report {
    pub fn new(machine: Machine, core: usize, effort: Effort) -> Self {
        Self { machine, core, effort, results: Vec::new() }
    }

    pub fn heading(&self) -> String {
        let Machine { kernel, processor, cores, date, versions, command } = &self.machine;
        let core = self.core;
        let Effort { frame_rounds, frames, stream_rounds, seconds } = self.effort;
        format!(
            "{command}\n\
             {date}, {processor}, {cores} cores, Linux {kernel}\n\
             {}\n\
             core {core}: source, forwarder and sink; sender and receiver of TCP\n\
             {frame_rounds} rounds of {frames} frames; {stream_rounds} rounds of {seconds} s of TCP\n",
            versions.join(", ")
        )
    }
}

/// One comparison as a table.
pub fn table(comparison: &Comparison) -> String {
    let Plan { scenario, title, unit, .. } = &comparison.plan;
    let frames = *unit == Unit::FramesPerSecond;
    let mut header = vec!["", unit.name()];
    if frames {
        header.extend(["ns a frame", "lost"]);
    }
    header.extend(["vnet ÷ this", "95 % interval", "goal"]);
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())).set_header(&header);
    for standing in &comparison.standings {
        table.add_row(row(standing, *unit));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{scenario}: {title}\n");
    // Writing to a String cannot fail.
    let _ = write!(text, "{table}\n{}", meanwhile(&comparison.noise));
    text
}

/// How far the figures can be trusted.
fn meanwhile(noise: &Noise) -> String {
    let others = noise
        .other_cores
        .map_or_else(String::new, |busy| format!("the other cores were {:.0} % busy and ", busy * 100.0));
    let verdict = if noise.is_quiet() { "" } else { " NOT A QUIET MACHINE: good for a rough idea only." };
    format!("Meanwhile {others}{:.1} % of the time was stolen by the hypervisor.{verdict}", noise.stolen * 100.0)
}

fn row(standing: &Standing, unit: Unit) -> Vec<String> {
    let name = match standing.part {
        Part::Limit => format!("{} (limit)", standing.name),
        _ => standing.name.to_owned(),
    };
    let mut row = vec![name, unit.show(standing.median_rate)];
    if unit == Unit::FramesPerSecond {
        row.push(format!("{:.0}", 1e9 / standing.median_rate));
        row.push(standing.median_lost.map_or_else(String::new, |lost| format!("{:.2} %", lost * 100.0)));
    }
    let goal = standing.goal.map_or_else(String::new, |goal| format!("≥ {goal:.2}"));
    match standing.subject_ratio {
        Some(ratio) => {
            row.extend([format!("{:.3}", ratio.median), format!("{:.3} – {:.3}", ratio.low, ratio.high), goal])
        }
        None => row.extend([String::new(), String::new(), goal]),
    }
    row
}
