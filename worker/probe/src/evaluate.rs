//! The loss of each prompt's response, and how far another run diverges from it.

use crate::Result;
use candle_core::Tensor;
use uspx_domain::{LossRow, Prompt};
use uspx_model::batch::{Batch, Frame, Sequence};
use uspx_model::taps::Taps;
use uspx_model::transformer::Transformer;
use uspx_model::{LoadedModel, Pulse, batches, loss};

/// Logits are made for at most this many values at a time, so that a large vocabulary does not fill the memory.
const LOGIT_VALUES: usize = 1 << 25;

/// (logits, targets, place of the first row) to one value per row.
type OverRows<'a> = &'a mut dyn FnMut(&Tensor, &[u32], usize) -> Result<Tensor>;

/// Calls `f(logits, targets)` for the predicting rows, piece by piece, and joins its `[rows]` results.
fn over_rows(model: &Transformer, x: &Tensor, batch: &Batch, f: OverRows<'_>) -> Result<Tensor> {
    let step = (LOGIT_VALUES / model.config().vocab).max(1);
    let mut parts = Vec::new();
    for (at, (rows, targets)) in batch.predicting.chunks(step).zip(batch.targets.chunks(step)).enumerate() {
        parts.push(f(&model.logits(x, rows)?, targets, at * step)?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// Negative log-likelihood of every response token from the last layer's residual stream: `[rows]`.
///
/// # Errors
/// Those of the model.
pub fn response_nll(model: &Transformer, x: &Tensor, batch: &Batch) -> Result<Tensor> {
    if batch.targets.is_empty() {
        return Ok(Tensor::zeros(0, candle_core::DType::F32, model.device())?);
    }
    over_rows(model, x, batch, &mut |logits, targets, _| loss::token_nll(logits, targets))
}

/// KL(full ‖ other) at every response token, `[rows]`, from the two runs' residual streams.
///
/// # Errors
/// Those of the models; both must share the vocabulary.
pub fn response_kl(full: (&Transformer, &Tensor), other: (&Transformer, &Tensor), batch: &Batch) -> Result<Tensor> {
    over_rows(full.0, full.1, batch, &mut |logits, targets, start| {
        let rows = batch.predicting.get(start..start + targets.len()).unwrap_or_default();
        let theirs = loss::log_softmax(&other.0.logits(other.1, rows)?)?;
        loss::token_kl(&loss::log_softmax(logits)?, &theirs)
    })
}

/// A reference model for divergence: the model itself without taps, or another one of the same tokenizer.
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

/// Evaluates `model` on prompts with references.
///
/// # Errors
/// A prompt without a reference; those of the model and of the taps; a stop by the keeper.
pub fn evaluate(
    model: &LoadedModel,
    prompts: &[Prompt],
    batch_tokens: usize,
    taps: &mut dyn Taps,
    against: &Against<'_>,
    pulse: &dyn Pulse,
) -> Result<Evaluation> {
    let sequences = model.with_references(prompts)?;
    let mut nats = vec![0.0; prompts.len()];
    let mut kl = vec![0.0; prompts.len()];
    let plan = batches(&sequences, batch_tokens)?;
    let total = plan.len() as u64;
    for (done, (members, batch)) in plan.iter().enumerate() {
        let frame = model.transformer.frame(batch)?;
        let x = model.transformer.forward(batch, &frame, taps)?;
        let values = response_nll(&model.transformer, &x, batch)?;
        scatter(&mut nats, members, &loss::per_sequence(&values, batch)?);
        if let Some(values) = divergence(&model.transformer, &x, batch, &frame, against)? {
            scatter(&mut kl, members, &loss::per_sequence(&values, batch)?);
        }
        pulse.beat(done as u64 + 1, total)?;
    }
    Ok(Evaluation {
        losses: loss_row(prompts, &sequences, &nats),
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

pub(crate) fn loss_row(prompts: &[Prompt], sequences: &[Sequence], nats: &[f64]) -> LossRow {
    LossRow {
        prompts: crate::prompt_tokens(prompts, sequences),
        nats: nats.iter().map(|v| *v as f32).collect(),
        bytes: prompts.iter().map(|p| p.reference.as_ref().map_or(0, |r| r.len() as u32)).collect(),
    }
}
