//! Measures what a person has of uspx on their own machines and models: the `uspx` binary, as they
//! run it. `make bench-own` builds what is needed and runs all of it; the last line is one JSON
//! object.

mod gradients;
mod loops;
mod mixed;
mod streamed;

use bytesize::ByteSize;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use uspx_bench_engine::figure::Report;
use uspx_bench_engine::place::Place;
use uspx_bench_own::error::Result;

/// Measures a person's own loop.
#[derive(Parser, Debug)]
struct Args {
    /// Where the checkpoint is made, once, and logs are kept (15 GB) [default: target/bench-own].
    #[arg(long)]
    work: Option<PathBuf>,
    /// The binary under test [default: target/release/uspx].
    #[arg(long, env = "USPX_BIN")]
    uspx: Option<PathBuf>,
    /// Where the teacher larger than memory is run, and what takes the place of one of two workers on
    /// the CPU: cpu, or a GPU as cuda:0.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Memory of each worker with that teacher: the device's own, where it has some.
    #[arg(long, default_value = "2GiB")]
    memory: ByteSize,
    /// Threads of each worker.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Prompts to trace.
    #[arg(long, default_value_t = 64)]
    traced: usize,
    /// Of these, to attribute.
    #[arg(long, default_value_t = 16)]
    attributed: usize,
    /// Prompts to attribute by one command: as many as fill a batch, whatever the colony's tasks
    /// are cut to.
    #[arg(long, default_value_t = 40)]
    at_once: usize,
    /// A folder with a `teacher` and a `student`, for the person's loop.
    #[arg(long)]
    models: Option<PathBuf>,
    /// A file of prompts, for the person's loop.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Numbers of prompts to run the loop on.
    #[arg(long, value_delimiter = ',', default_values_t = [300, 2000])]
    loops: Vec<usize>,
    /// Only this part: `loop`, `streamed`, `gradients` or `mixed`.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(pass) => ExitCode::from(u8::from(!pass)),
        Err(error) => {
            eprintln!("bench-own: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every figure holds.
fn run(args: &Args) -> Result<bool> {
    let place = Place::of("bench-own", args.work.as_deref(), args.uspx.as_deref())?;
    let mut report = Report::default();
    let wanted = |part: &str| args.only.as_deref().is_none_or(|only| only == part);
    if wanted("loop") {
        loops::measure(args, &place, &mut report);
    }
    if wanted("streamed")
        && let Err(error) = streamed::measure(args, &place, &mut report)
    {
        report.fail("streamed", error.to_string());
    }
    if wanted("gradients")
        && let Err(error) = gradients::measure(args, &place, &mut report)
    {
        report.fail("gradients", error.to_string());
    }
    if wanted("mixed")
        && let Err(error) = mixed::measure(args, &place, &mut report)
    {
        report.fail("mixed", error.to_string());
    }
    report.print();
    Ok(report.pass())
}
