//! Trace: what one forward pass shows of every expert and head, over the positions that hold response tokens.

use crate::batching::{at_members, each_batch};
use crate::{Result, prompt_tokens};
use candle_core::{D, DType, Tensor};
use uspx_domain::{Column, Deposit, ModelShape, Prompt, Statistic, Unit, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::taps::{AtExpert, Site, Taps};
use uspx_model::{LoadedModel, ModelError, Pulse};

/// The statistics of experts, in the order they are kept.
const EXPERT: [Statistic; 4] = [Statistic::Count, Statistic::GateMass, Statistic::Saliency, Statistic::EasyEp];

/// Traces `prompts`: per prompt, sums of count, gate mass, saliency and EASY-EP of each expert, of output norms of
/// each head (methods: REAP, Lasby et al. 2025; EASY-EP, Dong et al. 2025).
///
/// # Errors
/// A prompt without a reference; those of the model; a stop by the keeper.
pub fn trace(model: &LoadedModel, prompts: &[Prompt], batch_tokens: usize, pulse: &dyn Pulse) -> Result<Deposit> {
    let sequences = model.with_references(prompts)?;
    let columns = columns(model, &sequences, batch_tokens, pulse)?;
    Ok(Deposit { prompts: prompt_tokens(prompts, &sequences), columns })
}

/// The same of token sequences: per unit and statistic one value per sequence.
///
/// # Errors
/// As for [`trace`].
pub fn columns(
    model: &LoadedModel,
    sequences: &[Sequence],
    batch_tokens: usize,
    pulse: &dyn Pulse,
) -> Result<Vec<Column>> {
    let shape = model.shape();
    let mut sums = Sums::new(&shape, sequences.len());
    let (mut done, total) = (0, sequences.len() as u64);
    each_batch(sequences, batch_tokens, Batch::sharing, &mut |members, batch| {
        let frame = model.transformer.frame(batch)?;
        let mut found = Sums::new(&shape, members.len());
        let mut taps = TraceTaps { batch, sums: &mut found, before: None, gates: Vec::new(), saliency: Vec::new() };
        model.transformer.forward(batch, &frame, &mut taps)?;
        sums.take(&found, members);
        done += members.len() as u64;
        pulse.beat(done, total)
    })?;
    Ok(sums.columns(&shape))
}

/// Sums per statistic and unit, one value per prompt.
struct Sums {
    prompts: usize,
    experts: usize,
    heads: usize,
    /// `[layer][expert][statistic][prompt]`, flat.
    expert: Vec<f64>,
    /// `[layer][head][prompt]`, flat.
    head: Vec<f64>,
}

impl Sums {
    fn new(shape: &ModelShape, prompts: usize) -> Self {
        let (layers, experts, heads) = (shape.layers as usize, shape.experts as usize, shape.heads as usize);
        Self {
            prompts,
            experts,
            heads,
            expert: vec![0.0; layers * experts * EXPERT.len() * prompts],
            head: vec![0.0; layers * heads * prompts],
        }
    }

    fn add_expert(&mut self, layer: usize, expert: u32, statistic: usize, prompt: usize, value: f64) {
        let at = ((layer * self.experts + expert as usize) * EXPERT.len() + statistic) * self.prompts + prompt;
        if let Some(sum) = self.expert.get_mut(at) {
            *sum += value;
        }
    }

    fn add_head(&mut self, layer: usize, head: usize, prompt: usize, value: f64) {
        if let Some(sum) = self.head.get_mut((layer * self.heads + head) * self.prompts + prompt) {
            *sum += value;
        }
    }

    /// Puts a batch's sums at the places of its prompts.
    fn take(&mut self, batch: &Sums, members: &[usize]) {
        at_members(&mut self.expert, &batch.expert, self.prompts, members);
        at_members(&mut self.head, &batch.head, self.prompts, members);
    }

    fn columns(&self, shape: &ModelShape) -> Vec<Column> {
        let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
        let each = |unit: Unit| EXPERT.into_iter().map(move |statistic| (unit, statistic));
        let experts = shape.units(UnitKind::Expert).flat_map(each);
        let heads = shape.units(UnitKind::Head).map(|unit| (unit, Statistic::HeadNorm));
        let column = |((unit, statistic), values): ((Unit, Statistic), &[f64])| Column {
            unit,
            statistic,
            values: narrow(values),
        };
        let width = self.prompts.max(1);
        let experts = experts.zip(self.expert.chunks_exact(width)).map(column);
        experts.chain(heads.zip(self.head.chunks_exact(width)).map(column)).collect()
    }
}

struct TraceTaps<'a> {
    batch: &'a Batch,
    sums: &'a mut Sums,
    /// The residual stream before the MLP.
    before: Option<Tensor>,
    /// The layer's gates, one per slot.
    gates: Vec<f32>,
    /// (row, expert, g‖f‖) of the layer's response tokens, until the layer's output is known.
    saliency: Vec<(usize, u32, f64)>,
}

impl TraceTaps<'_> {
    /// The prompt that a row belongs to, where the row holds a response token.
    fn prompt(&self, row: usize) -> Option<usize> {
        let (sequence, response) = self.batch.place.get(row)?;
        response.then_some(*sequence as usize)
    }

    /// A layer's experts begin: nothing is known of them yet.
    fn begin(&mut self) {
        self.saliency.clear();
        self.gates.clear();
    }

    fn expert(&mut self, at: AtExpert<'_>, output: &Tensor) -> Result<()> {
        if self.gates.is_empty() {
            self.gates = at.routing.gates.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        }
        for (slot, norm) in at.slots.iter().zip(norms(output)?.to_vec1::<f32>()?) {
            let row = *slot as usize / at.routing.top_k;
            let Some(prompt) = self.prompt(row) else { continue };
            let gate = self.gates.get(*slot as usize).copied().map_or(0.0, f64::from);
            let saliency = gate * f64::from(norm);
            for (statistic, value) in [1.0, gate, saliency].into_iter().enumerate() {
                self.sums.add_expert(at.layer, at.expert, statistic, prompt, value);
            }
            self.saliency.push((row, at.expert, saliency));
        }
        Ok(())
    }

    /// EASY-EP weighs g‖f‖ by how far the layer turned the residual stream: max(0, 1 − cos(h, h + MoE(h))).
    fn turn(&mut self, layer: usize, out: &Tensor) -> Result<()> {
        let before = self.before.take().ok_or_else(|| ModelError::Request("an MLP without its input".into()))?;
        if self.saliency.is_empty() {
            return Ok(());
        }
        let after = (&before + out)?;
        let dot = (&before * &after)?.sum(D::Minus1)?.to_dtype(DType::F32)?;
        let cos: Vec<f32> = (dot / (norms(&before)? * norms(&after)?)?)?.to_vec1()?;
        for (row, expert, saliency) in std::mem::take(&mut self.saliency) {
            let turned = cos.get(row).map_or(0.0, |c| (1.0 - f64::from(*c)).max(0.0));
            if let Some(prompt) = self.prompt(row) {
                self.sums.add_expert(layer, expert, 3, prompt, saliency * turned);
            }
        }
        Ok(())
    }

    fn heads(&mut self, layer: usize, outputs: &Tensor) -> Result<()> {
        for (row, of_heads) in norms(outputs)?.to_vec2::<f32>()?.into_iter().enumerate() {
            let Some(prompt) = self.prompt(row) else { continue };
            for (head, norm) in of_heads.into_iter().enumerate() {
                self.sums.add_head(layer, head, prompt, f64::from(norm));
            }
        }
        Ok(())
    }
}

fn norms(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.sqr()?.sum(D::Minus1)?.sqrt()?)
}

impl Taps for TraceTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Middle { .. } => self.before = Some(value.clone()),
            Site::Heads { layer } => self.heads(layer, value)?,
            Site::Router { .. } => self.begin(),
            Site::ExpertOut(at) => self.expert(at, value)?,
            Site::MlpOut { layer } => self.turn(layer, value)?,
            _ => {}
        }
        Ok(None)
    }
}
