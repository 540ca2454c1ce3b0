//! The nouns of the colony, pure: what a unit, a prompt, a task, an answer, a mask and a release *are*.
//!
//! Nothing here waits, reads a clock, opens a file or knows a network. Every other crate speaks in these words.

mod answer;
mod coverage;
mod ids;
mod mask;
mod prompt;
mod release;
mod seams;
mod skip;
mod task;
mod unit;

pub use answer::{Answer, Column, Deposit, LossRow, Outcome, PromptTokens, StoredFile, TrainingSummary};
pub use coverage::Coverage;
pub use ids::{BlobRef, Digest, Fingerprint, IdError, TaskId, WorkerId};
pub use mask::{KeepLists, Mask, MaskError};
pub use prompt::{Prompt, PromptError, PromptSet, parse_prompts};
pub use release::{ChunkEntry, FileEntry, Manifest, ReleaseNumber};
pub use seams::SeamPrompts;
pub use skip::{SkipGroup, SkipReason, Skipped};
pub use task::{Baseline, Cut, DistilRecipe, ExportFormat, PatchMethod, Subject, Task, Work};
pub use unit::{ModelShape, Statistic, Unit, UnitKind};
