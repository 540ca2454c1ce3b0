//! Results: one JSON document on stdout, or text for a person; remarks on stderr.

use crate::error::{CliError, Exit, Result};
use comfy_table::{CellAlignment, ContentArrangement, TableComponent, presets};
use serde::Serialize;
use std::fmt;
use std::io::Write;

/// Columns of a line where standard output is no terminal.
const COLUMNS: u16 = 80;
/// Narrower than this nothing can be set.
const LEAST: u16 = 40;

/// A time for people: `0.4 s`, `35 s`, `3 min`, `2.5 h`, `4 days`.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 3.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Prints a JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::new(Exit::Failed, e))?;
    line(&text)
}

/// Prints a line on stdout. A closed pipe (`| head`) is not an error.
pub fn line(text: &str) -> Result<()> {
    piece(&format!("{text}\n")).map(drop)
}

/// Prints a part of a line on stdout at once. `false` where the pipe is closed, so that nobody
/// reads any more.
pub fn piece(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(CliError::new(Exit::Failed, format!("cannot write to standard output: {error}")))
        }
    }
}

/// Prints a line on stderr. Where that is closed there is nobody to tell: unlike `eprintln!`, it
/// does not panic.
pub fn note(text: &str) {
    remark(&format!("{text}\n"));
}

/// Prints a part of a line on stderr at once.
pub fn remark(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints a paragraph on stdout, broken between words where the terminal ends. A word that is
/// longer, as a path may be, stays whole.
pub fn paragraph(text: &str) -> Result<()> {
    line(&wrapped(text))
}

/// The same on stderr.
pub fn remark_paragraph(text: &str) {
    note(&wrapped(text));
}

fn wrapped(text: &str) -> String {
    // Unicode's rules would break a path behind its slashes.
    let options = textwrap::Options::new(usize::from(columns()))
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// Columns of a line: the terminal's, or those that `COLUMNS` asks for, or 80.
pub fn columns() -> u16 {
    let asked = || std::env::var("COLUMNS").ok()?.parse().ok();
    comfy_table::Table::new().width().or_else(asked).unwrap_or(COLUMNS).max(LEAST)
}

/// A table for a person: no wider than a line, columns of figures set to the right.
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    Table { headings: headings.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
}

impl Table {
    /// Adds a row.
    pub fn add_row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Whether a column holds figures alone.
    fn is_of_figures(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.clone().any(|cell| !cell.is_empty()) && cells.all(|cell| is_figure(cell))
    }
}

/// `3`, `+0.1 [+0.0, +0.2]`, `50 %`, `-`.
fn is_figure(cell: &str) -> bool {
    !cell.chars().any(char::is_alphabetic)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_header(&self.headings);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
        for part in [TableComponent::HeaderLines, TableComponent::MiddleHeaderIntersections] {
            table.set_style(part, '─');
        }
        table.add_rows(&self.rows);
        for (at, column) in table.column_iter_mut().enumerate() {
            // And a space between columns.
            column.set_padding((0, 1));
            if self.is_of_figures(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        f.write_str(&table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        let told = [0.4, 97.2, 200.0, 10_000.0, 345_600.0].map(time);
        assert_eq!(told, ["0.4 s", "97 s", "3 min", "2.8 h", "4 days"]);
        assert_eq!((time(1.2), time(600.0)), ("1.2 s".into(), "10 min".into()));
    }

    #[test]
    fn figures_stand_at_the_right_and_words_at_the_left() {
        let mut figures = table(&["model", "bits", "95 %"]);
        figures.add_row(["base", "12.5", "[1.0, 2.0]"]).add_row(["teacher", "1.25", "-"]);
        let text = figures.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "a rule below the headings alone: {text}");
        assert_eq!(lines[0], "model    bits        95 %");
        assert_eq!(lines[2], "base     12.5  [1.0, 2.0]");
        assert_eq!(lines[3], "teacher  1.25           -");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut wide = table(&["name", "words"]);
        wide.add_row(["a".repeat(30), "many words ".repeat(20)]);
        wide.add_row(["b".repeat(200), "1".to_owned()]);
        let most = usize::from(columns());
        let widths = |text: &str| text.lines().map(textwrap::core::display_width).max();
        assert!(widths(&wide.to_string()).unwrap() <= most, "{wide}");
        assert!(widths(&wrapped(&"some words ".repeat(30))).unwrap() <= most);
        let path = format!("see {}/report.html for all", "folder/".repeat(20));
        assert!(wrapped(&path).lines().any(|l| l.ends_with("report.html")), "a path stays whole");
    }
}
