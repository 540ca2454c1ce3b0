//! The student's examples: what the teacher says about the person's prompts, and how a student
//! learns it.
//!
//! Follow it in this order: [`mod@dream`] (more prompts of the person's kind) → [`answers`] (what
//! is to be learned: references, the teacher's answers, samples of them) → [`quality`]
//! (which of them are worth it) → [`teach`] (the teacher labels them, [`mod@keeping`] some of what it says), all of it in
//! [`mod@lessons`] → [`labels`] and [`codec`] (what a label is, in memory
//! and as bytes) → [`reading`] (labels beside the student's own tokens) → [`align`], [`chunks`] and
//! `bias` (what is the same on both sides) → [`losses`] (what is learned of it, one a file) →
//! [`lora`] and [`adapter_file`] with [`peft`] (what is trained, and how it is kept) → [`mod@gradient`] and
//! `schedule` → `fade` (a student's own mask) → `learner` (one step) → [`train`] (the loop) with [`recipe`] and `attempt`, or [`together`] (the
//! loop of several machines).
//!
//! Nothing here sees a network, and a clock only tells how fast it went and when a state is kept: equal
//! inputs and seed give equal adapters on equal hardware.

mod adam_w;
pub mod adapter_file;
pub mod align;
pub mod answers;
mod attempt;
mod bias;
pub mod chunks;
pub mod codec;
pub mod dream;
mod error;
mod fade;
pub mod gradient;
pub mod keeping;
pub mod labels;
mod learner;
pub mod lessons;
pub mod lora;
pub mod losses;
mod masked;
pub mod on_policy;
pub mod peft;
pub mod quality;
pub mod reading;
pub mod recipe;
pub mod schedule;
mod stages;
mod state;
pub mod teach;
pub mod together;
pub mod train;
mod training;

pub use adapter_file::{AdapterInfo, load_adapter, save_adapter};
pub use answers::{Answers, Asking, Sampling, Target};
pub use attempt::Pace;
pub use dream::{dream, dreams};
pub use error::DistillError;
pub use fade::Fading;
pub use keeping::Keeping;
pub use labels::{Labels, Piece, PromptLabels, TokenLabel};
pub use lessons::{lessons, make_labels};
pub use lora::merged_weights;
pub use peft::PeftConfig;
pub use recipe::{recipe_references, recipe_teacher};
pub use state::Keep;
pub use teach::label;
pub use together::{Exchanged, Sharing};
pub use train::{DistilRequest, Distilled, distil};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, DistillError>;
