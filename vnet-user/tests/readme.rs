//! The README's tables say what the code says.

use clap::CommandFactory as _;
use vnet_common::{DropReason, config::NetworkMode};
use vnet_user::cli::Cli;

const README: &str = include_str!("../../README.md");

/// The rows of the table below a heading, as their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start = README.find(&format!("## {heading}\n")).unwrap_or_else(|| panic!("README has a section {heading}"));
    let section = &README[start + 3..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_drop_reason_has_its_row() {
    let rows: Vec<(String, String)> =
        table("Why a frame was dropped").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let reasons: Vec<(String, String)> =
        DropReason::ALL.iter().map(|reason| (format!("`{}`", reason.name()), reason.help().to_owned())).collect();
    assert_eq!(rows, reasons);
}

#[test]
fn every_command_has_its_row_and_every_verb_is_named() {
    let rows = table("Commands");
    let cli = Cli::command();
    let commands: Vec<String> = cli.get_subcommands().map(|command| format!("`vnet {}`", command.get_name())).collect();
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), commands);
    for (row, command) in rows.iter().zip(cli.get_subcommands()) {
        for verb in command.get_subcommands() {
            assert!(row[1].contains(&format!("`{}`", verb.get_name())), "{}: {}", command.get_name(), verb.get_name());
        }
    }
}

#[test]
fn every_mode_has_its_row() {
    let modes: Vec<String> = table("Networks").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(modes, ["`bridge`", "`nat`", "`routed`", "`host-only`", "`isolated`"]);
    assert!(NetworkMode::from_u8(modes.len() as u8).is_some() && NetworkMode::from_u8(modes.len() as u8 + 1).is_none());
}
