//! The loss of each prompt's response, and how far another run diverges from it.

use crate::Result;
use crate::batching::each_batch;
use candle_core::Tensor;
use uspx_domain::{LossRow, PromptTokens};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::layers::frame::Frame;
use uspx_model::taps::Taps;
use uspx_model::transformer::Transformer;
use uspx_model::{LoadedModel, Progress, Readable, loss};

/// KL(full ‖ other) at every response token, `[rows]`, from the two runs' residual streams.
///
/// # Errors
/// Those of the models; both must share the vocabulary.
pub fn response_kl(
    full: (&Transformer, &Tensor),
    other: (&Transformer, &Tensor),
    batch: &Batch,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    for rows in full.0.logit_chunks(batch) {
        let rows = batch.predicting.get(rows).unwrap_or_default();
        let [ours, theirs] =
            [full, other].map(|(model, x)| loss::log_softmax(&model.logits(x, rows)?));
        parts.push(loss::token_kl(&ours?, &theirs?)?);
    }
    if parts.is_empty() {
        return Ok(Tensor::zeros(0, candle_core::DType::F32, full.0.device())?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// A reference model for divergence: the model itself without taps, or another one of the same
/// tokenizer.
pub enum Against<'a> {
    /// No divergence is wanted.
    Nothing,
    /// The same model, untouched.
    Itself,
    /// Another model.
    Other(&'a Transformer),
}

/// What an evaluation found.
pub struct Evaluation {
    /// Summed loss of each prompt.
    pub losses: LossRow,
    /// Summed KL(reference ‖ evaluated) of each prompt, in nats.
    pub kl: Option<Vec<f64>>,
    /// Tokens run, prompts and responses.
    pub tokens: u64,
}

/// Evaluates `model` on the prompts that it can run.
///
/// # Errors
/// Those of the model and of the taps; a stop by the keeper.
pub fn evaluate(
    model: &LoadedModel,
    prompts: &Readable,
    batch_tokens: usize,
    taps: &mut dyn Taps,
    against: &Against<'_>,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let sequences = &prompts.sequences;
    let mut nats = vec![0.0; sequences.len()];
    let mut kl = vec![0.0; sequences.len()];
    let (mut done, total) = (0, sequences.len() as u64);
    each_batch(sequences, batch_tokens, Batch::sharing, &mut |members, batch| {
        let frame = model.transformer.frame(batch)?;
        let x = model.transformer.forward(batch, &frame, taps)?;
        let values = model.transformer.response_nll(&x, batch)?;
        scatter(&mut nats, members, &loss::per_sequence(&values, batch)?);
        if let Some(values) = divergence(&model.transformer, &x, batch, &frame, against)? {
            scatter(&mut kl, members, &loss::per_sequence(&values, batch)?);
        }
        done += members.len() as u64;
        progress.report(done, total)
    })?;
    Ok(Evaluation {
        losses: loss_row(prompts, &nats),
        kl: (!matches!(against, Against::Nothing)).then_some(kl),
        tokens: sequences.iter().map(|s| s.ids.len() as u64).sum(),
    })
}

fn divergence(
    model: &Transformer,
    x: &Tensor,
    batch: &Batch,
    frame: &Frame,
    against: &Against<'_>,
) -> Result<Option<Tensor>> {
    let reference = match against {
        Against::Nothing => return Ok(None),
        Against::Itself => model,
        Against::Other(other) => other,
    };
    let own;
    let frame = match against {
        Against::Other(other) => {
            own = other.frame(batch)?;
            &own
        }
        _ => frame,
    };
    let full = reference.forward(batch, frame, &mut uspx_model::taps::NoTaps)?;
    response_kl((reference, &full), (model, x), batch).map(Some)
}

pub(crate) fn scatter(into: &mut [f64], members: &[usize], values: &[f64]) {
    for (at, value) in members.iter().zip(values) {
        if let Some(place) = into.get_mut(*at) {
            *place = *value;
        }
    }
}

pub(crate) fn loss_row(prompts: &Readable, nats: &[f64]) -> LossRow {
    let tokens = |s: &Sequence| s.response_len() as u32;
    let named = prompts.prompts.iter().zip(&prompts.sequences);
    LossRow {
        prompts: named.map(|(p, s)| PromptTokens { id: p.id.clone(), tokens: tokens(s) }).collect(),
        nats: nats.iter().map(|v| *v as f32).collect(),
        bytes: prompts
            .prompts
            .iter()
            .map(|p| p.reference.as_ref().map_or(0, |r| r.len() as u32))
            .collect(),
        ..LossRow::default()
    }
}
