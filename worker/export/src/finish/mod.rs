//! The quantisation-aware finish (QAD, arXiv 2601.20088): the 4-bit student, as its file will hold it,
//! learns to say what the student of floats says. Codes move one by one, as if they were not rounded
//! (straight-through, Bengio et al. 2013, arXiv 1308.3432), and the steps between them by a factor.
//!
//! What is learned is all tokens of the calibration's prompts and answers, and of others that the student of floats
//! makes up where these are few, by the divergence of the two
//! students' next tokens: the answers' own text as a second target made it worse than no finish. A tenth
//! of the prompts judges after each pass, on what the file would hold; the best is kept, which may be
//! what GPTQ began with.

mod course;
mod latent;
mod lessons;

use crate::Result;
use crate::coded::Moved;
use crate::formats::Writer;
use course::{Course, plan};
use latent::Latent;
pub(crate) use lessons::lessons;
use serde::{Deserialize, Serialize};
use uspx_model::batch::Sequence;
use uspx_model::layers::linear::Linear;
use uspx_model::taps::Projection;
use uspx_model::{LoadedModel, Progress};

/// Prompts without which nothing can be learned, let alone judged.
const LEAST_PROMPTS: usize = 20;

/// How a finish went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinishReport {
    /// Steps taken.
    pub steps: u32,
    /// Divergence from the student of floats on the prompts that judge, nats per token: without the finish ...
    pub before: f64,
    /// ... and with it.
    pub after: f64,
    /// The pass whose codes were kept, from 1; 0 where none was better than what was there.
    pub best_pass: u32,
    /// Codes that were changed, as a share of all.
    pub recoded: f64,
}

/// A linear map of the file that is another now.
pub struct Finished {
    /// Its layer.
    pub layer: usize,
    /// Which map.
    pub projection: Projection,
    /// What it became.
    pub moved: Moved,
}

/// How many steps so many passes over these sequences take, of a student with that vocabulary.
pub fn steps(sequences: &[Sequence], passes: u32, vocab: usize) -> usize {
    plan(sequences, passes, vocab).iter().map(Vec::len).sum()
}

/// Trains the linear maps that `writer` holds codes of, `passes` times over `sequences`. None where there
/// is nothing to train, or on too few prompts. `progress` hears of every step.
///
/// # Errors
/// Those of the model and of the progress, and weights that the file cannot hold.
pub fn finish(
    student: &LoadedModel,
    writer: &dyn Writer,
    (sequences, passes): (&[Sequence], u32),
    progress: &dyn Progress,
) -> Result<Option<(FinishReport, Vec<Finished>)>> {
    let floats = student.transformer.mapped(Linear::frozen)?;
    let plan = plan(sequences, passes, floats.config().vocab);
    let latents = if plan.is_empty() { Vec::new() } else { Latent::all(&floats, writer)? };
    if latents.is_empty() {
        return Ok(None);
    }
    Course::start(floats, latents, sequences)?.run(&plan, progress).map(Some)
}

#[cfg(test)]
mod tests;
