//! A teacher that fits on no machine here, but is served by one: any OpenAI-compatible endpoint
//! (llama-server, Ollama, vLLM, a provider) answers the prompts, and what it says of its tokens becomes
//! labels.
//!
//! Follow it in this order: [`Settings`] → `client` (one request, tried again where that helps) →
//! `message` (what is sent and what comes) → `reply` (an answer, its reasoning apart) → `tokens` and
//! `pieces` (its token probabilities as labels) → [`Endpoint::answers`] (all prompts, a few at a time).
//!
//! The API cannot be made to read a given answer: a prompt's reference is learned by its text alone.

mod client;
mod error;
mod message;
mod pieces;
mod reply;
mod settings;
mod teacher;
mod tokens;

pub use error::EndpointError;
pub use settings::{Patience, Settings};
pub use teacher::{Endpoint, Said};

/// Results of this crate.
pub type Result<T> = std::result::Result<T, EndpointError>;
