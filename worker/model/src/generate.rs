//! Answers: batches decode in lockstep over a key-value cache, greedily or sampled.

use crate::Result;
use crate::batch::{Batch, Sequence};
use crate::loaded::LoadedModel;
use crate::taps::Taps;
use candle_core::{D, Tensor};
use candle_transformers::generation::LogitsProcessor;

/// How the next token is chosen.
pub enum Choice {
    /// The most likely one.
    Greedy,
    /// Drawn; the processor holds temperature, top-p and seed.
    Sample(Box<LogitsProcessor>),
}

/// Draws tokens at a temperature (above 0), from a seed.
pub fn sampler(seed: u64, temperature: f64) -> Choice {
    Choice::Sample(Box::new(LogitsProcessor::new(seed, Some(temperature), None)))
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its tokens, the end-of-turn token left out.
    pub ids: Vec<u32>,
    /// Whether the model ended it (otherwise it met the bound).
    pub ended: bool,
}

/// Decodes an answer to each of `prompts` (sequences without an answer), at most `max_tokens` long.
///
/// `on_token(sequence, token)` is called as tokens come.
///
/// # Errors
/// Those of the tensor library and of the taps.
pub fn generate(
    model: &LoadedModel,
    prompts: &[&Sequence],
    max_tokens: usize,
    choice: &mut Choice,
    taps: &mut dyn Taps,
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Answer>> {
    let transformer = &model.transformer;
    let batch = Batch::new(prompts)?;
    let mut caches = transformer.kv_cache();
    let frame = transformer.frame(&batch)?;
    let layers = 0..transformer.layers();
    let x = transformer.run(layers.clone(), transformer.embed(&batch.ids)?, &frame, Some(&mut caches), taps)?;
    let mut logits = transformer.logits(&x, &batch.last_rows())?;

    let mut decoding = Decoding::new(&batch);
    for step in 1..=max_tokens {
        let next = pick(&logits, choice)?;
        decoding.take(&next, model.chat.ends(), on_token);
        if decoding.done() || step == max_tokens {
            break;
        }
        let frame = transformer.step_frame(&decoding.positions, &decoding.seen)?;
        let x = transformer.run(layers.clone(), transformer.embed(&next)?, &frame, Some(&mut caches), taps)?;
        decoding.advance();
        let rows: Vec<u32> = (0..next.len() as u32).collect();
        logits = transformer.logits(&x, &rows)?;
    }
    Ok(decoding.answers)
}

/// Where each sequence of a lockstep stands.
struct Decoding {
    /// Position of the token about to be run.
    positions: Vec<u32>,
    /// Positions of the cached keys; padding is `None`.
    seen: Vec<Vec<Option<u32>>>,
    answers: Vec<Answer>,
}

impl Decoding {
    fn new(batch: &Batch) -> Self {
        let width = batch.lengths.iter().copied().max().unwrap_or(0);
        let row = |l: &usize| (0..width).map(|p| (p < *l).then_some(p as u32)).collect();
        Self {
            positions: batch.lengths.iter().map(|l| *l as u32).collect(),
            seen: batch.lengths.iter().map(row).collect(),
            answers: vec![Answer { ids: Vec::new(), ended: false }; batch.lengths.len()],
        }
    }

    fn take(&mut self, next: &[u32], ends: &[u32], on_token: &mut dyn FnMut(usize, u32)) {
        for (at, (answer, token)) in self.answers.iter_mut().zip(next).enumerate() {
            if answer.ended {
                continue;
            }
            if ends.contains(token) {
                answer.ended = true;
            } else {
                answer.ids.push(*token);
                on_token(at, *token);
            }
        }
    }

    fn done(&self) -> bool {
        self.answers.iter().all(|a| a.ended)
    }

    fn advance(&mut self) {
        for (position, seen) in self.positions.iter_mut().zip(&mut self.seen) {
            seen.push(Some(*position));
            *position += 1;
        }
    }
}

fn pick(logits: &Tensor, choice: &mut Choice) -> Result<Vec<u32>> {
    match choice {
        Choice::Greedy => Ok(logits.argmax(D::Minus1)?.to_vec1()?),
        Choice::Sample(processor) => {
            let rows = logits.dim(0)?;
            (0..rows).map(|row| Ok(processor.sample(&logits.get(row)?)?)).collect()
        }
    }
}

/// Sequences decoded together by [`fill_references`] where weights are in memory.
const LOCKSTEP: usize = 32;

/// And where every step reads all of them from their file: the more answers share a step, the less is read.
const LOCKSTEP_STREAMED: usize = 512;

/// Gives every prompt without a reference the model's own greedy answer, at most `max_tokens` long.
///
/// # Errors
/// Those of [`generate`]; a stop by the keeper.
pub fn fill_references(
    model: &LoadedModel,
    prompts: &mut [uspx_domain::Prompt],
    max_tokens: usize,
    taps: &mut dyn Taps,
    pulse: &dyn crate::Pulse,
) -> Result<()> {
    let mut open: Vec<&mut uspx_domain::Prompt> = prompts.iter_mut().filter(|p| p.reference.is_none()).collect();
    let total = open.len() as u64;
    let mut done = 0;
    let together = if model.transformer.is_streamed() { LOCKSTEP_STREAMED } else { LOCKSTEP };
    for group in open.chunks_mut(together) {
        let asked: Vec<Sequence> = group.iter().map(|p| model.chat.sequence(p, None)).collect::<Result<_>>()?;
        let asked: Vec<&Sequence> = asked.iter().collect();
        let answers = generate(model, &asked, max_tokens, &mut Choice::Greedy, taps, &mut |_, _| {})?;
        for (prompt, answer) in group.iter_mut().zip(answers) {
            prompt.reference = Some(model.chat.decode(&answer.ids)?);
        }
        done += group.len() as u64;
        pulse.beat(done, total)?;
    }
    Ok(())
}
