//! The lessons of `uspx distill`: the teacher answers prompts and labels what is to be learned.

use super::Split;
use super::local::Local;
use super::served::Served;
use crate::args::DistillArgs;
use crate::error::Result;
use crate::left_out;
use uspx_distill::quality::{Sieve, of_prompts};
use uspx_distill::{Labels, Target};
use uspx_domain::{Answering, Prompt, Skipped};
use uspx_runtime::Shutdown;

/// What there is to learn, and to stop by.
pub struct Lessons {
    /// The teacher's labels.
    pub labels: Split<Labels>,
    /// Prompts that were left out.
    pub skipped: Vec<Skipped>,
}

/// Whoever answers prompts: a model here, or a server.
pub trait Teacher {
    /// Which answer is learned of a prompt that has a reference, where the flags name none.
    fn target(&self) -> Target;

    /// The labels of the answers to `prompts` that are chosen as `how` says, and the prompts that have
    /// none. `what_for` is told to the person.
    fn lessons(
        &self,
        prompts: &[Prompt],
        how: &Answering,
        what_for: &str,
    ) -> Result<(Labels, Vec<Skipped>)>;

    /// `prompts`, and beside them those that it makes up.
    fn dreamt(&self, prompts: &[Prompt]) -> Result<Vec<Prompt>>;
}

/// The teacher's labels of both. It is closed again before the student learns.
pub fn label(
    args: &DistillArgs,
    prompts: &Split<Vec<Prompt>>,
    shutdown: &Shutdown,
) -> Result<Lessons> {
    let teacher: Box<dyn Teacher + '_> = match &args.teacher {
        Some(path) => Box::new(Local::open(path, args, shutdown)?),
        None => Box::new(Served::of(args, shutdown)?),
    };
    let how = args.answers.answering(teacher.target());
    let (validation, mut skipped) =
        teacher.lessons(&prompts.validation, &how.for_judging(), "to stop by")?;
    let train = teacher.dreamt(&prompts.train)?;
    let (mut train, mut more) = teacher.lessons(&train, &how, "to learn")?;
    more.extend(Sieve::of(&how).labels(&mut train));
    skipped.extend(of_prompts(&prompts.train, more));
    left_out::tell(&skipped, train.prompts.len(), None, args.run.json)?;
    left_out::tell(&skipped, validation.prompts.len(), None, true)?;
    Ok(Lessons { labels: Split { train, validation }, skipped })
}
