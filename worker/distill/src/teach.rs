//! The teacher labels answers: its probabilities along each of them.

use crate::Result;
use crate::keeping::{Keeper, Keeping, Kept};
use crate::labels::{Labels, Piece, PromptLabels, TokenLabel, piece_of, vocabulary};
use crate::masked::taps_of;
use crate::on_policy::Own;
use candle_core::Tensor;
use std::collections::HashMap;
use std::iter::repeat_n;
use uspx_domain::{Mask, SkipReason, Skipped};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::chat::{Answered, Chat};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, ModelError, Progress, batches, loss};

/// Padded tokens per batch of whole sequences.
const BATCH_TOKENS: usize = 2048;

/// Labels `answers`, whatever labels they have, by the teacher, masked where `mask` is given: `keeping`
/// of what it says at each place. What it cannot run is left out: the second part of the result. At most
/// `room` tokens run together. `progress` counts answers.
///
/// # Errors
/// A mask that does not fit, what labels cannot hold ([`Keeping::check`]), or what the model and the
/// progress say.
pub fn label(
    teacher: &LoadedModel,
    answers: Vec<PromptLabels>,
    mask: Option<&Mask>,
    (keeping, room): (Keeping, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    keeping.check()?;
    let (mut given, mut skipped) = (Vec::new(), Vec::new());
    for text in answers {
        let id = text.prompt.id.clone();
        match read(teacher, text)? {
            Ok(answer) => given.push(answer),
            Err(reason) => skipped.push(Skipped { id, reason }),
        }
    }
    let mut taps = taps_of(teacher, mask)?;
    let mut labeller =
        Labeller { chat: &teacher.chat, keeping, room, pieces: Vec::new(), place: HashMap::new() };
    let prompts = labeller.label(teacher, given, &mut taps, progress)?;
    let (teacher, vocabulary) = (teacher.fingerprint, vocabulary(&teacher.chat));
    Ok((Labels { teacher, vocabulary, pieces: labeller.pieces, prompts }, skipped))
}

/// Labels answers that a student gave by the teacher, masked where `mask` is given: what it would
/// have said in the student's place, token by token, the `top_k` likeliest tokens of it. (Not drawn
/// ones: reverse KL needs the teacher's value of what the student finds likely.) An answer that met its
/// bound has no end to be judged. Answers without text, and those that the teacher cannot run, are left
/// out: they are the second part of the result. `progress` counts answers.
///
/// # Errors
/// As [`label`].
pub fn label_own(
    teacher: &LoadedModel,
    own: &[Own],
    mask: Option<&Mask>,
    (top_k, room): (u32, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    let answers = own.iter().cloned().map(|Own { prompt, answer, ended }| PromptLabels {
        ended,
        ..PromptLabels::text(prompt, answer)
    });
    label(teacher, answers.collect(), mask, (Keeping::Likeliest(top_k), room), progress)
}

/// An answer to label, as text and in the teacher's tokens.
struct Given {
    text: PromptLabels,
    answer: Answered,
}

/// Prompt and answer in the teacher's tokens, or why it cannot run them.
fn read(
    teacher: &LoadedModel,
    text: PromptLabels,
) -> Result<std::result::Result<Given, SkipReason>> {
    if text.answer.trim().is_empty() {
        return Ok(Err(SkipReason::Empty));
    }
    let answered = of_this_prompt(teacher.chat.answered(&text.prompt, &text.answer))?;
    Ok(answered.and_then(|answer| {
        teacher.check_context(&answer.sequence)?;
        let answer = if text.ended { answer } else { answer.without_end(teacher.chat.ends()) };
        Ok(Given { text, answer })
    }))
}

/// Tells a prompt's own trouble from other errors.
fn of_this_prompt<T>(result: uspx_model::Result<T>) -> Result<std::result::Result<T, SkipReason>> {
    result.map(Ok).or_else(|error: ModelError| match error.skip_reason() {
        Some(reason) => Ok(Err(reason)),
        None => Err(error.into()),
    })
}

struct Labeller<'a> {
    chat: &'a Chat,
    keeping: Keeping,
    /// Tokens that there is memory for at once.
    room: usize,
    pieces: Vec<(u32, Piece)>,
    /// By id, and what is taken off its front.
    place: HashMap<(u32, Vec<u8>), u32>,
}

impl Labeller<'_> {
    /// Teacher-forces every answer.
    fn label(
        &mut self,
        teacher: &LoadedModel,
        given: Vec<Given>,
        taps: &mut dyn Taps,
        progress: &dyn Progress,
    ) -> Result<Vec<PromptLabels>> {
        let sequences: Vec<Sequence> = given.iter().map(|g| g.answer.sequence.clone()).collect();
        let total = given.len() as u64;
        let mut tokens = vec![Vec::new(); given.len()];
        let mut done = 0;
        for (group, batch) in batches(&sequences, BATCH_TOKENS.min(self.room))? {
            let frame = teacher.transformer.frame(&batch)?;
            let x = teacher.transformer.forward(&batch, &frame, taps)?;
            let answers = group.iter().filter_map(|at| given.get(*at));
            let keepers = answers.map(|given| self.keeping.of(&given.text)).collect();
            let mut rows = kept(teacher, (&x, &batch), keepers)?.into_iter();
            let mut row = 0;
            for (at, count) in group.iter().zip(&batch.responses) {
                let targets = batch.targets.get(row..row + count).unwrap_or_default();
                let own: Vec<Kept> = rows.by_ref().take(*count).collect();
                if let Some((place, given)) = tokens.get_mut(*at).zip(given.get(*at)) {
                    *place = self.tokens(own, targets, &given.answer);
                }
                row += count;
            }
            done += group.len() as u64;
            progress.report(done, total)?;
        }
        Ok(given.into_iter().zip(tokens).map(|(given, tokens)| labels_of(given, tokens)).collect())
    }

    /// Labels of one answer's tokens; none where the tokens do not spell the answer.
    fn tokens(&mut self, rows: Vec<Kept>, targets: &[u32], answer: &Answered) -> Vec<TokenLabel> {
        let Some(spans) = spans(self.chat, targets, answer) else { return Vec::new() };
        let mut labels = Vec::with_capacity(targets.len());
        let all = rows.into_iter().zip(targets).zip(spans).enumerate();
        for (at, ((kept, target), (start, end))) in all {
            // What the first token spells before the answer is no part of any candidate's text
            // either.
            let lead = answer.lead_of(at);
            let top = kept.top.into_iter().map(|(id, l)| (self.piece(id, lead), l)).collect();
            let piece = self.piece(*target, lead);
            let (log_prob, tail) = (kept.own, kept.tail);
            labels.push(TokenLabel { piece, start, end, log_prob, top, tail });
        }
        labels
    }

    fn piece(&mut self, id: u32, lead: &[u8]) -> u32 {
        let next = self.pieces.len() as u32;
        let place = *self.place.entry((id, lead.to_vec())).or_insert(next);
        if place == next {
            self.pieces.push((id, behind(piece_of(self.chat, id), lead)));
        }
        place
    }
}

/// What is kept of each predicting row of a batch, a keeper for each of its answers. Of a large
/// vocabulary, the logits of all rows at once would not fit into the memory.
fn kept(
    teacher: &LoadedModel,
    (x, batch): (&Tensor, &Batch),
    mut keepers: Vec<Keeper>,
) -> Result<Vec<Kept>> {
    let mut found = Vec::with_capacity(batch.targets.len());
    let mut whose = (0..).zip(&batch.responses).flat_map(|(at, rows)| repeat_n(at, *rows));
    for part in teacher.transformer.logit_chunks(batch) {
        let rows = batch.predicting.get(part.clone()).unwrap_or_default();
        let targets = batch.targets.get(part).unwrap_or_default();
        let log_probs = loss::log_softmax(&teacher.transformer.logits(x, rows)?)?;
        let rows: Vec<Vec<f32>> = log_probs.to_vec2()?;
        for ((row, target), at) in rows.iter().zip(targets).zip(&mut whose) {
            found.extend(keepers.get_mut(at).map(|keeper: &mut Keeper| keeper.keep(row, *target)));
        }
    }
    Ok(found)
}

/// What a token spells behind `lead`; one that does not begin so stands for no text of the answer.
fn behind(piece: Piece, lead: &[u8]) -> Piece {
    match piece {
        Piece::Text(bytes) => {
            bytes.strip_prefix(lead).map_or(Piece::Control, |rest| Piece::Text(rest.to_vec()))
        }
        other => other,
    }
}

fn labels_of(Given { text, answer }: Given, tokens: Vec<TokenLabel>) -> PromptLabels {
    PromptLabels { answer: answer.text, tokens, ..text }
}

/// Byte spans of `tokens` in the answer's text, the end of the turn having an empty one; `None`
/// where they do not spell it.
pub(crate) fn spans(chat: &Chat, tokens: &[u32], answer: &Answered) -> Option<Vec<(u32, u32)>> {
    let text = answer.text.as_bytes();
    let mut at = 0;
    let mut spans = Vec::with_capacity(tokens.len());
    for (i, &id) in tokens.iter().enumerate() {
        let length = match behind(piece_of(chat, id), answer.lead_of(i)) {
            Piece::Text(bytes) if !bytes.is_empty() && text.get(at..)?.starts_with(&bytes) => {
                bytes.len()
            }
            Piece::End if i + 1 == tokens.len() => 0,
            _ => return None,
        };
        spans.push((at as u32, (at + length) as u32));
        at += length;
    }
    (at == text.len()).then_some(spans)
}
