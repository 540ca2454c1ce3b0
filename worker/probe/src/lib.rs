//! The probes: prompts in, deposits out. Nothing here knows of a network.
//!
//! * [`evaluate`]: the loss of each prompt, under a cut or none.
//! * [`trace`]: routing and activation statistics of one forward pass.
//! * [`patch`]: effects of single units, by gradient.
//! * [`ablate`]: losses under many cuts, each run only from the first layer that it changes.

pub mod ablate;
mod batching;
mod effects;
pub mod evaluate;
mod means;
pub mod patch;
pub mod trace;

pub use effects::exact_effects;

/// Results of this crate: the model's errors are its errors.
pub type Result<T> = uspx_model::Result<T>;

/// The prompts of a deposit, with their response tokens.
pub(crate) fn prompt_tokens(
    prompts: &[uspx_domain::Prompt],
    sequences: &[uspx_model::batch::Sequence],
) -> Vec<uspx_domain::PromptTokens> {
    let each = |(p, s): (&uspx_domain::Prompt, &uspx_model::batch::Sequence)| uspx_domain::PromptTokens {
        id: p.id.clone(),
        tokens: s.response_len() as u32,
    };
    prompts.iter().zip(sequences).map(each).collect()
}
