//! Measures the probes as a user has them: what masks by each way to rank units cost on prompts that
//! they were not made from, whether a mask is its person's own, what scores cost, what an SAE recovers,
//! and how fast exact effects are. `make bench-probes` builds what is needed and runs all of it; the last line is one JSON object.
//!
//! Every run of the binary is a cell, kept with what it printed; a run that was stopped goes on with
//! the cells that are missing.

mod cost;
mod exact;
mod losses;
mod masks;
mod person;
mod sae;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::Report;
use uspx_bench_engine::place::Place;

/// Measures the probes.
#[derive(Parser, Debug)]
struct Args {
    /// A model to measure beside the shipped teacher; may be given several times.
    #[arg(long = "model", value_name = "DIR")]
    models: Vec<PathBuf>,
    /// A dense model to measure beside the shipped student; may be given several times.
    #[arg(long = "dense", value_name = "DIR")]
    dense: Vec<PathBuf>,
    /// Prompts that masks are made from [default: the shipped command lines].
    #[arg(long)]
    fit: Option<PathBuf>,
    /// How many of them.
    #[arg(long, default_value_t = 80)]
    fit_count: usize,
    /// Prompts that masks are judged on [default: others of the shipped command lines].
    #[arg(long)]
    heldout: Option<PathBuf>,
    /// How many of them.
    #[arg(long, default_value_t = 300)]
    heldout_count: usize,
    /// Prompts of another person, for the table of two persons; without them it is skipped.
    #[arg(long, requires = "other_heldout")]
    other_fit: Option<PathBuf>,
    /// Held-out prompts of the other person.
    #[arg(long, requires = "other_fit")]
    other_heldout: Option<PathBuf>,
    /// Only these figures [default: all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// Where cells are kept [default: target/bench-probes].
    #[arg(long)]
    work: Option<PathBuf>,
    /// The binary under test [default: target/release/uspx].
    #[arg(long, env = "USPX_BIN")]
    uspx: Option<PathBuf>,
    /// Threads of the binary.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Figures that are measured together.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Masks by each way to rank units.
    Masks,
    /// Two persons' masks on each other's prompts.
    Person,
    /// What scores cost.
    Cost,
    /// A sparse autoencoder.
    Sae,
    /// Exact effects against plain hooks.
    Exact,
}

/// Prompts to make masks from, and others to judge them on.
struct Prompts {
    fit: PathBuf,
    heldout: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(pass) => ExitCode::from(u8::from(!pass)),
        Err(error) => {
            eprintln!("bench-probes: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every figure holds.
fn run(args: &Args) -> Result<bool> {
    let Place { root, work, uspx } =
        Place::of("bench-probes", args.work.as_deref(), args.uspx.as_deref())?;
    let cells = Cells::new(&uspx, &work, args.threads)?;
    let teacher = root.join("cli/assets/nano/teacher");
    let mut models = vec![teacher.clone()];
    models.extend(args.models.iter().cloned());
    let mut dense = vec![root.join("cli/assets/nano/student")];
    dense.extend(args.dense.iter().cloned());
    let shipped = |name: &str| root.join("cli/assets/prompts").join(name);
    let own = Prompts {
        fit: args.fit.clone().unwrap_or_else(|| shipped("cli-train.jsonl")),
        heldout: args.heldout.clone().unwrap_or_else(|| shipped("cli-heldout.jsonl")),
    };
    let other = args.other_fit.clone().zip(args.other_heldout.clone());
    let other = other.map(|(fit, heldout)| Prompts { fit, heldout });
    let counts = (args.fit_count, args.heldout_count);
    let mut report = Report::default();
    for group in Group::value_variants() {
        if !args.only.is_empty() && !args.only.contains(group) {
            continue;
        }
        let done = match group {
            Group::Masks => masks::measure(&cells, (&models, &dense), &own, counts, &mut report),
            Group::Person => match &other {
                Some(other) => person::measure(&cells, &models, [&own, other], counts, &mut report),
                None => {
                    report.skip("person", "no --other-fit and --other-heldout are given".into());
                    Ok(())
                }
            },
            Group::Cost => cost::measure(&cells, &models, &own, counts.0, &mut report),
            Group::Sae => sae::measure(&cells, &teacher, &own, &mut report),
            Group::Exact => exact::measure(&cells, &mut report),
        };
        report.ended(group, done);
    }
    report.print();
    Ok(report.pass())
}
