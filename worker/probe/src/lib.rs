//! The probes: prompts in, deposits out. Nothing here knows of a network. They run what the model
//! can run ([`Readable`](uspx_model::Readable)); of no prompts at all they find nothing, which is
//! not an error.
//!
//! * [`estimators`]: statistics and effects of single units, by any estimator of the domain's
//!   table.
//! * [`mod@trace`]: what one forward pass shows, and more of it than an estimator may tell.
//! * [`ablate`]: losses under many cuts, each run only from the first layer that it changes.
//! * [`layers`]: which whole layers cost least.
//! * [`circuits`]: losses of what masks keep, means in the place of the rest.
//! * [`resample`]: which prompt another one's outputs are taken from.
//! * [`evaluate`]: the loss of each prompt, under a cut or none.
//! * [`mod@answered`]: whether the model's own answers are the references.

pub mod ablate;
pub mod answered;
pub mod batching;
pub mod circuits;
mod differentiate;
mod effects;
pub mod estimators;
pub mod evaluate;
pub mod layers;
mod means;
mod path;
pub mod resample;
mod running;
mod statistics;
mod sums;
pub mod trace;
mod within;

pub use estimators::{ProbeRequest, measure};
pub use means::{Means, mean_outputs};
pub use uspx_model::layers::kept::ExpertMode;

/// Results of this crate: the model's errors are its errors.
pub type Result<T> = uspx_model::Result<T>;
