//! `uspx export`: one student, written here without a colony, in 4 bits or as floats.

mod floats;
mod four_bit;

use crate::args::{ExportArgs, Written};
use crate::draft::Draft;
use crate::error::{CliError, Exit, Result};
use crate::{models, student};
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Readable};
use uspx_runtime::Shutdown;

/// `uspx export`.
pub fn run(args: &ExportArgs, shutdown: &Shutdown) -> Result<()> {
    check(args)?;
    let draft = Draft::of(&args.out)?;
    match args.format {
        Written::FourBit(format) => four_bit::run(args, format, draft, shutdown),
        Written::Floats => floats::run(args, draft, shutdown),
    }
}

fn check(args: &ExportArgs) -> Result<()> {
    if args.common.run.machine.stream && args.finish.is_some_and(|passes| passes > 0) {
        return Err(CliError::new(Exit::Usage, "a student that is streamed has no finish").help(
            "leave out --stream or --finish: a finish holds the student in memory as 32-bit floats",
        ));
    }
    if args.format == Written::Floats && args.finish.is_some() {
        return Err(CliError::new(Exit::Usage, "floats have no finish: nothing is rounded")
            .help("leave out --finish, or choose a format of 4 bits"));
    }
    Ok(())
}

/// A student to be written, and the prompts for it.
struct Opened {
    student: LoadedModel,
    prompts: Readable,
    /// Tokens of a batch that calibrates.
    batch_tokens: usize,
    /// Whether there is memory for a finish.
    finishes: bool,
}

/// Opens the student for `work`, its adapter attached.
fn opened(args: &ExportArgs, work: Workload, shutdown: &Shutdown) -> Result<Opened> {
    let mut prompts = args.common.source().read()?.prompts;
    prompts.truncate(args.common.limit.unwrap_or(usize::MAX));
    let opened = student::open(&args.common.model, &args.common.run, work)?;
    let models::Opened { model: mut student, batch_tokens, room, finishes } = opened;
    if let Some(adapter) = &args.adapter {
        student::attach(&mut student, adapter)?;
    }
    let prompts = models::answered((&student, room), prompts, &args.common, shutdown)?;
    Ok(Opened { student, prompts, batch_tokens, finishes })
}
