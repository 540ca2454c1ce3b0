//! `uspx ledger repair`: a damaged ledger cut to its longest good beginning, all of it copied aside.

use super::missing;
use crate::args::LedgerRepairArgs;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_coordinator::ledger::{FILE_NAME, Loss, Repair, repair};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ledger: &'a Path,
    dry_run: bool,
    /// Whether the ledger was changed.
    repaired: bool,
    #[serde(flatten)]
    repair: &'a Repair,
}

/// `uspx ledger repair`.
pub fn run(args: &LedgerRepairArgs) -> Result<()> {
    let ledger = args.state.join(FILE_NAME);
    let done = repair(&ledger, args.dry_run).map_err(missing)?;
    if args.json {
        let repaired = done.loss.as_ref().is_some_and(|loss| loss.aside.is_some());
        let dry_run = args.dry_run;
        return output::json(&Report { ledger: &ledger, dry_run, repaired, repair: &done });
    }
    match &done.loss {
        None => output::line(&format!(
            "{} is not damaged: all {} records are whole, nothing was changed",
            ledger.display(),
            done.kept.records
        )),
        Some(loss) => show(&ledger, &done, loss),
    }
}

fn show(ledger: &Path, done: &Repair, loss: &Loss) -> Result<()> {
    let mut table = output::table(&["ledger", &ledger.display().to_string()]);
    table.add_row(["was", &loss.damage.to_string()]);
    let kept = format!("{} records, {} bytes", done.kept.records, done.kept.bytes);
    table.add_row(["kept", &kept]);
    lost(&mut table, loss);
    match &loss.aside {
        Some(aside) => {
            let text = format!(
                "{} bytes, as they were found, in {}; the head beside it",
                aside.bytes,
                aside.ledger.display()
            );
            table.add_row(["set aside", &text])
        }
        None => {
            table.add_row(["set aside", "nothing: this only tells; without --dry-run it is done"])
        }
    };
    output::line(&table.to_string())
}

fn lost(table: &mut output::Table, loss: &Loss) {
    let records = match loss.records {
        Some(records) => format!("{records} records that were synced"),
        None => "nobody can tell how many records".to_owned(),
    };
    let text = format!(
        "{records}; {} bytes are cut off, with {} records that can still be read, {} of them accepted answers to tasks \
         that are done again",
        loss.bytes, loss.readable, loss.answers
    );
    table.add_row(["lost", &text]);
    let kinds: Vec<String> =
        loss.unanswered.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let tasks = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    table.add_row(["tasks issued again", &tasks]);
}
