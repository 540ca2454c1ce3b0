//! The teacher labels prompts: its probabilities along each answer.

use crate::answers::{Given, answers};
use crate::labels::{Labels, Piece, PromptLabels, TokenLabel, piece_of, vocabulary};
use crate::{DistillError, Result, codec};
use candle_core::Tensor;
use half::f16;
use std::collections::HashMap;
use uspx_domain::{Mask, Prompt, Skipped};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::chat::{Answered, Bounds, Chat};
use uspx_model::cuts::CutTaps;
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, Progress, batches, loss};

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
/// A mask that does not fit, a `top_k` of zero or beyond the format's bound, or what the model and
/// the progress say.
pub fn make_labels(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    top_k: u32,
    (bounds, room): (Bounds, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    if top_k == 0 || top_k > codec::MAX_TOP_K {
        return Err(DistillError::Recipe(format!(
            "top_k is {top_k}, 1 to {} are possible",
            codec::MAX_TOP_K
        )));
    }
    let mut taps = match mask {
        Some(mask) => teacher.cut_of_mask(mask)?,
        None => CutTaps::default(),
    };
    let (given, skipped) = answers(teacher, prompts, (bounds, room), &mut taps, progress)?;
    let mut labeller = Labeller {
        chat: &teacher.chat,
        top_k: top_k as usize,
        room,
        pieces: Vec::new(),
        place: HashMap::new(),
    };
    let labelled = labeller.label(teacher, given, &mut taps, progress)?;
    let labels = Labels {
        teacher: teacher.fingerprint,
        vocabulary: vocabulary(&teacher.chat),
        pieces: labeller.pieces,
        prompts: labelled,
    };
    Ok((labels, skipped))
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

fn labels_of(given: Given, tokens: Vec<TokenLabel>) -> PromptLabels {
    let Given { prompt, answer, ended, reasoning } = given;
    PromptLabels { prompt, answer: answer.text, ended, reasoning, tokens }
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
