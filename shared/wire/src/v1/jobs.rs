//! The kinds of job.

use super::deposit::Unit;
use super::mask::Mask;
use super::names::{known, name};
use super::task::Prompt;
use super::{all, is_zero, try_all};
use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use uspx_domain::{self as domain, BlobRef};

#[derive(Serialize, Deserialize)]
pub(crate) struct Estimate {
    prompts: Vec<Prompt>,
    estimator: String,
    kinds: Vec<String>,
    baseline: String,
}

impl From<&domain::Estimate<domain::Prompt>> for Estimate {
    fn from(job: &domain::Estimate<domain::Prompt>) -> Self {
        Self {
            prompts: all(&job.prompts),
            estimator: name(job.estimator),
            kinds: job.kinds.iter().copied().map(name).collect(),
            baseline: name(job.baseline),
        }
    }
}

impl TryFrom<Estimate> for domain::Estimate<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Estimate) -> Result<Self, Unread> {
        Ok(Self {
            prompts: texts(job.prompts),
            estimator: known(&job.estimator)?,
            kinds: job.kinds.iter().map(|kind| known(kind)).collect::<Result<_, _>>()?,
            baseline: known(&job.baseline)?,
        })
    }
}

pub(super) fn texts(prompts: Vec<Prompt>) -> Vec<domain::Prompt> {
    prompts.into_iter().map(Into::into).collect()
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Ablate {
    prompts: Vec<Prompt>,
    cuts: Vec<Cut>,
}

one_of! {
    /// One run of an ablation.
    Cut { Unit(Unit) = "unit", Mask(Mask) = "mask", }
}

impl From<&domain::Ablate<domain::Prompt>> for Ablate {
    fn from(job: &domain::Ablate<domain::Prompt>) -> Self {
        Self { prompts: all(&job.prompts), cuts: all(&job.cuts) }
    }
}

impl TryFrom<Ablate> for domain::Ablate<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Ablate) -> Result<Self, Unread> {
        Ok(Self { prompts: texts(job.prompts), cuts: try_all(job.cuts)? })
    }
}

impl From<&domain::Cut> for Cut {
    fn from(cut: &domain::Cut) -> Self {
        match cut {
            domain::Cut::Unit(unit) => Self::Unit(unit.into()),
            domain::Cut::Mask(mask) => Self::Mask(mask.into()),
        }
    }
}

impl TryFrom<Cut> for domain::Cut {
    type Error = Unread;
    fn try_from(cut: Cut) -> Result<Self, Unread> {
        match cut {
            Cut::Unit(unit) => Ok(Self::Unit(unit.try_into()?)),
            Cut::Mask(mask) => Ok(Self::Mask(mask.try_into()?)),
            Cut::Unknown => Err(Unread::Unknown("a kind of cut")),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Distil {
    train: Vec<BlobRef>,
    validation: Vec<BlobRef>,
    recipe: Recipe,
}

/// How a student is distilled, alone or by several machines.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recipe {
    rank: u32,
    alpha: f32,
    epochs: u32,
    learning_rate: f32,
    batch_tokens: u32,
    teacher_weight: f32,
    seed: u64,
    /// Unsaid where it is the usual one. A worker that does not know of others is not asked for
    /// them ([`domain::Speaks`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<String>,
    /// Unsaid where the student is held as floats.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    nf4: bool,
}

impl From<&domain::Distil> for Distil {
    fn from(job: &domain::Distil) -> Self {
        let recipe = Recipe::from(job.recipe);
        Self { train: job.train.clone(), validation: job.validation.clone(), recipe }
    }
}

impl TryFrom<Distil> for domain::Distil {
    type Error = Unread;
    fn try_from(job: Distil) -> Result<Self, Unread> {
        let recipe = job.recipe.try_into()?;
        Ok(Self { train: job.train, validation: job.validation, recipe })
    }
}

impl From<domain::DistilRecipe> for Recipe {
    fn from(recipe: domain::DistilRecipe) -> Self {
        Self {
            rank: recipe.rank,
            alpha: recipe.alpha,
            epochs: recipe.epochs,
            learning_rate: recipe.learning_rate,
            batch_tokens: recipe.batch_tokens,
            teacher_weight: recipe.teacher_weight,
            seed: recipe.seed,
            loss: (!recipe.loss.is_usual()).then(|| name(recipe.loss)),
            nf4: recipe.nf4,
        }
    }
}

impl TryFrom<Recipe> for domain::DistilRecipe {
    type Error = Unread;
    fn try_from(recipe: Recipe) -> Result<Self, Unread> {
        Ok(Self {
            rank: recipe.rank,
            alpha: recipe.alpha,
            epochs: recipe.epochs,
            learning_rate: recipe.learning_rate,
            batch_tokens: recipe.batch_tokens,
            teacher_weight: recipe.teacher_weight,
            seed: recipe.seed,
            loss: recipe.loss.as_deref().map_or(Ok(domain::DistilLoss::default()), known)?,
            nf4: recipe.nf4,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Export {
    adapter: Option<BlobRef>,
    calibration: Vec<Prompt>,
    /// Unsaid where there is none. A worker that does not know of it leaves it out.
    #[serde(default, skip_serializing_if = "is_zero")]
    finish: u32,
    /// Unsaid where there are none. A worker that does not know of them learns from the calibration alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<BlobRef>,
    format: String,
}

impl From<&domain::Export<domain::Prompt>> for Export {
    fn from(job: &domain::Export<domain::Prompt>) -> Self {
        let (calibration, format) = (all(&job.calibration), name(job.format));
        let labels = job.labels.clone();
        Self { adapter: job.adapter, calibration, finish: job.finish, labels, format }
    }
}

impl TryFrom<Export> for domain::Export<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Export) -> Result<Self, Unread> {
        Ok(Self {
            adapter: job.adapter,
            calibration: texts(job.calibration),
            finish: job.finish,
            labels: job.labels,
            format: known(&job.format)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Sae {
    prompts: Vec<Prompt>,
    judged: u32,
    layer: u32,
    recipe: SaeRecipe,
}

#[derive(Serialize, Deserialize)]
struct SaeRecipe {
    kind: String,
    features: u64,
    k: u64,
    epochs: u32,
    steps: Option<u64>,
    batch: u64,
    buffer: u64,
    rate: f64,
    dead_after: u64,
    auxiliary: f64,
    skip: u64,
    seed: u64,
}

impl From<&domain::Sae<domain::Prompt>> for Sae {
    fn from(job: &domain::Sae<domain::Prompt>) -> Self {
        let domain::Sae { prompts, judged, layer, recipe } = job;
        Self { prompts: all(prompts), judged: *judged, layer: *layer, recipe: recipe.into() }
    }
}

impl TryFrom<Sae> for domain::Sae<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Sae) -> Result<Self, Unread> {
        let Sae { prompts, judged, layer, recipe } = job;
        Ok(Self { prompts: texts(prompts), judged, layer, recipe: recipe.try_into()? })
    }
}

impl From<&domain::SaeRecipe> for SaeRecipe {
    fn from(recipe: &domain::SaeRecipe) -> Self {
        Self {
            kind: name(recipe.kind),
            features: recipe.features as u64,
            k: recipe.k as u64,
            epochs: recipe.epochs,
            steps: recipe.steps,
            batch: recipe.batch as u64,
            buffer: recipe.buffer as u64,
            rate: recipe.rate,
            dead_after: recipe.dead_after,
            auxiliary: recipe.auxiliary,
            skip: recipe.skip as u64,
            seed: recipe.seed,
        }
    }
}

impl TryFrom<SaeRecipe> for domain::SaeRecipe {
    type Error = Unread;
    fn try_from(recipe: SaeRecipe) -> Result<Self, Unread> {
        let size = |n: u64| usize::try_from(n).map_err(|_| Unread::from(Flaw::Fields));
        Ok(Self {
            kind: known(&recipe.kind)?,
            features: size(recipe.features)?,
            k: size(recipe.k)?,
            epochs: recipe.epochs,
            steps: recipe.steps,
            batch: size(recipe.batch)?,
            buffer: size(recipe.buffer)?,
            rate: recipe.rate,
            dead_after: recipe.dead_after,
            auxiliary: recipe.auxiliary,
            skip: size(recipe.skip)?,
            seed: recipe.seed,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Judge {
    prompts: Vec<Prompt>,
    subject: Subject,
    /// A worker that does not know of them tells the losses alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<Answers>,
}

/// Bounds on the answers that a judged model gives, in tokens.
#[derive(Serialize, Deserialize)]
struct Answers {
    tokens: u32,
    reasoning: u32,
}

one_of! {
    /// Which model a judgement is about.
    Subject { Model(Model) = "model", Adapted(BlobRef) = "adapted", Exported(Exported) = "exported", }
}

/// The task's model as it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Model {}

#[derive(Serialize, Deserialize)]
pub(crate) struct Exported {
    format: String,
    files: Vec<File>,
}

/// A file of a folder.
#[derive(Serialize, Deserialize)]
pub(crate) struct File {
    path: String,
    blob: BlobRef,
}

impl From<&domain::Judge<domain::Prompt>> for Judge {
    fn from(job: &domain::Judge<domain::Prompt>) -> Self {
        let subject = match &job.subject {
            domain::Subject::Model => Subject::Model(Model {}),
            domain::Subject::Adapted(blob) => Subject::Adapted(*blob),
            domain::Subject::Exported { format, files } => {
                Subject::Exported(Exported { format: name(*format), files: all(files) })
            }
        };
        let domain::Answers { tokens, reasoning } = job.answers;
        let answers = (!job.answers.is_none()).then_some(Answers { tokens, reasoning });
        Self { prompts: all(&job.prompts), subject, answers }
    }
}

impl TryFrom<Judge> for domain::Judge<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Judge) -> Result<Self, Unread> {
        let subject = match job.subject {
            Subject::Model(_) => domain::Subject::Model,
            Subject::Adapted(blob) => domain::Subject::Adapted(blob),
            Subject::Exported(Exported { format, files }) => {
                domain::Subject::Exported { format: known(&format)?, files: stored(files) }
            }
            Subject::Unknown => return Err(Unread::Unknown("a thing to judge")),
        };
        let answers =
            job.answers.map(|Answers { tokens, reasoning }| domain::Answers { tokens, reasoning });
        let answers = answers.unwrap_or_default();
        Ok(Self { prompts: texts(job.prompts), subject, answers })
    }
}

impl From<&domain::StoredFile> for File {
    fn from(file: &domain::StoredFile) -> Self {
        Self { path: file.path.clone(), blob: file.blob }
    }
}

/// Files as the domain has them.
pub(crate) fn stored(files: Vec<File>) -> Vec<domain::StoredFile> {
    files.into_iter().map(|File { path, blob }| domain::StoredFile { path, blob }).collect()
}
