//! Trace: what one forward pass shows of every expert and head, over the positions that hold response tokens.

use crate::batching::{at_members, each_batch};
use crate::{Result, prompt_tokens};
use candle_core::{D, DType, Tensor};
use uspx_domain::{Column, Deposit, ModelShape, Statistic, Unit, UnitKind};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::layers::rows::norms;
use uspx_model::taps::{AtExpert, Site, Taps};
use uspx_model::{LoadedModel, ModelError, Pulse, Readable};

/// The statistics of experts, in the order they are kept.
const EXPERT: [Statistic; 4] = [Statistic::Count, Statistic::GateMass, Statistic::Saliency, Statistic::EasyEp];

/// Traces `prompts`: per prompt, sums of count, gate mass, saliency and EASY-EP of each expert, of output norms of
/// each head (methods: REAP, Lasby et al. 2025; EASY-EP, Dong et al. 2025).
///
/// # Errors
/// Those of the model; a stop by the keeper.
pub fn trace(model: &LoadedModel, prompts: &Readable, batch_tokens: usize, pulse: &dyn Pulse) -> Result<Deposit> {
    let columns = columns(model, &prompts.sequences, batch_tokens, pulse)?;
    Ok(Deposit { prompts: prompt_tokens(prompts), columns })
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
        let (responses, places) = responses(batch);
        let on_device = Tensor::from_slice(&responses, responses.len(), model.transformer.device())?;
        let (before, routing, seen, unread) = (None, None, Vec::new(), Vec::new());
        let own = &mut found;
        let mut taps = TraceTaps { batch, responses, on_device, places, sums: own, before, routing, seen, unread };
        model.transformer.forward(batch, &frame, &mut taps)?;
        taps.read()?;
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

/// The rows of a batch that hold response tokens, and for each row of the batch its place among them.
fn responses(batch: &Batch) -> (Vec<u32>, Vec<usize>) {
    let rows: Vec<u32> = (0..).zip(&batch.place).filter(|(_, (_, response))| *response).map(|(row, _)| row).collect();
    let mut places = vec![usize::MAX; batch.place.len()];
    for (at, row) in rows.iter().enumerate() {
        places.get_mut(*row as usize).into_iter().for_each(|place| *place = at);
    }
    (rows, places)
}

struct TraceTaps<'a> {
    batch: &'a Batch,
    /// Rows that hold response tokens, here and on the device, and where each of the batch's rows is among them.
    responses: Vec<u32>,
    on_device: Tensor,
    places: Vec<usize>,
    sums: &'a mut Sums,
    /// The residual stream before the MLP.
    before: Option<Tensor>,
    /// The layer's gates, one per slot, and the slots of a token.
    routing: Option<(Tensor, usize)>,
    /// Of the layer's experts, until the layer's output is known.
    seen: Vec<Seen>,
    /// What is computed and not read yet. On a GPU every reading waits for all work before it, so there it comes last.
    unread: Vec<Unread>,
}

/// What an expert gave, and to which slots.
struct Seen {
    expert: u32,
    slots: Vec<u32>,
    /// ‖f‖ of each slot, in f32.
    norms: Tensor,
}

/// Numbers of a layer that may still be on a GPU.
enum Unread {
    /// Output norms of the response rows, `[R, heads]`.
    Heads { layer: usize, norms: Tensor },
    /// Of its experts.
    Experts {
        layer: usize,
        seen: Vec<Seen>,
        /// One per slot.
        gates: Tensor,
        top_k: usize,
        /// cos(h, h + MoE(h)) of each response row.
        cosines: Tensor,
    },
}

impl TraceTaps<'_> {
    /// The prompt that a row belongs to, where the row holds a response token.
    fn prompt(&self, row: usize) -> Option<usize> {
        let (sequence, response) = self.batch.place.get(row)?;
        response.then_some(*sequence as usize)
    }

    fn expert(&mut self, at: AtExpert<'_>, output: &Tensor) -> Result<()> {
        self.routing.get_or_insert_with(|| (at.routing.gates.clone(), at.routing.top_k));
        self.seen.push(Seen { expert: at.expert, slots: at.slots.to_vec(), norms: norms(output)? });
        Ok(())
    }

    /// The layer's output is known: what EASY-EP needs of it, cos(h, h + MoE(h)), is computed.
    fn turn(&mut self, layer: usize, out: &Tensor) -> Result<()> {
        let before = self.before.take().ok_or_else(|| ModelError::Request("an MLP without its input".into()))?;
        let seen = std::mem::take(&mut self.seen);
        let Some((gates, top_k)) = self.routing.take() else { return Ok(()) };
        if self.responses.is_empty() {
            return Ok(());
        }
        // The two are nearly parallel: what bf16 would leave of the difference is noise.
        let rows = |x: &Tensor| x.index_select(&self.on_device, 0)?.to_dtype(DType::F32);
        let (before, out) = (rows(&before)?, rows(out)?);
        let after = (&before + &out)?;
        let dot = (&before * &after)?.sum(D::Minus1)?;
        let cosines = (dot / (norms(&before)? * norms(&after)?)?)?;
        self.later(Unread::Experts { layer, seen, gates, top_k, cosines })
    }

    /// Reads at once what is in main memory anyway.
    fn later(&mut self, unread: Unread) -> Result<()> {
        self.unread.push(unread);
        if self.on_device.device().is_cpu() { self.read() } else { Ok(()) }
    }

    /// Adds up what is not read yet.
    fn read(&mut self) -> Result<()> {
        for unread in std::mem::take(&mut self.unread) {
            match unread {
                Unread::Heads { layer, norms } => self.heads(layer, &norms)?,
                Unread::Experts { layer, seen, gates, top_k, cosines } => {
                    let gates: Vec<f32> = gates.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                    self.experts(layer, &seen, (&gates, top_k), &cosines.to_vec1()?)?;
                }
            }
        }
        Ok(())
    }

    /// Count, gate mass and g‖f‖ of a layer's experts, and EASY-EP, which weighs g‖f‖ by how far the layer turned the
    /// residual stream: max(0, 1 − cos(h, h + MoE(h))).
    fn experts(&mut self, layer: usize, seen: &[Seen], (gates, top_k): (&[f32], usize), cosines: &[f32]) -> Result<()> {
        let norms: Vec<&Tensor> = seen.iter().map(|s| &s.norms).collect();
        let norms: Vec<f32> = Tensor::cat(&norms, 0)?.to_vec1()?;
        let slots = seen.iter().flat_map(|s| s.slots.iter().map(|slot| (s.expert, *slot)));
        for ((expert, slot), norm) in slots.zip(norms) {
            let row = slot as usize / top_k;
            let Some(prompt) = self.prompt(row) else { continue };
            let gate = gates.get(slot as usize).copied().map_or(0.0, f64::from);
            let saliency = gate * f64::from(norm);
            let cosine = self.places.get(row).and_then(|place| cosines.get(*place));
            let turned = cosine.map_or(0.0, |c| (1.0 - f64::from(*c)).max(0.0));
            for (statistic, value) in [1.0, gate, saliency, saliency * turned].into_iter().enumerate() {
                self.sums.add_expert(layer, expert, statistic, prompt, value);
            }
        }
        Ok(())
    }

    /// The norms of the response rows, in their order.
    fn heads(&mut self, layer: usize, norms: &Tensor) -> Result<()> {
        let heads = norms.dim(1)?.max(1);
        let norms: Vec<f32> = norms.flatten_all()?.to_vec1()?;
        let mut norms = norms.chunks_exact(heads);
        // A prompt's rows are neighbours: its sums are made in one place before they go to theirs.
        let batch = self.batch;
        let prompt = |row: &u32| batch.place.get(*row as usize).map(|(sequence, _)| *sequence as usize);
        for rows in self.responses.chunk_by(|a, b| prompt(a) == prompt(b)) {
            let mut sums = vec![0.0; heads];
            for of_row in norms.by_ref().take(rows.len()) {
                sums.iter_mut().zip(of_row).for_each(|(sum, norm)| *sum += f64::from(*norm));
            }
            let Some(prompt) = rows.first().and_then(prompt) else { continue };
            for (head, sum) in sums.into_iter().enumerate() {
                self.sums.add_head(layer, head, prompt, sum);
            }
        }
        Ok(())
    }
}

impl Taps for TraceTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Middle { .. } => self.before = Some(value.clone()),
            Site::Heads { layer } if !self.responses.is_empty() => {
                let norms = norms(&value.index_select(&self.on_device, 0)?)?;
                self.later(Unread::Heads { layer, norms })?;
            }
            Site::Router { .. } => {
                self.seen.clear();
                self.routing = None;
            }
            Site::ExpertOut(at) => self.expert(at, value)?,
            Site::MlpOut { layer } => self.turn(layer, value)?,
            _ => {}
        }
        Ok(None)
    }
}
