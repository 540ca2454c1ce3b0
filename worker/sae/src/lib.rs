//! Sparse autoencoders (SAEs): a layer's activations as sums of a few features out of many.
//!
//! Follow it in this order: [`parameters`] (the weights) → [`select`] and [`codes`] (which features
//! a token has) → [`gradient`], `adam` and [`trainer`] (one step) with [`Recipe`] → [`place`] and
//! [`stream`] (where activations come from) → [`mod@fit`] (the loop) with `schedule` and
//! [`checkpoint`] → [`saelens`] (the files) → [`mod@evaluate`] (what a grafted SAE costs) →
//! [`rank`] (which features go with good answers) → [`mod@attach`] (features as units of the model); [`memory`] is
//! what all that takes.
//!
//! TopK: Gao et al. 2024, arXiv 2406.04093. BatchTopK: Bussmann et al. 2024, arXiv 2412.06410.
//!
//! Activations come batch by batch from the model and are never stored whole. The mathematics runs
//! on the CPU: of a TopK SAE only the encoder's product is dense, everything else follows the few
//! active features. Equal inputs and seed give equal weights, whatever the number of threads, and a
//! training that was interrupted goes on bit for bit. Nothing here sees a network or a clock.

mod adam;
pub mod attach;
pub mod checkpoint;
pub mod codes;
mod error;
pub mod evaluate;
pub mod fit;
pub mod gradient;
pub mod memory;
mod number;
pub mod parameters;
pub mod place;
pub mod planted;
pub mod rank;
mod sae;
pub mod saelens;
mod schedule;
pub mod select;
pub mod stream;
pub mod trainer;

pub use attach::attach;
pub use error::SaeError;
pub use evaluate::{Evaluation, evaluate};
pub use fit::{FitRequest, Fitted, fit};
pub use number::Number;
pub use parameters::Parameters;
pub use place::{Place, Site};
pub use sae::{Normalisation, Sae};

/// The words for recipes are the colony's.
pub use uspx_domain::{SaeKind as Kind, SaeRecipe as Recipe};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, SaeError>;
