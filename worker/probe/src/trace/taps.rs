//! The taps of a trace.

use super::rows::Rows;
use super::sums::Sums;
use crate::Result;
use crate::statistics::{EXPERT, HEAD, Routed};
use candle_core::{D, DType, Tensor};
use uspx_domain::UnitKind;
use uspx_model::ModelError;
use uspx_model::cuts::BANNED;
use uspx_model::layers::rows::norms;
use uspx_model::taps::{AtExpert, Routing, Site, Taps};

/// Adds up what a forward pass shows of one part of a batch.
pub(super) struct TraceTaps<'a> {
    rows: Rows,
    sums: &'a mut Sums,
    /// The residual stream before the MLP.
    before: Option<Tensor>,
    /// The layer's router logits, `[N, experts]`.
    logits: Option<Tensor>,
    /// Of the layer.
    routing: Option<Routing>,
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
    /// Output norms of the part's rows, `[R, heads]`.
    Z { layer: usize, norms: Tensor },
    /// Of its experts.
    Experts(Experts),
    /// Of its channels from `first` on: Σ|a| and Σa² of each prompt, `[P, channels]`.
    Channels { kind: UnitKind, layer: usize, first: usize, sums: [Tensor; 2] },
}

/// Numbers of a layer's experts.
struct Experts {
    layer: usize,
    seen: Vec<Seen>,
    routing: Routing,
    /// `[N, experts]`.
    logits: Tensor,
    /// cos(h, h + MoE(h)) of each of the part's rows.
    cosines: Tensor,
}

impl<'a> TraceTaps<'a> {
    pub(super) fn new(rows: Rows, sums: &'a mut Sums) -> Self {
        let (before, logits, routing, seen, unread) = (None, None, None, Vec::new(), Vec::new());
        Self { rows, sums, before, logits, routing, seen, unread }
    }

    fn expert(&mut self, at: AtExpert<'_>, output: &Tensor) -> Result<()> {
        self.routing.get_or_insert_with(|| at.routing.clone());
        self.seen.push(Seen { expert: at.expert, slots: at.slots.to_vec(), norms: norms(output)? });
        Ok(())
    }

    /// The layer's output is known: what EASY-EP needs of it, cos(h, h + MoE(h)), is computed.
    fn turn(&mut self, layer: usize, out: &Tensor) -> Result<()> {
        let before = self
            .before
            .take()
            .ok_or_else(|| ModelError::Request("an MLP without its input".into()))?;
        let (seen, logits) = (std::mem::take(&mut self.seen), self.logits.take());
        let (Some(routing), Some(logits)) = (self.routing.take(), logits) else { return Ok(()) };
        if self.rows.here.is_empty() {
            return Ok(());
        }
        // The two are nearly parallel: what bf16 would leave of the difference is noise.
        let rows = |x: &Tensor| x.index_select(&self.rows.on_device, 0)?.to_dtype(DType::F32);
        let (before, out) = (rows(&before)?, rows(out)?);
        let after = (&before + &out)?;
        let dot = (&before * &after)?.sum(D::Minus1)?;
        let cosines = (dot / (norms(&before)? * norms(&after)?)?)?;
        self.later(Unread::Experts(Experts { layer, seen, routing, logits, cosines }))
    }

    /// Channels from `first` on, `[rows, channels]`; `of_prompt` tells the rows' prompts.
    fn channels(
        &mut self,
        (kind, layer, first): (UnitKind, usize, usize),
        of_prompt: &Tensor,
        value: &Tensor,
    ) -> Result<()> {
        let (value, prompts) = (value.to_dtype(DType::F32)?, self.rows.tokens.len());
        // The row after the last takes what is of another part.
        let none = Tensor::zeros((prompts + 1, value.dim(1)?), DType::F32, value.device())?;
        let sum = |x: Tensor| none.index_add(of_prompt, &x, 0)?.narrow(0, 0, prompts);
        let sums = [sum(value.abs()?)?, sum(value.sqr()?)?];
        self.later(Unread::Channels { kind, layer, first, sums })
    }

    fn expert_channels(&mut self, at: AtExpert<'_>, value: &Tensor) -> Result<()> {
        let rows: Vec<u32> = at.slots.iter().map(|s| s / at.routing.top_k as u32).collect();
        let rows = Tensor::from_slice(&rows, rows.len(), value.device())?;
        let of_prompt = self.rows.of_prompt.index_select(&rows, 0)?;
        let first = at.expert as usize * value.dim(1)?;
        self.channels((UnitKind::ExpertChannel, at.layer, first), &of_prompt, value)
    }

    /// Reads at once what is in main memory anyway.
    fn later(&mut self, unread: Unread) -> Result<()> {
        self.unread.push(unread);
        if self.rows.on_device.device().is_cpu() { self.read() } else { Ok(()) }
    }

    /// Adds up what is not read yet.
    pub(super) fn read(&mut self) -> Result<()> {
        for unread in std::mem::take(&mut self.unread) {
            match unread {
                Unread::Z { layer, norms } => self.heads(layer, &norms)?,
                Unread::Experts(experts) => self.experts(&experts)?,
                Unread::Channels { kind, layer, first, sums } => {
                    let Some(moments) = self.sums.of_channels(kind) else { continue };
                    for (statistic, values) in sums.iter().enumerate() {
                        moments.add((layer, first, statistic), values, &self.rows.tokens)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What is known of each token at a layer's experts, summed.
    fn experts(&mut self, of: &Experts) -> Result<()> {
        let Experts { layer, seen, routing, logits, cosines } = of;
        let flat = |x: &Tensor| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let (gates, cosines) = (flat(&routing.gates)?, flat(cosines)?);
        let margins = margins(routing, &flat(logits)?, logits.dim(1)?);
        let norms: Vec<&Tensor> = seen.iter().map(|s| &s.norms).collect();
        let norms: Vec<f32> = Tensor::cat(&norms, 0)?.to_vec1()?;
        let slots = seen.iter().flat_map(|s| s.slots.iter().map(|slot| (s.expert, *slot as usize)));
        let value = |values: &[f32], slot: usize| values.get(slot).copied().map_or(0.0, f64::from);
        for ((expert, slot), norm) in slots.zip(norms) {
            let row = slot / routing.top_k;
            let Some(prompt) = self.rows.prompt(row) else { continue };
            let turned = self.rows.value(row, &cosines).map_or(0.0, |c| (1.0 - c).max(0.0));
            let (gate, margin) = (value(&gates, slot), value(&margins, slot));
            let routed = Routed { gate, norm: f64::from(norm), turned, margin };
            let values = EXPERT.iter().map(|s| (s.of)(&routed));
            self.sums.experts.add((*layer, expert), prompt, values);
        }
        self.together(*layer, routing);
        Ok(())
    }

    /// Which experts have the same token.
    fn together(&mut self, layer: usize, routing: &Routing) {
        let Some(table) = self.sums.together.get_mut(layer) else { return };
        for (row, chosen) in routing.chosen.chunks_exact(routing.top_k.max(1)).enumerate() {
            if self.rows.prompt(row).is_none() {
                continue;
            }
            for (a, b) in chosen.iter().flat_map(|a| chosen.iter().map(move |b| (*a, *b))) {
                let place = table.get_mut(a as usize).and_then(|row| row.get_mut(b as usize));
                place.into_iter().for_each(|count| *count += 1);
            }
        }
    }

    /// The norms of the part's rows, in their order.
    fn heads(&mut self, layer: usize, norms: &Tensor) -> Result<()> {
        let heads = norms.dim(1)?.max(1);
        let norms: Vec<f32> = norms.flatten_all()?.to_vec1()?;
        let mut norms = norms.chunks_exact(heads);
        // A prompt's rows are neighbours: its sums are made in one place before they go to theirs.
        let prompt = |row: &u32| self.rows.prompt(*row as usize);
        for rows in self.rows.here.chunk_by(|a, b| prompt(a) == prompt(b)) {
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

/// For each slot, by how much its expert's logit lies above that of the first expert that was not
/// chosen; 0 where all were, or could not be. `logits` are `[N × experts]`.
fn margins(routing: &Routing, logits: &[f32], experts: usize) -> Vec<f32> {
    let rows = logits.chunks_exact(experts.max(1));
    let each = rows.zip(routing.chosen.chunks_exact(routing.top_k.max(1)));
    let of_row = |(logits, chosen): (&[f32], &[u32])| -> Vec<f32> {
        let others = (0..).zip(logits).filter(|(expert, _)| !chosen.contains(expert));
        let next = others.map(|(_, logit)| *logit).fold(BANNED, f32::max);
        let margin = |expert: &u32| logits.get(*expert as usize).map_or(0.0, |own| own - next);
        let known = next > BANNED / 2.0;
        chosen.iter().map(|expert| if known { margin(expert) } else { 0.0 }).collect()
    };
    each.flat_map(of_row).collect()
}

impl Taps for TraceTaps<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::ResidMid { .. } => self.before = Some(value.clone()),
            Site::Z { layer } if !self.rows.here.is_empty() => {
                let norms = norms(&value.index_select(&self.rows.on_device, 0)?)?;
                self.later(Unread::Z { layer, norms })?;
            }
            Site::Router { .. } => {
                self.seen.clear();
                self.routing = None;
                self.logits = Some(value.clone());
            }
            Site::Channels { layer } if self.sums.wants(UnitKind::Channel) => {
                let of_prompt = self.rows.of_prompt.clone();
                self.channels((UnitKind::Channel, layer, 0), &of_prompt, value)?;
            }
            Site::ExpertChannels(at) if self.sums.wants(UnitKind::ExpertChannel) => {
                self.expert_channels(at, value)?;
            }
            Site::ExpertOut(at) => self.expert(at, value)?,
            Site::MlpOut { layer } => self.turn(layer, value)?,
            _ => {}
        }
        Ok(None)
    }
}

/// The parts of a batch, each by its own taps.
pub(super) struct Parts<'a>(pub(super) Vec<TraceTaps<'a>>);

impl Taps for Parts<'_> {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        self.0.iter_mut().try_for_each(|taps| taps.at(site, value).map(drop))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_margin_is_to_the_first_expert_that_was_not_chosen() {
        let gates = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
        let routing = Routing { chosen: vec![2, 0, 1, 3, 0, 1], gates, top_k: 2 };
        let banned = [BANNED, 0.0, 0.0, 0.0];
        let logits = [[1.0, -1.0, 4.0, 0.5], [0.0, 2.0, -3.0, 1.0], banned].concat();
        let mut want = vec![3.5, 0.5, 2.0, 1.0];
        want.extend([BANNED, 0.0]);
        assert_eq!(margins(&routing, &logits, 4), want);
        let two = Routing { chosen: vec![1, 0], ..routing };
        assert_eq!(margins(&two, &[1.0, 2.0], 2), [0.0, 0.0], "all were chosen");
    }
}
