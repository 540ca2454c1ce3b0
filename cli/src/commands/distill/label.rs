//! The lessons of `uspx distill`: the teacher answers prompts and labels what is to be learned.

use super::Split;
use super::local::Local;
use super::served::Served;
use crate::args::DistillArgs;
use crate::error::Result;
use crate::left_out;
use uspx_distill::answers::Answers;
use uspx_distill::quality::{Sieve, of_prompts};
use uspx_distill::{Asking, Labels, Sampling, Target};
use uspx_domain::{Prompt, Skipped};
use uspx_runtime::Shutdown;

/// What there is to learn, and to stop by.
pub struct Lessons {
    /// The teacher's labels.
    pub labels: Split<Labels>,
    /// Prompts that were left out.
    pub skipped: Vec<Skipped>,
}

/// Answers that are kept, and the prompts that lose theirs.
pub type Kept = (Vec<Answers>, Vec<Skipped>);

/// Whoever answers prompts: a model here, or a server.
pub trait Teacher {
    /// How it is asked for what is to be learned.
    fn how(&self) -> Asking;

    /// The labels of the answers to `prompts` that `keep` keeps, and the prompts that have none.
    /// `what_for` is told to the person.
    fn lessons(
        &self,
        prompts: &[Prompt],
        how: &Asking,
        keep: &dyn Fn(Vec<Answers>) -> Kept,
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
    let how = teacher.how();
    let (validation, mut skipped) = teacher.lessons(
        &prompts.validation,
        &judging(how),
        &|all| (all, Vec::new()),
        "to stop by",
    )?;
    let train = teacher.dreamt(&prompts.train)?;
    let sieve = Sieve::of(&args.answers.answering(how.target));
    let keep = |all: Vec<Answers>| sieve.answers(all);
    let (mut train, mut more) = teacher.lessons(&train, &how, &keep, "to learn")?;
    more.extend(sieve.labels(&mut train));
    skipped.extend(of_prompts(&prompts.train, more));
    left_out::tell(&skipped, train.prompts.len(), None, args.run.json)?;
    left_out::tell(&skipped, validation.prompts.len(), None, true)?;
    Ok(Lessons { labels: Split { train, validation }, skipped })
}

/// What a training stops by is one answer to each prompt: the reference, where both are learned.
fn judging(how: Asking) -> Asking {
    let target = if how.target == Target::Both { Target::Reference } else { how.target };
    Asking { target, sampling: Sampling::NONE, ..how }
}
