//! Measures the student as a user has it: what every way to teach it is worth as a 4-bit file on prompts
//! that it did not learn, whether the finish brings back what 4 bits cost, and how fast it trains beside
//! PyTorch. `make bench-student` builds what is needed and runs all of it; the last line is one JSON object.
//!
//! Every run of the binary is a cell, kept with what it printed and made; a run that was stopped goes on
//! with the cells that are missing, in the middle of a training too.

mod arms;
mod campaign;
mod exported;
mod full;
mod healed;
mod judged;
mod machines;
mod pace;
mod taught;

use arms::Pair;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::Report;
use uspx_bench_engine::place::Place;

/// Measures the student.
#[derive(Parser, Debug)]
struct Args {
    /// The teacher of another trained pair to measure beside the shipped one.
    #[arg(long, requires = "student")]
    teacher: Option<PathBuf>,
    /// Its base student.
    #[arg(long, requires = "teacher")]
    student: Option<PathBuf>,
    /// Prompts to learn [default: the shipped command lines].
    #[arg(long)]
    train: Option<PathBuf>,
    /// How many of them.
    #[arg(long, default_value_t = 300)]
    train_count: usize,
    /// Prompts that students are judged on [default: others of the shipped command lines].
    #[arg(long)]
    heldout: Option<PathBuf>,
    /// How many of them.
    #[arg(long, default_value_t = 300)]
    heldout_count: usize,
    /// Trainings of every way on the shipped pair, seeds 1, 2, …; 0 leaves it out.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The same on the other pair.
    #[arg(long, default_value_t = 3)]
    other_seeds: u64,
    /// Only these figures [default: all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// Where cells are kept [default: target/bench-student].
    #[arg(long)]
    work: Option<PathBuf>,
    /// The binary under test [default: target/release/uspx].
    #[arg(long, env = "USPX_BIN")]
    uspx: Option<PathBuf>,
    /// Threads of the binary.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where the student of 8 billion parameters learns: cpu, or cuda:0 with a binary built for it. What else is
    /// run goes by USPX_DEVICE and USPX_DTYPE.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Students that are taught at once; the others' times are then not comparable.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// Figures that are measured together.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Every way to teach, with and without the finish.
    Arms,
    /// A student with half of its heads and a third of its channels gone: an hour and a half on two cores, only
    /// where it is named by --only.
    Healed,
    /// Training beside PyTorch and peft.
    Pace,
    /// Several machines that train one adapter.
    Machines,
    /// A student of 8 billion parameters: half an hour and 16 GB of disk, only where it is named by --only.
    Full,
    /// Two layers of the same written in 4 bits: 3 GB of disk and half an hour, only where it is named by --only.
    Exported,
    /// A person's first campaigns by the defaults. Hours: only where it is named by --only.
    Campaign,
}

impl Group {
    /// Its name, and why it is measured only where it is asked for.
    fn asked_for(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Campaign => Some(("campaign", "it takes hours: --only campaign")),
            Self::Exported => {
                Some(("exported", "it takes half an hour and 3 GB of disk: --only exported"))
            }
            Self::Healed => Some(("healed", "it takes an hour and a half: --only healed")),
            Self::Full => Some(("full", "it takes half an hour and 16 GB of disk: --only full")),
            _ => None,
        }
    }
}

/// Prompts to learn, and others to be judged on.
struct Prompts {
    train: (PathBuf, usize),
    heldout: (PathBuf, usize),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(pass) => ExitCode::from(u8::from(!pass)),
        Err(error) => {
            eprintln!("bench-student: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every figure holds.
fn run(args: &Args) -> Result<bool> {
    let Place { root, work, uspx } =
        Place::of("bench-student", args.work.as_deref(), args.uspx.as_deref())?;
    let cells = Cells::new(&uspx, &work, args.threads)?;
    let nano = root.join("cli/assets/nano");
    let shipped =
        Pair { teacher: nano.join("teacher"), student: nano.join("student"), seeds: args.seeds };
    let other = args.teacher.clone().zip(args.student.clone());
    let other = other.map(|(teacher, student)| Pair { teacher, student, seeds: args.other_seeds });
    let pairs: Vec<&Pair> =
        [Some(&shipped), other.as_ref()].into_iter().flatten().filter(|p| p.seeds > 0).collect();
    let widest = other.as_ref().unwrap_or(&shipped);
    let file = |given: &Option<PathBuf>, name: &str| {
        given.clone().unwrap_or_else(|| root.join("cli/assets/prompts").join(name))
    };
    let prompts = Prompts {
        train: (file(&args.train, "cli-train.jsonl"), args.train_count),
        heldout: (file(&args.heldout, "cli-heldout.jsonl"), args.heldout_count),
    };
    let mut report = Report::default();
    for group in Group::value_variants() {
        let (named, all) = (args.only.contains(group), args.only.is_empty());
        if all && let Some((name, why)) = group.asked_for() {
            report.skip(name, why.into());
            continue;
        }
        if !named && !all {
            continue;
        }
        let done = match group {
            Group::Arms => pairs.iter().try_for_each(|pair| {
                arms::measure(&cells, (pair, args.jobs), &prompts, &mut report)
            }),
            Group::Healed => healed::measure(&cells, widest, &prompts, &mut report),
            Group::Campaign => campaign::measure(&cells, widest, &prompts, &mut report),
            Group::Machines => pairs
                .iter()
                .try_for_each(|pair| machines::measure(&cells, pair, &prompts, &mut report)),
            Group::Full => {
                let counts = (&prompts, args.threads);
                let (teacher, small) = (&shipped.teacher, &shipped.student);
                let who = full::Who { root: &root, teacher, small, device: &args.device };
                full::measure(&cells, &who, counts, &mut report)
            }
            Group::Exported => exported::measure(&cells, &prompts, &mut report),
            Group::Pace => {
                let counts = (&prompts, args.threads);
                pace::measure(&cells, (&root, &widest.student), counts, &mut report)
            }
        };
        report.ended(group, done);
    }
    report.print();
    Ok(report.pass())
}
