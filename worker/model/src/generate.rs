//! Answers: batches decode in lockstep over a key-value cache, greedily or sampled.

use crate::Result;
use crate::batch::{Batch, Sequence};
use crate::chat::{Bounds, Reader, Reply, ReplyPart};
use crate::loaded::LoadedModel;
use crate::sampling::Sampler;
use crate::taps::Taps;
use candle_core::{D, Tensor};
use uspx_domain::{Prompt, Skipped};

/// How the next token is chosen.
pub enum Choice {
    /// The most likely one.
    Greedy,
    /// Drawn.
    Sample(Box<Sampler>),
}

/// Below this the most likely token is drawn, as it is.
const LEAST_TEMPERATURE: f64 = 1e-7;

/// Draws tokens at a temperature, from a seed. At one that is nearly 0, numbers would leave their range.
pub fn sampler(seed: u64, temperature: f64) -> Choice {
    if temperature < LEAST_TEMPERATURE {
        return Choice::Greedy;
    }
    Choice::Sample(Box::new(Sampler::new(seed, temperature)))
}

/// Decodes an answer to each of `prompts` (sequences without an answer) within `bounds`.
///
/// `on_token(sequence, token, part)` is called as tokens come.
///
/// # Errors
/// Those of the tensor library and of the taps.
pub fn generate(
    model: &LoadedModel,
    prompts: &[&Sequence],
    bounds: Bounds,
    choice: &mut Choice,
    taps: &mut dyn Taps,
    on_token: &mut dyn FnMut(usize, u32, ReplyPart),
) -> Result<Vec<Reply>> {
    let readers = prompts.iter().map(|p| model.chat.reader(&p.ids, bounds)).collect();
    decode(model, prompts, readers, choice, taps, on_token)
}

/// Goes on with texts of any kind, at most `max_tokens` further: whatever comes until a token that
/// ends a turn.
///
/// # Errors
/// Those of the tensor library and of the taps.
pub fn go_on(
    model: &LoadedModel,
    texts: &[&Sequence],
    max_tokens: usize,
    choice: &mut Choice,
    taps: &mut dyn Taps,
) -> Result<Vec<Reply>> {
    let readers = texts.iter().map(|_| model.chat.plain_reader(max_tokens)).collect();
    decode(model, texts, readers, choice, taps, &mut |_, _, _| {})
}

fn decode(
    model: &LoadedModel,
    prompts: &[&Sequence],
    readers: Vec<Reader<'_>>,
    choice: &mut Choice,
    taps: &mut dyn Taps,
    on_token: &mut dyn FnMut(usize, u32, ReplyPart),
) -> Result<Vec<Reply>> {
    let transformer = &model.transformer;
    let batch = Batch::new(prompts)?;
    let mut caches = transformer.kv_cache();
    let frame = transformer.frame(&batch)?;
    let layers = 0..transformer.layers();
    let x = transformer.run(
        layers.clone(),
        transformer.embed(&batch.ids)?,
        &frame,
        Some(&mut caches),
        taps,
    )?;
    let mut logits = transformer.logits(&x, &batch.last_rows())?;

    let mut decoding = Decoding::new(&batch, readers);
    while !decoding.done() {
        let next = pick(&logits, choice)?;
        decoding.take(&next, on_token);
        if decoding.done() {
            break;
        }
        let frame = transformer.step_frame(&decoding.positions, &decoding.seen)?;
        let x = transformer.run(
            layers.clone(),
            transformer.embed(&next)?,
            &frame,
            Some(&mut caches),
            taps,
        )?;
        decoding.advance();
        let rows: Vec<u32> = (0..next.len() as u32).collect();
        logits = transformer.logits(&x, &rows)?;
    }
    Ok(decoding.readers.into_iter().map(Reader::finish).collect())
}

/// Where each sequence of a lockstep stands.
struct Decoding<'a> {
    /// Position of the token about to be run.
    positions: Vec<u32>,
    /// Positions of the cached keys; padding is `None`.
    seen: Vec<Vec<Option<u32>>>,
    readers: Vec<Reader<'a>>,
}

impl<'a> Decoding<'a> {
    fn new(batch: &Batch, readers: Vec<Reader<'a>>) -> Self {
        let width = batch.lengths.iter().copied().max().unwrap_or(0);
        let row = |l: &usize| (0..width).map(|p| (p < *l).then_some(p as u32)).collect();
        Self {
            positions: batch.lengths.iter().map(|l| *l as u32).collect(),
            seen: batch.lengths.iter().map(row).collect(),
            readers,
        }
    }

    fn take(&mut self, next: &[u32], on_token: &mut dyn FnMut(usize, u32, ReplyPart)) {
        for (at, (reader, token)) in
            self.readers.iter_mut().zip(next).enumerate().filter(|(_, (r, _))| !r.is_done())
        {
            on_token(at, *token, reader.take(*token));
        }
    }

    fn done(&self) -> bool {
        self.readers.iter().all(Reader::is_done)
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
        Choice::Sample(sampler) => {
            let rows = logits.dim(0)?;
            (0..rows).map(|row| sampler.draw(&logits.get(row)?)).collect()
        }
    }
}

/// Sequences decoded together by [`fill_references`] where weights are in memory.
const LOCKSTEP: usize = 32;

/// And where every step reads all of them from their file: the more answers share a step, the less
/// is read.
const LOCKSTEP_STREAMED: usize = 512;

/// Gives every prompt without a reference the model's own greedy answer, within `bounds`. One whose
/// answer never began keeps none, and is returned. At most `room` tokens run together.
///
/// # Errors
/// Those of [`generate`]; a stop by the keeper.
pub fn fill_references(
    model: &LoadedModel,
    prompts: &mut [Prompt],
    bounds: Bounds,
    room: usize,
    taps: &mut dyn Taps,
    progress: &dyn crate::Progress,
) -> Result<Vec<Skipped>> {
    let mut open: Vec<&mut Prompt> = prompts.iter_mut().filter(|p| p.reference.is_none()).collect();
    let asked: Vec<Sequence> =
        open.iter().map(|p| model.chat.sequence(p, None)).collect::<Result<_>>()?;
    let total = open.len() as u64;
    let (mut done, mut unfinished) = (0, Vec::new());
    let most = if model.transformer.is_streamed() { LOCKSTEP_STREAMED } else { LOCKSTEP };
    let (mut open, mut asked) = (open.as_mut_slice(), asked.as_slice());
    while !open.is_empty() {
        let together = together(asked, most, room);
        let (group, rest) = std::mem::take(&mut open).split_at_mut(together);
        let (now, later) = asked.split_at(together);
        (open, asked) = (rest, later);
        let now: Vec<&Sequence> = now.iter().collect();
        let answers = generate(model, &now, bounds, &mut Choice::Greedy, taps, &mut |_, _, _| {})?;
        for (prompt, answer) in group.iter_mut().zip(answers) {
            match answer.skip_reason() {
                Some(reason) => unfinished.push(Skipped { id: prompt.id.clone(), reason }),
                None => prompt.reference = Some(model.chat.answer_text(&answer.ids)),
            }
        }
        done += group.len() as u64;
        progress.report(done, total)?;
    }
    Ok(unfinished)
}

/// How many of the first sequences begin together: at most `most`, of at most `room` tokens, but
/// one at least.
fn together(sequences: &[Sequence], most: usize, room: usize) -> usize {
    let mut tokens = 0;
    let fits = |s: &&Sequence| {
        tokens += s.ids.len();
        tokens <= room
    };
    sequences.iter().take(most).take_while(fits).count().max(1).min(sequences.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_begin_together_as_far_as_there_is_room() {
        let all: Vec<Sequence> =
            [5, 9, 4, 30].map(|n| Sequence { ids: vec![0; n], response_start: n }).into();
        assert_eq!(together(&all, 512, 18), 3);
        assert_eq!(together(&all, 2, 18), 2);
        assert_eq!(together(&all, 512, 1), 1);
        assert_eq!(together(&all, 512, usize::MAX), 4);
    }
}
