//! Measures the colony's mind: the held-out loss of the mask that it finds for what it spends, beside other ways
//! to spend the same, and beside every unit tried on every prompt. `make bench-colony` builds what is needed and
//! runs it; the last line is one JSON object.
//!
//! The colony plans and decides as it does in use; single bans are recorded once from the real model, whole masks
//! are asked of it. Budgets are shares of all pairs of prompt and unit; cheap scores are free to every way alike.

mod answers;
mod arms;
mod crowd;
mod drift;
mod explored;
mod liars;
mod matrix;
mod scaling;
mod sums;
mod swarm;
mod ways;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::Report;
use uspx_bench_engine::place::Place;
use uspx_domain::{Prompt, parse_prompts};

/// Measures the colony's mind.
#[derive(Parser, Debug)]
struct Args {
    /// Teachers to measure [default: the shipped one].
    #[arg(long)]
    model: Vec<PathBuf>,
    /// Prompts that masks are found on [default: the shipped command lines].
    #[arg(long)]
    fit: Option<PathBuf>,
    /// How many of them are recorded; a campaign has half of them, drawn by its seed.
    #[arg(long, default_value_t = 400)]
    fit_count: usize,
    /// Prompts that masks are judged on [default: others of the shipped command lines].
    #[arg(long)]
    heldout: Option<PathBuf>,
    /// How many of them.
    #[arg(long, default_value_t = 300)]
    heldout_count: usize,
    /// Prompts of another domain that campaigns drift to [default: the first of the shipped arithmetic].
    #[arg(long, requires = "other_heldout")]
    other_fit: Option<PathBuf>,
    /// Others of it that masks are judged on [default: the rest of the shipped arithmetic].
    #[arg(long, requires = "other_fit")]
    other_heldout: Option<PathBuf>,
    /// Campaigns of each kind, seeds 1, 2, …
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Shares of the units kept.
    #[arg(long, value_delimiter = ',', default_value = "0.5")]
    keep: Vec<f64>,
    /// Shares of all pairs that are spent.
    #[arg(long, value_delimiter = ',', default_value = "0.05,0.1,0.2")]
    budgets: Vec<f64>,
    /// Only these figures [default: all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// Where records are kept [default: target/bench-colony].
    #[arg(long)]
    work: Option<PathBuf>,
    /// The binary that lies beside this one [default: target/release/uspx].
    #[arg(long, env = "USPX_BIN")]
    uspx: Option<PathBuf>,
}

/// Figures that are measured together.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// The mask for what is spent, beside other ways to spend it.
    Masks,
    /// What becomes of it when prompts change.
    Drift,
    /// What becomes of it where a tenth of the workers lie.
    Liars,
    /// What thousands of workers and millions of units take.
    Swarm,
    /// What real workers beside each other are worth.
    Scaling,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(pass) => ExitCode::from(u8::from(!pass)),
        Err(error) => {
            eprintln!("bench-colony: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every figure holds.
fn run(args: &Args) -> Result<bool> {
    let place = Place::of("bench-colony", args.work.as_deref(), args.uspx.as_deref())?;
    let (root, work) = (&place.root, &place.work);
    let file = |given: &Option<PathBuf>, name: &str| {
        given.clone().unwrap_or_else(|| root.join("cli/assets/prompts").join(name))
    };
    let fit = read(&file(&args.fit, "cli-train.jsonl"), args.fit_count)?;
    let heldout = read(&file(&args.heldout, "cli-heldout.jsonl"), args.heldout_count)?;
    let (other_fit, other_heldout) = match (&args.other_fit, &args.other_heldout) {
        (Some(fit), Some(heldout)) => {
            (read(fit, args.fit_count / 2)?, read(heldout, args.heldout_count)?)
        }
        _ => {
            let mut all = read(&file(&None, "math-heldout.jsonl"), usize::MAX)?;
            let rest = all.split_off(all.len() * 3 / 5);
            (all, rest)
        }
    };
    let shipped = vec![root.join("cli/assets/nano/teacher")];
    let models = if args.model.is_empty() { &shipped } else { &args.model };
    let mut report = Report::default();
    let is_wanted = |group: Group| args.only.is_empty() || args.only.contains(&group);
    // First: what comes later takes more memory.
    if is_wanted(Group::Swarm) {
        sums::measure(&mut report);
        if let Err(error) = swarm::measure(&mut report) {
            report.fail("swarm", error.to_string());
        }
    }
    if is_wanted(Group::Scaling) {
        let done = scaling::measure(&place, &mut report);
        report.ended(&Group::Scaling, done);
    }
    for model in models {
        let bench = arms::Bench { model, fit: &fit, heldout: &heldout, work };
        let sizes = arms::Sizes { keep: &args.keep, budgets: &args.budgets, seeds: args.seeds };
        if is_wanted(Group::Masks)
            && let Err(error) = arms::measure(&bench, &sizes, &mut report)
        {
            report.fail(&model.display().to_string(), error.to_string());
        }
        for keep in &args.keep {
            let bench = drift::Bench {
                model,
                fit: [&fit, &other_fit],
                heldout: [&heldout, &other_heldout],
                work,
                keep: *keep,
                seeds: args.seeds,
            };
            let name = format!("{} keep {keep}", arms::called(model));
            if is_wanted(Group::Drift)
                && let Err(error) = drift::measure(&bench, &name, &mut report)
            {
                report.fail(&name, error.to_string());
            }
            if is_wanted(Group::Liars)
                && let Err(error) = liars::measure(&bench, &name, &mut report)
            {
                report.fail(&name, error.to_string());
            }
        }
    }
    report.print();
    Ok(report.pass())
}

/// The first prompts of a file that have a reference.
fn read(path: &PathBuf, count: usize) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).map_err(BenchError::file(path))?;
    let parsed = parse_prompts(&text, false).map_err(failed)?;
    Ok(parsed.prompts.into_iter().filter(|p| p.reference.is_some()).take(count).collect())
}

/// Another part's error, as this one's.
fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Unequal(error.to_string())
}
