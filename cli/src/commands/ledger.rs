//! `uspx ledger`: whether a ledger is whole, which only reads and may do so beside a running
//! coordinator; cutting a damaged one (`repair`), and moving one (`moving`), which hold it.

mod moving;
mod repair;

use crate::args::{LedgerCheckArgs, LedgerCommand};
use crate::error::{CliError, Result};
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_coordinator::ServiceError;
use uspx_coordinator::ledger::{Damage, Extent, FILE_NAME, Fault, Survey, before_path, survey};

/// What `--json` prints; of a damaged ledger too, beside the error.
#[derive(Serialize)]
struct Report<'a> {
    ledger: &'a Path,
    whole: bool,
    /// Whole records; of a damaged ledger those before the damage.
    records: u64,
    /// Records that its snapshot stands for; 0 where it has them all.
    folded: Option<u64>,
    head: Option<Extent>,
    beyond: Option<Extent>,
    damage: Option<&'a Damage>,
}

/// Runs the command.
pub fn run(command: &LedgerCommand) -> Result<()> {
    match command {
        LedgerCommand::Check(args) => check(args),
        LedgerCommand::Repair(args) => repair::run(args),
        LedgerCommand::Export(args) => moving::export(args),
        LedgerCommand::Import(args) => moving::import(args),
    }
}

/// `uspx ledger check`.
fn check(args: &LedgerCheckArgs) -> Result<()> {
    let ledger = args.state.join(FILE_NAME);
    match survey(&ledger, |_| {}) {
        Ok(found) if args.json => output::json(&whole(&ledger, &found)),
        Ok(found) => show(&ledger, &found),
        Err(error @ ServiceError::File { .. }) => Err(missing(error)),
        Err(error) => {
            if let (true, ServiceError::Damaged { damage, .. }) = (args.json, &error) {
                output::json(&damaged(&ledger, damage))?;
            }
            Err(consequence(error))
        }
    }
}

/// A ledger that is not there, or cannot be read.
fn missing(error: ServiceError) -> CliError {
    match error {
        ServiceError::File { path, source } => CliError::file(&path, &source).help(
            "name the state folder of a coordinator that was started on this machine: --state DIR",
        ),
        other => other.into(),
    }
}

fn whole<'a>(ledger: &'a Path, found: &Survey) -> Report<'a> {
    let Survey { records, folded, head, beyond } = *found;
    Report {
        ledger,
        whole: true,
        records,
        folded: Some(folded),
        head: Some(head),
        beyond: Some(beyond),
        damage: None,
    }
}

fn damaged<'a>(ledger: &'a Path, damage: &'a Damage) -> Report<'a> {
    let records = damage.sequence.saturating_sub(1);
    let (folded, head, beyond) = (None, None, None);
    Report { ledger, whole: false, records, folded, head, beyond, damage: Some(damage) }
}

/// What follows from damage, beside what it is.
fn consequence(error: ServiceError) -> CliError {
    let before = match &error {
        // What came before a snapshot is not here.
        ServiceError::Damaged { damage, .. } if damage.fault != Fault::Snapshot => {
            damage.sequence.saturating_sub(1)
        }
        _ => return error.into(),
    };
    CliError::from(error)
        .help(format!("{before} records before it are whole; no coordinator starts on this ledger"))
}

fn show(ledger: &Path, found: &Survey) -> Result<()> {
    let Survey { records, folded, head, beyond } = found;
    let mut table = output::table(&["ledger", &ledger.display().to_string()]);
    table.add_row(["whole", "yes"]);
    table.add_row(["records", &records.to_string()]);
    table.add_row(["head", &format!("record {}, byte {}", head.records, head.bytes)]);
    if *folded > 0 {
        let before = before_path(ledger);
        let text = format!(
            "stands for the first {folded} records, whose history is gone from here; it lies in {} until the next snapshot",
            before.display()
        );
        table.add_row(["snapshot", &text]);
    }
    if beyond.bytes > 0 {
        let text = format!(
            "{} records in {} bytes: being written, or left by a crash; the next start keeps whole records and sets the \
             rest aside",
            beyond.records, beyond.bytes
        );
        table.add_row(["beyond the head", &text]);
    }
    output::line(&table.to_string())
}
