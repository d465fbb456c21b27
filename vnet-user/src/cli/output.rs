//! Printing: plain tables for people, JSON for tools.

use std::io::{ErrorKind, Write};

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    pub(super) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text(value) };
        write_line(&text)
    }

    /// Prints one of many lines at once; false where the reader has seen enough.
    pub(super) fn print_line<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<bool> {
        let text = if self.json { serde_json::to_string(value)? } else { text(value) };
        let mut out = std::io::stdout();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(true),
        }
    }
}

/// Writes to standard output; a reader who has seen enough (`| head`) is no error.
fn write_line(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// A table without borders; columns named in `numbers` are set to the right.
pub(super) fn table(header: &[&'static str], numbers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(Row::from(header.to_vec()));
    for row in rows {
        table.add_row(row);
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Names and values, one pair a line.
pub(super) fn facts(pairs: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in pairs {
        table.add_row(vec![Cell::new(format!("{name}:")), Cell::new(value)]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Items with commas between them, or a dash for none.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Seconds as people say them.
pub(super) fn duration(seconds: u32) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain() {
        let rows = [vec!["default".into(), "5".into()], vec!["a".into(), "123".into()]];
        assert_eq!(table(&["NAME", "PORTS"], &["PORTS"], rows), "NAME     PORTS\ndefault      5\na          123");
        assert_eq!(table(&["NAME", "PORTS"], &[], []), "NAME  PORTS");
        assert_eq!(facts([("Name", "a".into()), ("Mode", "nat".into())]), "Name:  a\nMode:  nat");
    }

    #[test]
    fn durations_are_short() {
        let cases = [(5, "5s"), (65, "1m05s"), (3700, "1h01m"), (90_000, "1d01h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
