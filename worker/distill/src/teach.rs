//! The teacher labels prompts: its answer where there is no reference, and its probabilities along the answer.

use crate::labels::{Labels, Piece, PromptLabels, TokenLabel, piece_of, vocabulary};
use crate::{DistillError, Result, codec};
use candle_core::Tensor;
use half::f16;
use std::collections::HashMap;
use uspx_domain::{Mask, Prompt};
use uspx_model::batch::{Sequence, pack};
use uspx_model::chat::Chat;
use uspx_model::cuts::CutTaps;
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::Taps;
use uspx_model::{LoadedModel, Pulse, batches, loss};

/// Padded tokens per batch of whole sequences.
const BATCH_TOKENS: usize = 2048;
/// Padded tokens per batch that decodes in lockstep: each step runs one token of each.
const LOCKSTEP_TOKENS: usize = 8192;

/// Labels `prompts` by the teacher, masked where `mask` is given, keeping the `top_k` likeliest tokens at each place.
///
/// The answer to learn is the prompt's reference, or else the teacher's greedy answer of at most `max_new_tokens`
/// (prompts to which it answers nothing are left out). `pulse` counts prompts.
///
/// # Errors
/// A mask that does not fit, a `top_k` of zero or beyond the format's bound, or what the model and the pulse say.
pub fn make_labels(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    top_k: u32,
    max_new_tokens: u32,
    pulse: &dyn Pulse,
) -> Result<Labels> {
    if top_k == 0 || top_k > codec::MAX_TOP_K {
        return Err(DistillError::Recipe(format!("top_k is {top_k}, 1 to {} are possible", codec::MAX_TOP_K)));
    }
    let shape = teacher.shape();
    let device = teacher.transformer.device();
    let mut taps = match mask {
        Some(mask) => CutTaps::of_mask(mask, &shape, device)?,
        None => CutTaps::default(),
    };
    let answers = answers(teacher, prompts, max_new_tokens as usize, &mut taps, pulse)?;
    let mut labeller =
        Labeller { chat: &teacher.chat, top_k: top_k as usize, pieces: Vec::new(), place: HashMap::new() };
    let labelled = labeller.label(teacher, answers, &mut taps, pulse)?;
    Ok(Labels {
        teacher: teacher.fingerprint,
        vocabulary: vocabulary(&teacher.chat),
        pieces: labeller.pieces,
        prompts: labelled,
    })
}

/// A prompt and the answer to learn.
struct Answered {
    prompt: Prompt,
    text: String,
    ended: bool,
}

fn answers(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    max_tokens: usize,
    taps: &mut dyn Taps,
    pulse: &dyn Pulse,
) -> Result<Vec<Answered>> {
    let unanswered: Vec<&Prompt> = prompts.iter().filter(|p| p.reference.is_none()).collect();
    let mut generated = greedy(teacher, &unanswered, max_tokens, taps, pulse)?.into_iter();
    let mut answered = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let (text, ended) = match &prompt.reference {
            Some(reference) => (reference.clone(), true),
            None => generated.next().unwrap_or_default(),
        };
        if !text.trim().is_empty() {
            answered.push(Answered { prompt: prompt.clone(), text, ended });
        }
    }
    Ok(answered)
}

/// The greedy answer to each prompt, and whether it ended. Prompts of like length decode in lockstep.
fn greedy(
    teacher: &LoadedModel,
    prompts: &[&Prompt],
    max_tokens: usize,
    taps: &mut dyn Taps,
    pulse: &dyn Pulse,
) -> Result<Vec<(String, bool)>> {
    let open = |p: &&Prompt| teacher.chat.sequence(p, None);
    let sequences = prompts.iter().map(open).collect::<uspx_model::Result<Vec<Sequence>>>()?;
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len() + max_tokens).collect();
    let mut out = vec![(String::new(), false); prompts.len()];
    let mut done = 0;
    for group in pack(&lengths, LOCKSTEP_TOKENS) {
        let members: Vec<&Sequence> = group.iter().filter_map(|i| sequences.get(*i)).collect();
        let answers = generate(teacher, &members, max_tokens, &mut Choice::Greedy, taps, &mut |_, _| {})?;
        for (at, answer) in group.iter().zip(answers) {
            if let Some(place) = out.get_mut(*at) {
                *place = (teacher.chat.decode(&answer.ids)?, answer.ended);
            }
        }
        done += group.len();
        pulse.beat(done as u64, 2 * prompts.len() as u64)?;
    }
    Ok(out)
}

struct Labeller<'a> {
    chat: &'a Chat,
    top_k: usize,
    pieces: Vec<(u32, Piece)>,
    place: HashMap<u32, u32>,
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
        answered: Vec<Answered>,
        taps: &mut dyn Taps,
        pulse: &dyn Pulse,
    ) -> Result<Vec<PromptLabels>> {
        let tokens = |a: &Answered| {
            let mut sequence = self.chat.sequence(&a.prompt, Some(&a.text))?;
            if !a.ended {
                sequence.ids.pop();
            }
            Ok(sequence)
        };
        let sequences = answered.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let total = answered.len() as u64;
        let mut labels: Vec<PromptLabels> = answered.into_iter().map(without_tokens).collect();
        let mut done = 0;
        for (group, batch) in batches(&sequences, BATCH_TOKENS)? {
            let frame = teacher.transformer.frame(&batch)?;
            let x = teacher.transformer.forward(&batch, &frame, taps)?;
            let log_probs = loss::log_softmax(&teacher.transformer.logits(&x, &batch.predicting)?)?;
            let mut row = 0;
            for (at, count) in group.iter().zip(&batch.responses) {
                let targets = batch.targets.get(row..row + count).unwrap_or_default();
                if let Some(label) = labels.get_mut(*at) {
                    label.tokens = self.tokens(&log_probs.narrow(0, row, *count)?, targets, &label.answer)?;
                }
                row += count;
            }
            done += group.len() as u64;
            pulse.beat(done, total)?;
        }
        Ok(labels)
    }

    /// Labels of one answer's tokens; none where the tokens do not spell the answer.
    fn tokens(&mut self, log_probs: &Tensor, targets: &[u32], answer: &str) -> Result<Vec<TokenLabel>> {
        let spans = spans(self.chat, targets, answer.as_bytes());
        let Some(spans) = spans else { return Ok(Vec::new()) };
        let rows: Vec<Vec<f32>> = log_probs.to_vec2()?;
        let each = |((row, target), (start, end)): ((&Vec<f32>, &u32), (u32, u32))| {
            let probs = largest(row, *target, self.top_k);
            let top = probs.top.into_iter().map(|(id, l)| (self.piece(id), l)).collect();
            TokenLabel { piece: self.piece(*target), start, end, log_prob: probs.own, top, tail: probs.tail }
        };
        Ok(rows.iter().zip(targets).zip(spans).map(each).collect())
    }

    fn piece(&mut self, id: u32) -> u32 {
        let next = self.pieces.len() as u32;
        let place = *self.place.entry(id).or_insert(next);
        if place == next {
            self.pieces.push((id, piece_of(self.chat, id)));
        }
        place
    }
}

fn without_tokens(answered: Answered) -> PromptLabels {
    PromptLabels { prompt: answered.prompt, answer: answered.text, ended: answered.ended, tokens: Vec::new() }
}

/// Byte spans of `tokens` in `answer`, the end of the turn having an empty one; `None` where they do not spell it.
pub(crate) fn spans(chat: &Chat, tokens: &[u32], answer: &[u8]) -> Option<Vec<(u32, u32)>> {
    let mut at = 0;
    let mut spans = Vec::with_capacity(tokens.len());
    for (i, &id) in tokens.iter().enumerate() {
        let length = match piece_of(chat, id) {
            Piece::Text(bytes) if !bytes.is_empty() && answer.get(at..)?.starts_with(&bytes) => bytes.len(),
            Piece::End if i + 1 == tokens.len() => 0,
            _ => return None,
        };
        spans.push((at as u32, (at + length) as u32));
        at += length;
    }
    (at == answer.len()).then_some(spans)
}

/// The `k` largest log-probabilities of a row, largest first (of equals, the lower id), rounded as they are stored.
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
    RowProbs { own: row.get(own as usize).copied().unwrap_or(f32::NEG_INFINITY), top, tail: tail.min(1.0) as f32 }
}
