//! Trace: what one forward pass shows of every expert and head, over the positions that hold
//! response tokens.

use super::{Measure, ProbeRequest};
use crate::Result;
use crate::batching::each_batch;
use crate::statistics::{EXPERT, HEAD, Routed, named};
use crate::sums::UnitSums;
use crate::within::Within;
use candle_core::{D, DType, Device, Tensor};
use uspx_domain::{Deposit, Estimator, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::layers::rows::norms;
use uspx_model::taps::{AtExpert, Site, Taps};
use uspx_model::{ModelError, Progress};

/// Per prompt, sums of the statistics of `crate::statistics` of each expert and head.
pub(super) struct Trace;

impl Measure for Trace {
    fn estimator(&self) -> Estimator {
        Estimator::TRACE
    }

    fn measure(&self, request: &ProbeRequest<'_>, progress: &dyn Progress) -> Result<Deposit> {
        let (model, sequences) = (request.model, &request.prompts.sequences);
        let mut sums = Sums::new(request);
        let (mut done, total) = (0, sequences.len() as u64);
        let mut each = |members: &[usize], batch: &Batch| {
            let frame = model.transformer.frame(batch)?;
            let mut found = sums.blank(members.len());
            let taps = TraceTaps::new(batch, model.transformer.device(), &mut found)?;
            let mut taps = Within::new(request, taps);
            model.transformer.forward(batch, &frame, &mut taps)?;
            taps.taps.read()?;
            sums.take(&found, members);
            done += members.len() as u64;
            progress.report(done, total)
        };
        each_batch(sequences, request.batch_tokens, Batch::sharing, &mut each)?;
        let mut deposit = request.deposit();
        for (kind, sums) in [(UnitKind::Expert, &sums.experts), (UnitKind::Head, &sums.heads)] {
            if request.wants(kind) {
                sums.tell(&request.tokens(), &mut deposit);
            }
        }
        Ok(deposit)
    }
}

/// Sums of experts and of heads.
struct Sums {
    experts: UnitSums,
    heads: UnitSums,
}

impl Sums {
    fn new(request: &ProbeRequest<'_>) -> Self {
        let (shape, prompts) = (request.model.shape(), request.prompts.sequences.len());
        let of = |kind, statistics: &[_]| {
            UnitSums::new((kind, statistics), &shape, &request.layers, prompts)
        };
        Self {
            experts: of(UnitKind::Expert, &named(EXPERT)),
            heads: of(UnitKind::Head, &named(HEAD)),
        }
    }

    fn blank(&self, prompts: usize) -> Self {
        Self { experts: self.experts.blank(prompts), heads: self.heads.blank(prompts) }
    }

    fn take(&mut self, batch: &Self, members: &[usize]) {
        self.experts.take(&batch.experts, members);
        self.heads.take(&batch.heads, members);
    }
}

/// The rows of a batch that hold response tokens, and for each row of the batch its place among
/// them.
fn responses(batch: &Batch) -> (Vec<u32>, Vec<usize>) {
    let rows: Vec<u32> = (0..)
        .zip(&batch.place)
        .filter(|(_, (_, response))| *response)
        .map(|(row, _)| row)
        .collect();
    let mut places = vec![usize::MAX; batch.place.len()];
    for (at, row) in rows.iter().enumerate() {
        places.get_mut(*row as usize).into_iter().for_each(|place| *place = at);
    }
    (rows, places)
}

struct TraceTaps<'a> {
    batch: &'a Batch,
    /// Rows that hold response tokens, here and on the device, and where each of the batch's rows
    /// is among them.
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
    /// What is computed and not read yet. On a GPU every reading waits for all work before it, so
    /// there it comes last.
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
    Z { layer: usize, norms: Tensor },
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

impl<'a> TraceTaps<'a> {
    fn new(batch: &'a Batch, device: &Device, sums: &'a mut Sums) -> Result<Self> {
        let (responses, places) = responses(batch);
        let on_device = Tensor::from_slice(&responses, responses.len(), device)?;
        let (before, routing, seen, unread) = (None, None, Vec::new(), Vec::new());
        Ok(Self { batch, responses, on_device, places, sums, before, routing, seen, unread })
    }

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
        let before = self
            .before
            .take()
            .ok_or_else(|| ModelError::Request("an MLP without its input".into()))?;
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
                Unread::Z { layer, norms } => self.heads(layer, &norms)?,
                Unread::Experts { layer, seen, gates, top_k, cosines } => {
                    let gates: Vec<f32> = gates.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                    self.experts(layer, &seen, (&gates, top_k), &cosines.to_vec1()?)?;
                }
            }
        }
        Ok(())
    }

    /// What is known of each token at a layer's experts, summed.
    fn experts(
        &mut self,
        layer: usize,
        seen: &[Seen],
        (gates, top_k): (&[f32], usize),
        cosines: &[f32],
    ) -> Result<()> {
        let norms: Vec<&Tensor> = seen.iter().map(|s| &s.norms).collect();
        let norms: Vec<f32> = Tensor::cat(&norms, 0)?.to_vec1()?;
        let slots = seen.iter().flat_map(|s| s.slots.iter().map(|slot| (s.expert, *slot)));
        for ((expert, slot), norm) in slots.zip(norms) {
            let row = slot as usize / top_k;
            let Some(prompt) = self.prompt(row) else { continue };
            let gate = gates.get(slot as usize).copied().map_or(0.0, f64::from);
            let cosine = self.places.get(row).and_then(|place| cosines.get(*place));
            let turned = cosine.map_or(0.0, |c| (1.0 - f64::from(*c)).max(0.0));
            let routed = Routed { gate, norm: f64::from(norm), turned };
            let values = EXPERT.iter().map(|s| (s.of)(&routed));
            self.sums.experts.add((layer, expert), prompt, values);
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
        let prompt =
            |row: &u32| batch.place.get(*row as usize).map(|(sequence, _)| *sequence as usize);
        for rows in self.responses.chunk_by(|a, b| prompt(a) == prompt(b)) {
            let mut sums = vec![[0.0; HEAD.len()]; heads];
            for of_row in norms.by_ref().take(rows.len()) {
                for (sums, norm) in sums.iter_mut().zip(of_row) {
                    let each = sums.iter_mut().zip(HEAD);
                    each.for_each(|(sum, s)| *sum += (s.of)(&f64::from(*norm)));
                }
            }
            let Some(prompt) = rows.first().and_then(prompt) else { continue };
            for (head, sums) in (0..).zip(sums) {
                self.sums.heads.add((layer, head), prompt, sums);
            }
        }
        Ok(())
    }
}

impl Taps for TraceTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ResidMid { .. } => self.before = Some(value.clone()),
            Site::Z { layer } if !self.responses.is_empty() => {
                let norms = norms(&value.index_select(&self.on_device, 0)?)?;
                self.later(Unread::Z { layer, norms })?;
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
