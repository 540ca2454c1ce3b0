//! The teacher labels answers: its probabilities along each of them.

use crate::answers::{Asking, Sampling, Target, answers};
use crate::labels::{Labels, Piece, PromptLabels, TokenLabel, piece_of, vocabulary};
use crate::masked::taps_of;
use crate::on_policy::Own;
use crate::stages::Stage;
use crate::{DistillError, Result, codec};
use candle_core::Tensor;
use half::f16;
use std::collections::HashMap;
use uspx_domain::{Mask, Prompt, SkipReason, Skipped};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::chat::{Answered, Bounds, Chat};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, ModelError, Progress, batches, loss};

/// Padded tokens per batch of whole sequences.
const BATCH_TOKENS: usize = 2048;

/// Labels `prompts` by the teacher, masked where `mask` is given, keeping the `top_k` likeliest
/// tokens at each place.
///
/// The answer to learn is the prompt's reference, or else the teacher's greedy answer within
/// `bounds`. Prompts to which it answers nothing, whose reasoning met its bound before an answer,
/// or that it cannot run are left out: they are the second part of the result. At most `room`
/// tokens run together. `progress` counts prompts.
///
/// # Errors
/// As [`label`].
pub fn make_labels(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    top_k: u32,
    (bounds, room): (Bounds, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    check_top_k(top_k)?;
    let how = Asking { target: Target::Reference, sampling: Sampling::NONE, bounds, room };
    let parts = 1 + u64::from(prompts.iter().any(|p| how.target.asks(p)));
    let stage = |before| Stage { all: progress, before, parts };
    let (all, mut skipped) = answers(teacher, prompts, mask, &how, &stage(0))?;
    let lessons = all.into_iter().flat_map(|answers| answers.targets).collect();
    let (labels, more) = label(teacher, lessons, mask, (top_k, room), &stage(parts - 1))?;
    skipped.extend(more);
    let places: HashMap<&str, usize> = prompts.iter().map(|p| p.id.as_str()).zip(0..).collect();
    skipped.sort_by_key(|s| places.get(s.id.as_str()));
    Ok((labels, skipped))
}

/// Labels `answers`, whatever labels they have, by the teacher, masked where `mask` is given, keeping
/// the `top_k` likeliest tokens at each place. What it cannot run is left out: the second part of the
/// result. At most `room` tokens run together. `progress` counts answers.
///
/// # Errors
/// A mask that does not fit, a `top_k` of zero or beyond the format's bound, or what the model and
/// the progress say.
pub fn label(
    teacher: &LoadedModel,
    answers: Vec<PromptLabels>,
    mask: Option<&Mask>,
    (top_k, room): (u32, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    check_top_k(top_k)?;
    let (mut given, mut skipped) = (Vec::new(), Vec::new());
    for text in answers {
        let id = text.prompt.id.clone();
        match read(teacher, text)? {
            Ok(answer) => given.push(answer),
            Err(reason) => skipped.push(Skipped { id, reason }),
        }
    }
    let mut taps = taps_of(teacher, mask)?;
    let mut labeller = Labeller {
        chat: &teacher.chat,
        top_k: top_k as usize,
        room,
        pieces: Vec::new(),
        place: HashMap::new(),
    };
    let prompts = labeller.label(teacher, given, &mut taps, progress)?;
    let (teacher, vocabulary) = (teacher.fingerprint, vocabulary(&teacher.chat));
    Ok((Labels { teacher, vocabulary, pieces: labeller.pieces, prompts }, skipped))
}

/// Labels answers that a student gave by the teacher, masked where `mask` is given: what it would
/// have said in the student's place, token by token. An answer that met its bound has no end to be
/// judged. Answers without text, and those that the teacher cannot run, are left out: they are the
/// second part of the result. `progress` counts answers.
///
/// # Errors
/// As [`label`].
pub fn label_own(
    teacher: &LoadedModel,
    own: &[Own],
    mask: Option<&Mask>,
    how: (u32, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    let answers = own.iter().cloned().map(|Own { prompt, answer, ended }| PromptLabels {
        ended,
        ..PromptLabels::text(prompt, answer)
    });
    label(teacher, answers.collect(), mask, how, progress)
}

/// Refuses a number of kept probabilities that labels cannot hold.
///
/// # Errors
/// It is zero, or beyond the format's bound.
pub fn check_top_k(top_k: u32) -> Result<()> {
    if (1..=codec::MAX_TOP_K).contains(&top_k) {
        return Ok(());
    }
    Err(DistillError::Recipe(format!("top_k is {top_k}, 1 to {} are possible", codec::MAX_TOP_K)))
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
    top_k: usize,
    /// Tokens that there is memory for at once.
    room: usize,
    pieces: Vec<(u32, Piece)>,
    /// By id, and what is taken off its front.
    place: HashMap<(u32, Vec<u8>), u32>,
}

/// Log-probabilities of one row: the token's own, the largest, and the rest's probability.
struct RowProbs {
    own: f32,
    top: Vec<(u32, f32)>,
    tail: f32,
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
            let mut rows = self.likeliest(teacher, &x, &batch)?.into_iter();
            let mut row = 0;
            for (at, count) in group.iter().zip(&batch.responses) {
                let targets = batch.targets.get(row..row + count).unwrap_or_default();
                let own: Vec<RowProbs> = rows.by_ref().take(*count).collect();
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

    /// What each predicting row of a batch says of its target and of the likeliest tokens. Of a
    /// large vocabulary, the logits of all rows at once would not fit into the memory.
    fn likeliest(&self, teacher: &LoadedModel, x: &Tensor, batch: &Batch) -> Result<Vec<RowProbs>> {
        let mut found = Vec::with_capacity(batch.targets.len());
        for part in teacher.transformer.logit_chunks(batch) {
            let rows = batch.predicting.get(part.clone()).unwrap_or_default();
            let targets = batch.targets.get(part).unwrap_or_default();
            let log_probs = loss::log_softmax(&teacher.transformer.logits(x, rows)?)?;
            let rows: Vec<Vec<f32>> = log_probs.to_vec2()?;
            let each = rows.iter().zip(targets);
            found.extend(each.map(|(row, target)| largest(row, *target, self.top_k)));
        }
        Ok(found)
    }

    /// Labels of one answer's tokens; none where the tokens do not spell the answer.
    fn tokens(
        &mut self,
        rows: Vec<RowProbs>,
        targets: &[u32],
        answer: &Answered,
    ) -> Vec<TokenLabel> {
        let Some(spans) = spans(self.chat, targets, answer) else { return Vec::new() };
        let mut labels = Vec::with_capacity(targets.len());
        let all = rows.into_iter().zip(targets).zip(spans).enumerate();
        for (at, ((probs, target), (start, end))) in all {
            // What the first token spells before the answer is no part of any candidate's text
            // either.
            let lead = answer.lead_of(at);
            let top = probs.top.into_iter().map(|(id, l)| (self.piece(id, lead), l)).collect();
            let piece = self.piece(*target, lead);
            labels.push(TokenLabel {
                piece,
                start,
                end,
                log_prob: probs.own,
                top,
                tail: probs.tail,
            });
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

/// The `k` largest log-probabilities of a row, largest first (of equals, the lower id), rounded as
/// they are stored.
fn largest(row: &[f32], own: u32, k: usize) -> RowProbs {
    let mut order: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    let rank = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < order.len() {
        order.select_nth_unstable_by(k, rank);
    }
    let rest = order.split_off(k.min(order.len()));
    order.sort_by(rank);
    let tail: f64 = rest.iter().map(|(_, l)| f64::from(*l).exp()).sum();
    // A vector of its own: collected in place it would keep the whole vocabulary's memory.
    let mut top = Vec::with_capacity(order.len());
    top.extend(order.iter().map(|(id, l)| (*id, f16::from_f32(*l).to_f32())));
    RowProbs {
        own: row.get(own as usize).copied().unwrap_or(f32::NEG_INFINITY),
        top,
        tail: tail.min(1.0) as f32,
    }
}
