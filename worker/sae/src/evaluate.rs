//! What an SAE makes of a model: how sparse and how faithful its codes are, and what the model's
//! loss becomes when they are grafted in the activations' place.

use crate::codes::Codes;
use crate::parameters::row_of;
use crate::sae::Sae;
use crate::stream::Halted;
use crate::{Place, Result, SaeError};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use uspx_model::batch::Batch;
use uspx_model::dictionary::values;
use uspx_model::{LoadedModel, Progress, Readable, loss};
use uspx_probe::batching::each_batch;
use uspx_probe::evaluate::response_kl;

/// What is to be judged by what.
pub struct EvaluateRequest<'a> {
    /// The model.
    pub model: &'a LoadedModel,
    /// Prompts, best such as the SAE was not trained on.
    pub prompts: &'a Readable,
    /// Where the SAE sits.
    pub place: Place,
    /// It.
    pub sae: &'a Sae<f32>,
    /// Tokens that the model runs together.
    pub batch_tokens: usize,
    /// Positions at the beginning of every prompt where nothing is replaced or counted.
    pub skip: usize,
}

/// Something in the activations' place, and what the model then loses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Grafted {
    /// Nats per response token.
    pub loss: f64,
    /// KL(untouched ‖ grafted), nats per response token.
    pub kl: f64,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Tokens counted.
    pub tokens: u64,
    /// Active features of a token, on average.
    pub l0: f64,
    /// 1 − Σ‖x − x̂‖² ÷ Σ‖x − x̄‖², x̄ being the mean of these activations.
    pub explained_variance: f64,
    /// On how many tokens each feature is active, `[features]`.
    pub active: Vec<u64>,
    /// The untouched model's loss, nats per response token.
    pub clean: f64,
    /// With the SAE's reconstruction.
    pub sae: Grafted,
    /// With zeros.
    pub zero: Grafted,
    /// With the mean of these activations.
    pub mean: Grafted,
    /// Each prompt's untouched loss, nats per response token.
    pub losses: Vec<f64>,
    /// Each prompt's features at the positions from which its answer is predicted, with their mean
    /// activation there.
    pub activity: Vec<Vec<(u32, f32)>>,
}

impl Evaluation {
    /// Features that are active on no token.
    pub fn dead(&self) -> usize {
        self.active.iter().filter(|count| **count == 0).count()
    }

    /// The share of what an ablation costs that the SAE does not: (ablated − sae) ÷ (ablated −
    /// clean). [`Self::zero`] and [`Self::mean`] are ablations.
    pub fn recovered(&self, ablation: &Grafted) -> f64 {
        (ablation.loss - self.sae.loss) / (ablation.loss - self.clean)
    }

    /// The same of the divergence, which is 0 for the untouched model.
    pub fn kl_recovered(&self, ablation: &Grafted) -> f64 {
        1.0 - self.sae.kl / ablation.kl
    }
}

/// Judges an SAE. `progress` counts prompts, twice.
///
/// # Errors
/// An SAE of another width than the model's; no prompts; those of the model; a stop by the keeper.
pub fn evaluate(request: &EvaluateRequest<'_>, progress: &dyn Progress) -> Result<Evaluation> {
    let (width, hidden) = (request.sae.parameters.width, request.model.transformer.config().hidden);
    if width != hidden {
        return Err(SaeError::OtherWidth { found: width, here: hidden });
    }
    let prompts = request.prompts.sequences.len();
    let total = 2 * prompts as u64;
    let mut moments = Moments { sum: vec![0.0; width], ..Moments::default() };
    each(request, &mut |members, batch, halted| {
        moments.add(&values(&halted.activations()?)?, &counted(batch, request.skip));
        moments.prompts += members.len() as u64;
        progress.report(moments.prompts, total)
    })?;
    if moments.count == 0 {
        return Err(SaeError::Empty("to judge by"));
    }
    let mut judge = Judge::new(request, &moments);
    let mut done = prompts as u64;
    each(request, &mut |members, batch, halted| {
        judge.batch(members, batch, halted)?;
        done += members.len() as u64;
        progress.report(done, total)
    })?;
    Ok(judge.finish(&moments))
}

/// What is done with a batch: the prompts in it, their rows, and the halted pass.
type Work<'a> = dyn FnMut(&[usize], &Batch, &Halted<'_>) -> uspx_model::Result<()> + 'a;

/// Runs `work` on every batch, halted where the SAE sits.
fn each(request: &EvaluateRequest<'_>, work: &mut Work<'_>) -> uspx_model::Result<()> {
    let (sequences, tokens) = (&request.prompts.sequences, request.batch_tokens);
    each_batch(sequences, tokens, Batch::new, &mut |members, batch| {
        work(members, batch, &Halted::at(&request.model.transformer, batch, request.place)?)
    })
}

/// Which rows of a batch count.
fn counted(batch: &Batch, skip: usize) -> Vec<bool> {
    batch.spans.iter().flat_map(|span| (span.first..span.len()).map(|at| at >= skip)).collect()
}

/// Sums over all rows that count.
#[derive(Default)]
struct Moments {
    prompts: u64,
    count: u64,
    sum: Vec<f64>,
    squares: f64,
}

impl Moments {
    fn add(&mut self, rows: &[f32], counted: &[bool]) {
        let width = self.sum.len();
        for (row, _) in rows.chunks_exact(width).zip(counted).filter(|(_, counts)| **counts) {
            self.count += 1;
            for (sum, x) in self.sum.iter_mut().zip(row) {
                *sum += f64::from(*x);
                self.squares += f64::from(*x).powi(2);
            }
        }
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.count as f64).collect()
    }

    /// Σ‖x − x̄‖².
    fn variance(&self) -> f64 {
        self.squares - self.mean().iter().zip(&self.sum).map(|(mean, sum)| mean * sum).sum::<f64>()
    }
}

/// What stands in the activations' place: the SAE's reconstruction, zeros, their mean.
const GRAFTS: usize = 3;

/// What the second pass gathers.
struct Judge<'a> {
    request: &'a EvaluateRequest<'a>,
    mean: Vec<f32>,
    active: Vec<u64>,
    missed: f64,
    tokens: f64,
    clean: f64,
    grafted: [Grafted; GRAFTS],
    losses: Vec<f64>,
    activity: Vec<Vec<(u32, f32)>>,
}

impl<'a> Judge<'a> {
    fn new(request: &'a EvaluateRequest<'a>, moments: &Moments) -> Self {
        let prompts = request.prompts.sequences.len();
        Self {
            request,
            mean: moments.mean().into_iter().map(|m| m as f32).collect(),
            active: vec![0; request.sae.parameters.features()],
            missed: 0.0,
            tokens: 0.0,
            clean: 0.0,
            grafted: [Grafted::default(); GRAFTS],
            losses: vec![f64::NAN; prompts],
            activity: vec![Vec::new(); prompts],
        }
    }

    fn batch(
        &mut self,
        members: &[usize],
        batch: &Batch,
        halted: &Halted<'_>,
    ) -> uspx_model::Result<()> {
        let transformer = &self.request.model.transformer;
        let activations = halted.activations()?;
        let rows = values(&activations)?;
        let counted = counted(batch, self.request.skip);
        let clean = halted.finish(None)?;
        let nats = loss::per_sequence(&transformer.response_nll(&clean, batch)?, batch)?;
        let (codes, made) = self.request.sae.through(&rows);
        let grafts = [made, vec![0.0; rows.len()], self.mean.repeat(counted.len())];
        let mut found = Vec::with_capacity(GRAFTS);
        for graft in &grafts {
            let instead = placed(graft, &rows, &counted, &activations)?;
            let x = halted.finish(Some(&instead))?;
            let nats = loss::per_sequence(&transformer.response_nll(&x, batch)?, batch)?;
            let kl = response_kl((transformer, &clean), (transformer, &x), batch)?;
            let kl = loss::per_sequence(&kl, batch)?;
            found.push(Grafted { loss: nats.iter().sum(), kl: kl.iter().sum() });
        }
        // Nothing fails from here on: a batch that was too large is run again.
        for (sum, own) in self.grafted.iter_mut().zip(found) {
            sum.loss += own.loss;
            sum.kl += own.kl;
        }
        self.tokens += batch.targets.len() as f64;
        self.clean += nats.iter().sum::<f64>();
        let [made, ..] = &grafts;
        self.count(&codes, &rows, made, &counted);
        self.note(members, batch, &codes, &nats);
        Ok(())
    }

    fn count(&mut self, codes: &Codes<f32>, rows: &[f32], made: &[f32], counted: &[bool]) {
        let width = self.request.sae.parameters.width;
        for (at, _) in counted.iter().enumerate().filter(|(_, counts)| **counts) {
            let row = at as u32;
            let pairs = row_of(rows, width, row).iter().zip(row_of(made, width, row));
            self.missed += pairs.map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            for (feature, _) in codes.row(at) {
                self.active.get_mut(feature as usize).into_iter().for_each(|n| *n += 1);
            }
        }
    }

    /// Notes each prompt's loss, and its features where the answer is predicted.
    fn note(&mut self, members: &[usize], batch: &Batch, codes: &Codes<f32>, nats: &[f64]) {
        let mut rest = batch.predicting.as_slice();
        for ((member, count), nats) in members.iter().zip(&batch.responses).zip(nats) {
            let (own, others) = rest.split_at((*count).min(rest.len()));
            rest = others;
            let mut sums: BTreeMap<u32, f32> = BTreeMap::new();
            for (feature, value) in own.iter().flat_map(|row| codes.row(*row as usize)) {
                *sums.entry(feature).or_default() += value;
            }
            let tokens = (*count).max(1);
            let means = sums.into_iter().map(|(feature, sum)| (feature, sum / tokens as f32));
            if let Some(place) = self.activity.get_mut(*member) {
                *place = means.collect();
            }
            self.losses.get_mut(*member).into_iter().for_each(|l| *l = nats / tokens as f64);
        }
    }

    fn finish(self, moments: &Moments) -> Evaluation {
        let per_token = |g: Grafted| Grafted { loss: g.loss / self.tokens, kl: g.kl / self.tokens };
        let [sae, zero, mean] = self.grafted.map(per_token);
        Evaluation {
            tokens: moments.count,
            l0: self.active.iter().sum::<u64>() as f64 / moments.count as f64,
            explained_variance: 1.0 - self.missed / moments.variance(),
            clean: self.clean / self.tokens,
            active: self.active,
            losses: self.losses,
            activity: self.activity,
            sae,
            zero,
            mean,
        }
    }
}

/// `graft` where rows count, and the activations elsewhere, as a tensor like these.
fn placed(
    graft: &[f32],
    rows: &[f32],
    counted: &[bool],
    like: &Tensor,
) -> uspx_model::Result<Tensor> {
    let width = (rows.len() / counted.len().max(1)).max(1);
    let pairs = graft.chunks_exact(width).zip(rows.chunks_exact(width)).zip(counted);
    let chosen = pairs.flat_map(|((graft, row), counts)| if *counts { graft } else { row });
    let tensor = Tensor::from_iter(chosen.copied(), &Device::Cpu)?.reshape(like.shape())?;
    Ok(tensor.to_dtype(like.dtype())?.to_device(like.device())?)
}
