//! The nouns of the colony, pure: what a unit, a prompt, a task, an answer, a mask and a release
//! *are*.
//!
//! Nothing here waits, reads a clock, opens a file or knows a network. Every other crate speaks in
//! these words.

#[macro_use]
mod table;

mod answer;
mod coverage;
mod deposit;
mod distil_loss;
mod estimator;
mod failure;
mod format;
mod ids;
pub mod limits;
mod mask;
mod pace;
mod prompt;
mod refusal;
mod release;
mod sae;
mod seams;
mod shape;
mod skip;
mod speaks;
mod speed;
mod statistic;
mod unit;
mod work;

pub use answer::{Answer, Outcome, StoredFile, TrainingSummary};
pub use coverage::Coverage;
pub use deposit::{Column, Deposit, LossRow, Moments, PromptTokens};
pub use distil_loss::{DistilLoss, DistilLossRow};
pub use estimator::{Estimator, EstimatorRow, Needs};
pub use failure::{Failure, FailureKind, FailureReason};
pub use format::{ExportFormat, ExportFormatRow};
pub use ids::{BlobRef, Digest, Fingerprint, IdError, TaskId, WorkerId};
pub use mask::{KeepLists, LayerLists, Mask, MaskError};
pub use pace::Pace;
pub use prompt::{
    Exchange, Prompt, PromptError, PromptFormat, PromptSet, Repetition, parse_prompts,
};
pub use refusal::{Asked, LARGEST, MOST_TOKENS, Refusal};
pub use release::{
    ADAPTER_CONFIG, ADAPTER_TENSORS, ChunkEntry, FileEntry, Manifest, ReleaseNumber, student_name,
};
pub use sae::{SaeKind, SaeRecipe, SaeSummary};
pub use seams::SeamPrompts;
pub use shape::{LayerShape, MlpShape, ModelShape};
pub use skip::{SkipGroup, SkipReason, Skipped};
pub use speaks::Speaks;
pub use speed::Speed;
pub use statistic::{ScoreMethod, Statistic, StatisticRow};
pub use unit::{NotAUnit, NotAUnitKind, Unit, UnitKind, UnitKindRow};
pub use work::{
    Ablate, Answering, Answers, Baseline, Cut, Distil, DistilRecipe, Dreams, Estimate, Export, Job,
    Judge, Label, Part, Place, Round, Sae, Subject, Target, Task, Told, Work,
};
