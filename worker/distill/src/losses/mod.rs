//! What a student learns of its teacher, one loss a file. Those of given answers stand in the domain's
//! table of losses; what adding one takes is that row, its file, and its line in [`crate::train`].
//!
//! Every one of them is (1 − w)·cross-entropy against the answer's text + w·the teacher's term, in nats,
//! summed over the response tokens. Of prompts, or tokens, that the teacher says nothing about the
//! text alone is learned, with its whole weight. [`ReverseKl`] is for the student's own answers
//! ([`crate::on_policy`]), whose text is not learned.

mod alm;
mod gold;
mod hybrid;
#[cfg(test)]
mod proof;
mod pull;
mod reverse_kl;

pub use alm::Alm;
pub use gold::Gold;
pub use hybrid::Hybrid;
pub use reverse_kl::ReverseKl;

use crate::Result;
use crate::align::Soft;
use crate::labels::{Labels, PromptLabels};
use crate::reading::{self, Reading};
use candle_core::Tensor;
use uspx_domain::Digest;
use uspx_model::batch::Sequence;
use uspx_model::chat::Chat;

/// What the student learns from one prompt.
#[derive(Debug, Clone)]
pub struct Lesson<S> {
    /// The prompt and the answer in the student's tokens.
    pub sequence: Sequence,
    /// What the teacher says of the answer; by default nothing.
    pub said: S,
}

/// A way to learn from the teacher.
pub trait Loss: Sized {
    /// What the teacher says of one answer, as this loss needs it; by default nothing.
    type Said: Default;

    /// Gets ready for some labels and a student's vocabulary.
    fn new(labels: &[Labels], student: &Chat) -> Self;

    /// What one prompt's labels say.
    ///
    /// # Errors
    /// Those of the student's tokenizer.
    fn said(&self, reading: &Reading<'_>) -> Result<Self::Said>;

    /// The summed loss of all rows, a scalar in nats: `logits` `[rows, vocab]` predict the answers'
    /// tokens `hard`, lesson after lesson; `weight` is the teacher's, 0 to 1.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn loss(
        &self,
        logits: &Tensor,
        hard: &[u32],
        lessons: &[&Lesson<Self::Said>],
        weight: f32,
    ) -> Result<Tensor>;
}

/// Reads one prompt's labels for a student; `vocabulary` is the digest of the student's own
/// ([`crate::labels::vocabulary`]).
///
/// # Errors
/// A chat template that fails.
pub fn lesson<L: Loss>(
    loss: &L,
    labels: &Labels,
    prompt: &PromptLabels,
    student: &Chat,
    vocabulary: Digest,
) -> Result<Lesson<L::Said>> {
    let reading = Reading::of(labels, prompt, student, vocabulary)?;
    let said = loss.said(&reading)?;
    Ok(Lesson { sequence: reading.into_sequence(), said })
}

/// The same without the teacher.
///
/// # Errors
/// A chat template that fails.
pub fn text_lesson<S: Default>(prompt: &PromptLabels, student: &Chat) -> Result<Lesson<S>> {
    Ok(Lesson { sequence: reading::text(prompt, student)?, said: S::default() })
}

/// What is known of the teacher at each row, the answers' tokens lesson after lesson; nothing where nothing is
/// said.
fn masses<'a>(lessons: &'a [&Lesson<Soft>]) -> Vec<&'a [(u32, f32)]> {
    let rows = |lesson: &'a &Lesson<Soft>| {
        let row = |at| lesson.said.get(at).map_or(&[][..], Vec::as_slice);
        (0..lesson.sequence.response_len()).map(row)
    };
    lessons.iter().flat_map(rows).collect()
}

/// The lessons, each with the place of its first row among the rows of all.
fn placed<'a, S>(lessons: &'a [&Lesson<S>]) -> impl Iterator<Item = (usize, &'a S)> {
    lessons.iter().scan(0, |rows, lesson| {
        let first = *rows;
        *rows += lesson.sequence.response_len();
        Some((first, &lesson.said))
    })
}
