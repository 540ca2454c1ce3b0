//! Tries every kind of fault that was ever seen to lose data or to end a campaign, and prints what
//! became of each: how many tests stand for it, how often it was tried, and whether all held. The
//! last line is one JSON object.
//!
//! The tests are those of `make test`, found by their names in [`table`]; random schedules are run
//! in greater number (`USPX_SCHEDULES`, 200 where nothing is said). A name that no test bears any
//! more is a failure, and one that cannot run here is said to be skipped.

mod run;
mod table;

use run::{Outcome, run};
use serde::Serialize;
use std::process::ExitCode;
use table::{FAULTS, Fault};

/// What became of one kind of fault.
#[derive(Serialize)]
struct Line {
    number: &'static str,
    fault: &'static str,
    tests: usize,
    tried: u64,
    outcome: &'static str,
}

/// The last line.
#[derive(Serialize)]
struct Report {
    faults: Vec<Line>,
    schedules: u64,
    seconds: f64,
    pass: bool,
}

fn main() -> ExitCode {
    let schedules =
        std::env::var("USPX_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let start = std::time::Instant::now();
    let names: Vec<&str> = FAULTS.iter().flat_map(|f| f.tests.iter().copied()).collect();
    let outcomes = match run(&names, schedules) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let faults: Vec<Line> = FAULTS.iter().map(|f| line(f, &outcomes, schedules)).collect();
    for Line { number, fault, tests, tried, outcome } in &faults {
        println!("{number:>3}  {outcome:<8} {tried:>5} times, {tests:>2} tests  {fault}");
    }
    let pass = faults.iter().all(|line| line.outcome == "held");
    let report = Report { faults, schedules, seconds: start.elapsed().as_secs_f64(), pass };
    match serde_json::to_string(&report) {
        Ok(json) => println!("{json}"),
        Err(error) => eprintln!("{error}"),
    }
    if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(fault: &Fault, outcomes: &[(String, Outcome)], schedules: u64) -> Line {
    let of = |name: &&str| {
        let found = outcomes.iter().filter(|(test, _)| run::is(test, name));
        found.map(|(_, outcome)| *outcome).max().unwrap_or(Outcome::Missing)
    };
    let worst = fault.tests.iter().map(of).max().unwrap_or(Outcome::Missing);
    let tried = fault.tests.iter().map(|name| table::times(name, schedules)).sum();
    let (number, fault, tests) = (fault.number, fault.what, fault.tests.len());
    Line { number, fault, tests, tried, outcome: worst.name() }
}
