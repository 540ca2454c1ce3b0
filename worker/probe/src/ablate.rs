//! Losses under many cuts.
//!
//! All cuts go through the layers together: a layer is taken once, runs the clean batch, and then,
//! in stacks of as many rows as fit, everything that was cut before it, against the clean keys and
//! values. Of a cut only the rows run that it reaches and that a response token depends on
//! ([`uspx_model::branch`]); in its own layer only what it changes is computed anew.

mod features;
mod losses;
mod patch;
mod seen;
mod stack;
mod wave;

pub(crate) use patch::{HeadBaseline, Patch};

use crate::Result;
use crate::batching::each_batch;
use crate::evaluate::{loss_row, scatter};
use uspx_domain::{Cut, LossRow};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::{LoadedModel, Progress, Readable};

/// Runs every cut on every prompt: the first row without a cut, then one row per cut, in order.
///
/// Experts are banned at the router and their tokens re-routed; heads and channels are zeroed at
/// all positions; features are taken from the stream along their directions.
///
/// # Errors
/// A cut that does not fit the model; those of the model; a stop by the keeper.
pub fn ablate(
    model: &LoadedModel,
    prompts: &Readable,
    cuts: &[Cut],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<LossRow>> {
    let nats = ablate_sequences(model, &prompts.sequences, cuts, batch_tokens, progress)?;
    Ok(nats.iter().map(|row| loss_row(prompts, row)).collect())
}

/// The same on sequences: summed nats, `[1 + cuts][sequences]`.
///
/// # Errors
/// As [`ablate`].
pub fn ablate_sequences(
    model: &LoadedModel,
    sequences: &[Sequence],
    cuts: &[Cut],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    let patches: Vec<Patch> =
        cuts.iter().map(|cut| Patch::of_cut(cut, model)).collect::<Result<_>>()?;
    patched((model, sequences, None), &patches, batch_tokens, progress)
}

/// The same of any patches. Where heads are resampled, each sequence takes them from the one of its
/// length that `sources` names.
///
/// # Errors
/// Those of the model; a stop by the keeper.
pub(crate) fn patched(
    (model, sequences, sources): (&LoadedModel, &[Sequence], Option<&[usize]>),
    patches: &[Patch],
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    let mut rows = vec![vec![0.0; sequences.len()]; patches.len() + 1];
    // The clean batch and a stack of branches are there at the same time.
    let mut at_once = (batch_tokens / 2).max(1);
    let steps = wave::steps(model, patches);
    let (mut done, total) = (0, steps * sequences.len() as u64);
    // Whom a batch is resampled from comes with it, so that it may be twice as long.
    let tokens = if sources.is_some() { at_once.div_ceil(2) } else { at_once };
    each_batch(sequences, tokens, Batch::sharing, &mut |members, batch| {
        let mut report = |steps: u64| progress.report(done + steps * members.len() as u64, total);
        let found = match sources {
            None => wave::all((model, batch, None), patches, at_once, &mut report),
            Some(sources) => {
                let (batch, rows) = with_sources(sequences, members, sources)?;
                wave::all((model, &batch, Some(&rows)), patches, at_once, &mut report)
            }
        };
        if found.as_ref().is_err_and(uspx_model::ModelError::is_out_of_memory) {
            at_once = (at_once / 2).max(1);
        }
        for (row, nats) in rows.iter_mut().zip(found?) {
            scatter(row, members, &nats);
        }
        done += steps * members.len() as u64;
        progress.report(done, total)
    })?;
    Ok(rows)
}

/// A batch of some sequences, with those behind them that they take from, which have no response
/// there; and for each row the one that it takes from.
fn with_sources(
    sequences: &[Sequence],
    members: &[usize],
    sources: &[usize],
) -> Result<(Batch, Vec<u32>)> {
    let mut numbers = members.to_vec();
    let giver = |member: &usize| sources.get(*member).copied();
    numbers.extend(members.iter().filter_map(giver).filter(|giver| !members.contains(giver)));
    let silent = |sequence: &Sequence| Sequence {
        response_start: sequence.ids.len(),
        ids: sequence.ids.clone(),
    };
    let all: Vec<Sequence> = numbers
        .iter()
        .enumerate()
        .filter_map(|(at, number)| {
            let sequence = sequences.get(*number)?;
            Some(if at < members.len() { sequence.clone() } else { silent(sequence) })
        })
        .collect();
    // Rows that are shared would take from several.
    let batch = Batch::new(&all.iter().collect::<Vec<_>>())?;
    let mut rows: Vec<u32> = (0..batch.tokens() as u32).collect();
    for (member, span) in members.iter().zip(&batch.spans) {
        let source = giver(member).and_then(|giver| numbers.iter().position(|n| *n == giver));
        let Some(source) = source.and_then(|at| batch.spans.get(at)) else { continue };
        for (row, from) in span.queries.clone().zip(source.queries.clone()) {
            rows.get_mut(row as usize).into_iter().for_each(|place| *place = from);
        }
    }
    Ok((batch, rows))
}
