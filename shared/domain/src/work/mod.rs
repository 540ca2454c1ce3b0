//! What a worker is asked to do: one kind of job a file, with its data, the blobs that it names and
//! the check of its answer. How each runs stands in `worker/service/src/jobs/`, under the same
//! name.
//!
//! `P` is what stands for a prompt: its place in the campaign where work is planned and recorded,
//! its text where it goes to a worker.

mod ablate;
mod answering;
mod distil;
mod estimate;
mod export;
mod judge;
mod label;
mod part;
mod sae;

pub use ablate::{Ablate, Cut};
pub use answering::{Answering, Target};
pub use distil::{Distil, DistilRecipe};
pub use estimate::{Baseline, Estimate};
pub use export::Export;
pub use judge::{Answers, Judge, Subject};
pub use label::{Dreams, Label};
pub use part::{Part, Place, Round, Told};
pub use sae::Sae;

use crate::{Asked, BlobRef, Fingerprint, Outcome, Prompt, Refusal, TaskId};
use serde::{Deserialize, Serialize};

/// One piece of work, meant to take a worker about half a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Derived from the plan, so that planning again names it the same.
    pub id: TaskId,
    /// The batch of evidence that it belongs to.
    pub epoch: u32,
    /// The model to measure: the teacher, or for student work the base student.
    pub model: Fingerprint,
    /// What to do.
    pub work: Work<Prompt>,
}

/// What every kind of job says of itself.
pub trait Job<P> {
    /// A short name for logs and tables.
    fn name(&self) -> &'static str;

    /// The prompts that it is about.
    fn prompts(&self) -> &[P];

    /// The blobs that a worker fetches before it runs.
    fn blobs(&self) -> Vec<BlobRef> {
        Vec::new()
    }

    /// Whether two answers to it can be compared number by number.
    fn is_comparable(&self) -> bool {
        false
    }

    /// Whether an answer's outcome fits it.
    ///
    /// # Errors
    /// The first thing that does not fit.
    fn check(&self, asked: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal>;
}

/// The kinds of job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work<P> {
    /// Statistics or effects of single units.
    Estimate(Estimate<P>),
    /// The loss of each prompt under each cut, and under none.
    Ablate(Ablate<P>),
    /// Answers and token probabilities for a student to learn.
    Label(Label<P>),
    /// Trains an adapter for the student.
    Distil(Distil),
    /// Writes a 4-bit student.
    Export(Export<P>),
    /// The loss of a model on prompts with references, and its own answers to them.
    Judge(Judge<P>),
    /// Trains a sparse autoencoder.
    Sae(Sae<P>),
    /// A part of a training that several machines share.
    Part(Part),
}

impl<P> Work<P> {
    /// The job, whatever its kind.
    pub fn job(&self) -> &dyn Job<P> {
        match self {
            Self::Estimate(job) => job,
            Self::Ablate(job) => job,
            Self::Label(job) => job,
            Self::Distil(job) => job,
            Self::Export(job) => job,
            Self::Judge(job) => job,
            Self::Sae(job) => job,
            Self::Part(job) => job,
        }
    }

    /// Every kind of job, as [`Work::kind`] names it.
    pub const KINDS: &[&'static str] =
        &["estimate", "ablate", "label", "distil", "export", "judge", "sae", "part"];

    /// The name of its kind of job, on the wire and in what a worker says that it speaks.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Estimate(_) => "estimate",
            Self::Ablate(_) => "ablate",
            Self::Label(_) => "label",
            Self::Distil(_) => "distil",
            Self::Export(_) => "export",
            Self::Judge(_) => "judge",
            Self::Sae(_) => "sae",
            Self::Part(_) => "part",
        }
    }

    /// See [`Job::name`].
    pub fn name(&self) -> &'static str {
        self.job().name()
    }

    /// See [`Job::prompts`].
    pub fn prompts(&self) -> &[P] {
        self.job().prompts()
    }

    /// See [`Job::blobs`].
    pub fn blobs(&self) -> Vec<BlobRef> {
        self.job().blobs()
    }

    /// The same work on `prompts`, which stand for its own, one for one.
    pub fn on<Q>(self, prompts: Vec<Q>) -> Work<Q> {
        match self {
            Self::Estimate(job) => Work::Estimate(job.on(prompts)),
            Self::Ablate(job) => Work::Ablate(job.on(prompts)),
            Self::Label(job) => Work::Label(job.on(prompts)),
            Self::Distil(job) => Work::Distil(job),
            Self::Export(job) => Work::Export(job.on(prompts)),
            Self::Judge(job) => Work::Judge(job.on(prompts)),
            Self::Sae(job) => Work::Sae(job.on(prompts)),
            Self::Part(job) => Work::Part(job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerShape, MlpShape, ModelShape, StoredFile};

    /// A kind of job for tests: what adding one takes here, besides its variant.
    struct Example<P> {
        prompts: Vec<P>,
        input: BlobRef,
    }

    impl<P> Job<P> for Example<P> {
        fn name(&self) -> &'static str {
            "example"
        }

        fn prompts(&self) -> &[P] {
            &self.prompts
        }

        fn blobs(&self) -> Vec<BlobRef> {
            vec![self.input]
        }

        fn check(&self, _: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
            match outcome {
                Outcome::Exported { files } if files.len() == 1 => Ok(()),
                _ => Err(Refusal::Kind(self.name())),
            }
        }
    }

    #[test]
    fn a_kind_of_job_is_one_module() {
        let layer = LayerShape::new(2, MlpShape::Dense { channels: 8 });
        let shape = ModelShape { layers: vec![layer] };
        let example = Example { prompts: vec![3u32], input: BlobRef::to(b"input") };
        let job: &dyn Job<u32> = &example;
        let asked = Asked { ids: vec!["p3"], shape: &shape };
        let file = StoredFile { path: "a".into(), blob: BlobRef::to(b"a") };
        assert_eq!(job.check(&asked, &Outcome::Exported { files: vec![file] }), Ok(()));
        let refused = job.check(&asked, &Outcome::Losses(vec![]));
        assert_eq!(refused, Err(Refusal::Kind("example")));
        assert_eq!((job.blobs().len(), job.prompts(), job.is_comparable()), (1, &[3][..], false));
    }

    #[test]
    fn work_keeps_all_but_its_prompts() {
        let job = Label { prompts: vec![4u32, 7], ..Label::of(Vec::new()) };
        let text = Work::Label(job.clone()).on(vec!["four", "seven"]);
        assert_eq!(text.prompts(), ["four", "seven"]);
        assert_eq!(text.on(vec![4, 7]), Work::Label(job));
    }
}
