//! The probes: prompts in, deposits out. Nothing here knows of a network. They run what the model can run
//! ([`Readable`](uspx_model::Readable)); of no prompts at all they find nothing, which is no error.
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
pub(crate) fn prompt_tokens(prompts: &uspx_model::Readable) -> Vec<uspx_domain::PromptTokens> {
    let each = |(p, s): (&uspx_domain::Prompt, &uspx_model::batch::Sequence)| uspx_domain::PromptTokens {
        id: p.id.clone(),
        tokens: s.response_len() as u32,
    };
    prompts.prompts.iter().zip(&prompts.sequences).map(each).collect()
}
