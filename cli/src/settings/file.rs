//! A file to begin with: every key with its line, unit and default, commented out.

use super::table::{Key, Reader, Usual, keys};

/// The head of the file.
const HEAD: &str = "\
# uspx: one file for `uspx coordinator -c` and `uspx worker -c`. What is commented out is the default, or an
# example where there is none. Environment (USPX_NATS=...) and flags win over it; `uspx config check` explains it.
";

/// The file's text.
pub fn commented() -> String {
    let mut text = HEAD.to_owned();
    let mut last: Option<(&str, Reader)> = None;
    for key in keys() {
        let (table, _) = key.place();
        if last != Some((table, key.reader)) {
            text.push_str(&heading(table, key.reader, last.map(|(table, _)| table)));
            last = Some((table, key.reader));
        }
        text.push_str(&entry(key));
    }
    text
}

/// What stands before the keys of a table, or of a reader.
fn heading(table: &str, reader: Reader, before: Option<&str>) -> String {
    if table.is_empty() {
        let whose = match reader {
            Reader::Both => "Both roles.",
            Reader::Coordinator => "The coordinator's part.",
            Reader::Worker => "A worker's part.",
            Reader::Up => "The part of `uspx up`, which reads the coordinator's as well.",
        };
        return format!("\n# {whose}\n");
    }
    if before == Some(table) { String::new() } else { format!("\n[{table}]\n") }
}

fn entry(key: &Key) -> String {
    let (_, name) = key.place();
    let unit = if key.unit.is_empty() { String::new() } else { format!(" ({})", key.unit) };
    let usual = match key.usual {
        Usual::Needed(_) => " Needed.".to_owned(),
        Usual::Is(_) => String::new(),
        Usual::Open { then, .. } => format!(" Without it: {then}."),
    };
    let says = format!("{}{unit}.{usual}", key.says);
    format!("# {says}\n# {name} = {}\n", key.usual.shown())
}
