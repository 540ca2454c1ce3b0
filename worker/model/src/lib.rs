//! The instrumented model: one forward pass, parametrised by `config.json`, that serves every
//! architecture.
//!
//! Follow the forward pass in this order: [`config`] (what the model is) → [`checkpoint`] (its
//! weights on disk) → `load` (which tensor goes where) → [`transformer`] (its [`layers`], block by
//! block) with [`taps`] (where a probe reads, replaces or differentiates) → [`loss`]. [`chat`]
//! turns prompts into tokens, [`batch`] packs them, [`generate`] decodes answers; [`dictionary`] is how
//! a sparse autoencoder's features become units of a layer.
//!
//! Layers work on *ragged* batches: the tokens of all sequences lie one after another in `[N,
//! hidden]`; only attention pads them to a rectangle. Everything is differentiable; see
//! [`custom_gradient`] for how frozen weights cost no gradient.

pub mod batch;
pub mod branch;
pub mod budget;
pub mod chat;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "no_cuda.rs"]
mod cuda;
pub mod custom_gradient;
pub mod custom_gradients;
pub mod cuts;
pub mod dictionary;
mod error;
pub mod generate;
mod given;
mod head;
mod identity;
mod inventory;
pub mod layers;
mod load;
mod loaded;
pub mod loss;
mod name;
mod names;
mod passes;
mod placement;
mod progress;
mod readable;
pub mod sampling;
mod spool;
mod stored;
pub mod taps;
pub mod transformer;
pub mod whole_file;

pub use dictionary::{Dictionaries, Dictionary};
pub use error::ModelError;
pub use identity::{digests, fingerprint, fingerprint_of};
pub use loaded::{LoadedModel, batches};
pub use name::model_name;
pub use names::{ExpertPart, ExpertTensor, OwnTensor, in_layer, of_layer};
pub use passes::{Passes, PerPrompt, Watch};
pub use placement::{Holding, Placement};
pub use progress::{NoProgress, Progress};
pub use readable::Readable;
pub use spool::Spool;
pub use stored::StoredModel;

/// Bytes that are free on a device with memory of its own; `None` where it has none or does not
/// say.
pub fn device_memory(device: &candle_core::Device) -> Option<u64> {
    cuda::free_memory(device)
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;
