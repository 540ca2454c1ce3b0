//! One prompt's labels beside the student's own tokens of the same answer.

use crate::Result;
use crate::align::Aligner;
use crate::labels::{Labels, Piece, PromptLabels};
use crate::teach::spans;
use uspx_domain::Digest;
use uspx_model::batch::Sequence;
use uspx_model::chat::{Answered, Chat};

/// A prompt, its answer and its labels, as a student reads them.
pub struct Reading<'a> {
    /// The labels that the prompt's are of.
    pub labels: &'a Labels,
    /// The prompt's.
    pub prompt: &'a PromptLabels,
    /// The student's tokenizer and template.
    pub student: &'a Chat,
    /// Whether both vocabularies are the same: ids then mean the same on both sides.
    pub is_equal: bool,
    answered: Answered,
    /// Byte spans of the student's response tokens; none where the labels say nothing about them.
    spans: Option<Vec<(u32, u32)>>,
}

impl<'a> Reading<'a> {
    /// Puts a prompt's labels beside the student's tokens; `vocabulary` is the digest of the
    /// student's own ([`crate::labels::vocabulary`]).
    ///
    /// # Errors
    /// A chat template that fails.
    pub fn of(
        labels: &'a Labels,
        prompt: &'a PromptLabels,
        student: &'a Chat,
        vocabulary: Digest,
    ) -> Result<Self> {
        let answered = tokens(prompt, student)?;
        let response = response(&answered.sequence);
        // A template may trim what the teacher's does not: then the two are not about the same
        // text.
        let same = answered.text == prompt.answer && !prompt.tokens.is_empty();
        let spans = spans(student, response, &answered).filter(|_| same);
        let is_equal = vocabulary == labels.vocabulary;
        Ok(Self { labels, prompt, student, is_equal, answered, spans })
    }

    /// The student's response tokens.
    pub fn response(&self) -> &[u32] {
        response(&self.answered.sequence)
    }

    /// Their byte spans; none where the labels say nothing about them: the teacher's tokens do not
    /// spell the answer, or the student's do not.
    pub fn spans(&self) -> Option<&[(u32, u32)]> {
        self.spans.as_deref()
    }

    /// Byte spans of the teacher's tokens.
    pub fn teacher_spans(&self) -> Vec<(u32, u32)> {
        self.prompt.tokens.iter().map(|token| (token.start, token.end)).collect()
    }

    /// The tokens of the prompt and its answer.
    pub fn into_sequence(self) -> Sequence {
        self.answered.sequence
    }

    /// Bytes that response token `at` spells before its part of the answer.
    pub fn lead_of(&self, at: usize) -> &[u8] {
        self.answered.lead_of(at)
    }

    /// The student's token that ends the turn.
    pub fn end(&self) -> Option<u32> {
        let own = self.response().last().filter(|id| self.student.ends().contains(id));
        own.or(self.student.ends().last()).copied()
    }

    /// Carries what the teacher says over to the student's tokens by bytes.
    pub fn aligner(&self) -> Option<Aligner<'_>> {
        let spans = self.spans()?;
        let Self { labels, prompt, student, answered, .. } = self;
        let (ids, end) = (self.response(), self.end());
        Some(Aligner { labels, prompt, student, ids, spans, answered, end })
    }

    /// What a candidate spells.
    pub fn piece(&self, piece: u32) -> Option<&'a Piece> {
        self.labels.piece(piece)
    }
}

/// The same without the teacher: the tokens of a prompt and its answer.
///
/// # Errors
/// A chat template that fails.
pub fn text(prompt: &PromptLabels, student: &Chat) -> Result<Sequence> {
    Ok(tokens(prompt, student)?.sequence)
}

fn response(sequence: &Sequence) -> &[u32] {
    sequence.ids.get(sequence.response_start..).unwrap_or_default()
}

/// Prompt and answer in the student's tokens; an answer that met its bound has no end of turn to
/// learn.
fn tokens(prompt: &PromptLabels, student: &Chat) -> Result<Answered> {
    let answered = student.answered(&prompt.prompt, &prompt.answer)?;
    Ok(if prompt.ended { answered } else { answered.without_end(student.ends()) })
}
