//! `uspx mask why`: what a colony's ledger says of a unit. It is only read, beside a running coordinator too.

use crate::args::MaskWhyArgs;
use crate::error::{CliError, Exit, Result};
use crate::{colony, output};
use serde::Serialize;
use std::collections::BTreeMap;
use uspx_colony::State;
use uspx_colony::why::{Need, Why, why};
use uspx_coordinator::ledger::{FILE_NAME, survey};
use uspx_domain::{Unit, WorkerId};

/// The JSON form.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    why: Why,
    /// Prompts by the worker that tried the unit on them.
    measured_by: BTreeMap<String, usize>,
}

/// `uspx mask why`.
pub fn run(args: &MaskWhyArgs) -> Result<()> {
    let mut state = State::default();
    colony::check(&args.state)?;
    survey(&args.state.join(FILE_NAME), |record| state.fold(&record))?;
    let found = why(&state, args.unit, args.prompts);
    let why = found.ok_or_else(|| unknown(&state, args.unit))?;
    let told = Told { measured_by: measured_by(&state, args.unit), why };
    if args.json { output::json(&told) } else { print(&told) }
}

/// Prompts that count, by the worker that tried the unit on them.
fn measured_by(state: &State, unit: Unit) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, effect) in state.effects(unit) {
        let worker = state.by_prompt().measured_by(&effect);
        let worker = worker.map_or("unknown", WorkerId::as_str);
        *counts.entry(worker.to_owned()).or_default() += 1;
    }
    counts
}

fn unknown(state: &State, unit: Unit) -> CliError {
    let what = match state.mask().and_then(|mask| mask.scores.keys().next_back()) {
        None => "the colony has drawn no mask yet".to_owned(),
        Some(last) => format!("the mask says nothing of {unit}: its last unit is {last}"),
    };
    CliError::new(Exit::NotFound, what)
}

fn print(told: &Told) -> Result<()> {
    let Told { why, measured_by } = told;
    let side = if why.kept { "kept" } else { "cut" };
    let mut table = output::table(&[why.unit.as_str(), side]);
    let effect = &why.effect;
    let workers: Vec<String> =
        measured_by.iter().map(|(worker, n)| format!("{worker} ({n})")).collect();
    let rows = [
        ("mask", format!("version {}", why.version)),
        ("place", format!("{} of {}", why.rank, why.units)),
        (
            "effect",
            format!("{:.5} nats a token ({:.5} to {:.5})", effect.mean, effect.low, effect.high),
        ),
        ("the cut", format!("{:.5}", why.cut)),
        ("sure", format!("{:.0} %", why.confidence * 100.0)),
        ("tried on", format!("{} prompts", why.prompts_tried)),
        ("by", workers.join(", ")),
        ("in its place", why.in_its_place.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    output::line(&table.to_string())?;
    needs("needed most by", &why.needed_by)?;
    needs("better without it", &why.better_without)
}

fn needs(heading: &str, needs: &[Need]) -> Result<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let mut table = output::table(&[heading, "nats a token"]);
    for need in needs {
        table.add_row([need.prompt.clone(), format!("{:+.4}", need.rise)]);
    }
    output::line(&table.to_string())
}
