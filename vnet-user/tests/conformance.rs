//! The sheet of NAT requirements (`docs/nat-conformance.md`) is complete, and its tests exist.

use std::{collections::BTreeSet, fs, path::Path};

const SHEET: &str = include_str!("../../docs/nat-conformance.md");

/// Requirements of each RFC: `REQ-1` to so many, or the sections that ask for something.
const REQUIREMENTS: [(&str, &[&str], usize); 5] = [
    ("RFC 4787", &[], 14),
    ("RFC 5382", &[], 10),
    ("RFC 5508", &[], 11),
    ("RFC 6888", &[], 15),
    ("RFC 7857", &["2", "2.1", "2.2", "3", "4", "5", "6", "7", "7.1", "8", "9", "10", "11", "12"], 0),
];

#[derive(Debug)]
struct Row {
    requirement: String,
    mark: String,
    what: String,
    /// `path/of/file.rs::function`.
    tests: Vec<String>,
}

/// The rows of an RFC's table.
fn rows(rfc: &str) -> Vec<Row> {
    let start = SHEET.find(&format!("## {rfc}\n")).unwrap_or_else(|| panic!("the sheet has a section {rfc}"));
    let section = &SHEET[start + 3..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| row(rfc, line)).collect()
}

fn row(rfc: &str, line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [requirement, asks, mark, what, tests] = cells[..] else { panic!("{rfc}: not five cells: {line}") };
    assert!(!asks.is_empty(), "{rfc} {requirement} asks for nothing");
    let named = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Row { requirement: requirement.to_owned(), mark: mark.to_owned(), what: what.to_owned(), tests: named }
}

fn all_rows() -> Vec<(&'static str, Row)> {
    REQUIREMENTS.iter().flat_map(|(rfc, ..)| rows(rfc).into_iter().map(|row| (*rfc, row))).collect()
}

#[test]
fn every_requirement_has_one_row() {
    for (rfc, sections, count) in REQUIREMENTS {
        let numbered = (1..=count).map(|number| format!("REQ-{number}"));
        let expected: Vec<String> = numbered.chain(sections.iter().map(|section| (*section).to_owned())).collect();
        let found: Vec<String> = rows(rfc).into_iter().map(|row| row.requirement).collect();
        assert_eq!(found, expected, "{rfc}");
    }
}

#[test]
fn every_mark_is_one_of_four_and_has_its_reason() {
    for (rfc, row) in all_rows() {
        assert!(["met", "partly", "not", "n/a"].contains(&row.mark.as_str()), "{rfc} {row:?}");
        assert!(row.what.len() > 5, "{rfc} {row:?}");
        assert!(row.mark != "met" || !row.tests.is_empty(), "met, but no test says so: {rfc} {row:?}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let named: BTreeSet<String> = all_rows().into_iter().flat_map(|(_, row)| row.tests).collect();
    assert!(named.len() > 20, "{named:?}");
    for test in named {
        let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("{test} is not file::function"));
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{test}: {error}"));
        assert!(is_test(&source, function), "{file} has no test {function}");
    }
}

/// Whether a source has a function of this name that is a test, and is not ignored.
fn is_test(source: &str, function: &str) -> bool {
    let Some(at) = source.find(&format!("fn {function}(")) else { return false };
    let before = source[..at].trim_end();
    let attributes: Vec<&str> = before.lines().rev().take_while(|line| line.trim().starts_with('#')).collect();
    attributes.iter().any(|line| line.trim() == "#[test]") && !attributes.iter().any(|line| line.contains("#[ignore"))
}
