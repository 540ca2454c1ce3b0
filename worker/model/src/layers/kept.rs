//! The outputs of a layer's experts, kept so that a token's can be put together otherwise: without
//! one expert, with or without the next one in its place.

use crate::config::Mixture;
use crate::layers::slices::{is_plain, with_values};
use crate::taps::{AtExpert, Site, Taps};
use crate::{ModelError, Result};
use candle_core::{DType, Tensor};

/// What becomes of an expert that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpertMode {
    /// The router cannot choose it: its tokens go to the next one.
    #[default]
    Ban,
    /// It gives nothing, and the others' gates stay.
    Zero,
}

/// Outputs of one layer's experts on a batch, for every token those of the chosen ones and of the
/// next one.
#[derive(Debug)]
pub struct KeptExperts {
    layer: usize,
    mixture: Mixture,
    /// Router logits, `[N × experts]`.
    logits: Vec<f32>,
    /// By token: the experts that ran for it, and the row of `outputs`.
    ran: Vec<Vec<(u32, u32)>>,
    /// By token: which of them was not chosen.
    next: Vec<Option<u32>>,
    parts: Vec<Tensor>,
    rows: u32,
    /// `parts` in one, `[rows, hidden]`.
    outputs: Option<Tensor>,
}

impl KeptExperts {
    /// A tap that keeps what the experts of `layer` give.
    pub fn of_layer(layer: usize, mixture: Mixture) -> Self {
        let (logits, ran, next, parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { layer, mixture, logits, ran, next, parts, rows: 0, outputs: None }
    }

    fn keep(&mut self, expert: u32, tokens: impl Iterator<Item = u32>, out: &Tensor) {
        for token in tokens {
            let ran = self.ran.get_mut(token as usize);
            ran.into_iter().for_each(|ran| ran.push((expert, self.rows)));
            self.rows += 1;
        }
        self.parts.push(out.detach());
    }

    /// The layer has run.
    ///
    /// # Errors
    /// It has no experts, or has not run.
    pub fn finish(&mut self) -> Result<()> {
        if self.parts.is_empty() {
            let layer = self.layer;
            return Err(ModelError::Request(format!("no experts have run in layer {layer}")));
        }
        self.outputs = Some(Tensor::cat(&std::mem::take(&mut self.parts), 0)?);
        Ok(())
    }

    /// The rows of the batch that change where `expert` is taken out, ascending: those that chose
    /// it, and where gates are parts of a softmax over all experts, every row of a ban.
    pub fn changed(&self, expert: u32, mode: ExpertMode) -> Vec<u32> {
        let all = mode == ExpertMode::Ban && !self.mixture.renormalise;
        let rows = (0..self.ran.len()).filter(|token| all || self.chose(*token, expert));
        rows.map(|token| token as u32).collect()
    }

    fn next(&self, token: usize) -> Option<u32> {
        self.next.get(token).copied().flatten()
    }

    fn chose(&self, token: usize, expert: u32) -> bool {
        let ran = self.ran.get(token).into_iter().flatten();
        self.next(token) != Some(expert) && ran.into_iter().any(|(e, _)| *e == expert)
    }

    /// What the experts add to the residual stream of `rows`, some of [`Self::changed`], without
    /// `expert`: `[rows, hidden]`.
    ///
    /// # Errors
    /// A row that has no other expert to go to; those of the tensor library.
    pub fn without(&self, expert: u32, rows: &[u32], mode: ExpertMode) -> Result<Tensor> {
        let missing = || ModelError::Request("an expert's output that was not kept".into());
        let outputs = self.outputs.as_ref().ok_or_else(missing)?;
        let mut places = Vec::new();
        let mut gates = Vec::new();
        for row in rows {
            let found = self.gated(*row as usize, expert, mode).ok_or_else(missing)?;
            places.extend(found.iter().map(|(place, _)| *place));
            gates.extend(found.iter().map(|(_, gate)| *gate));
        }
        let each = places.len() / rows.len().max(1);
        if each * rows.len() != places.len() || rows.is_empty() {
            return Err(missing());
        }
        sum_places(outputs, &places, &gates, each)
    }

    /// The rows of `outputs` that make up a token's output, in the order of their experts, and
    /// their gates.
    fn gated(&self, token: usize, expert: u32, mode: ExpertMode) -> Option<Vec<(u32, f32)>> {
        let experts = self.mixture.experts;
        let logits = self.logits.get(token * experts..(token + 1) * experts)?;
        let (ran, next) = (self.ran.get(token)?, self.next(token));
        let banned = (mode == ExpertMode::Ban).then_some(expert);
        let moves = banned.is_some() && self.chose(token, expert);
        if moves && next.is_none() {
            return None;
        }
        let routed = |e: &u32| if moves { *e != expert } else { Some(*e) != next };
        let logit = |e: u32| logits.get(e as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let of_routed = || ran.iter().map(|(e, _)| *e).filter(|e| routed(e));
        let others = (0..experts as u32).filter(|e| Some(*e) != banned);
        let seen: Vec<f32> = match self.mixture.renormalise {
            true => of_routed().map(logit).collect(),
            false => others.map(logit).collect(),
        };
        let largest = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = seen.iter().map(|l| (l - largest).exp()).sum();
        let kept = ran.iter().filter(|(e, _)| routed(e) && *e != expert);
        let mut found: Vec<(u32, u32)> = kept.copied().collect();
        found.sort_unstable();
        Some(found.iter().map(|(e, row)| (*row, (logit(*e) - largest).exp() / sum)).collect())
    }
}

/// The sum of each `each` of `places`, rows of `outputs` times their gates: `[places / each,
/// hidden]`.
fn sum_places(outputs: &Tensor, places: &[u32], gates: &[f32], each: usize) -> Result<Tensor> {
    let (width, count) = (outputs.dim(1)?, places.len() / each.max(1));
    if each == 0 {
        let zeros = Tensor::zeros((count, width), outputs.dtype(), outputs.device())?;
        return Ok(zeros);
    }
    if !is_plain(outputs) {
        let device = outputs.device();
        let gates = Tensor::from_slice(gates, (gates.len(), 1), device)?;
        let picked = outputs.index_select(&Tensor::from_slice(places, places.len(), device)?, 0)?;
        let weighted = picked.broadcast_mul(&gates.to_dtype(outputs.dtype())?)?;
        return Ok(weighted.reshape((count, each, width))?.sum(1)?);
    }
    let mut sums = vec![0f32; count * width];
    with_values(outputs, |outputs| {
        let terms = places.chunks_exact(each).zip(gates.chunks_exact(each));
        for (sum, (places, gates)) in sums.chunks_exact_mut(width).zip(terms) {
            for (place, gate) in places.iter().zip(gates) {
                let start = *place as usize * width;
                let row = outputs.get(start..start + width).unwrap_or_default();
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += gate * value);
            }
        }
    })?;
    Ok(Tensor::from_vec(sums, (count, width), outputs.device())?)
}

impl Taps for KeptExperts {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            Site::Router { layer } if layer == self.layer => {
                let n = value.dim(0)?;
                self.logits = value.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                (self.ran, self.next) = (vec![Vec::new(); n], vec![None; n]);
            }
            Site::ExpertOut(AtExpert { layer, expert, slots, routing }) if layer == self.layer => {
                let top_k = routing.top_k as u32;
                self.keep(expert, slots.iter().map(|slot| slot / top_k), value);
            }
            Site::NextOut { layer, expert, tokens } if layer == self.layer => {
                for token in tokens {
                    let next = self.next.get_mut(*token as usize);
                    next.into_iter().for_each(|next| *next = Some(expert));
                }
                self.keep(expert, tokens.iter().copied(), value);
            }
            _ => {}
        }
        Ok(None)
    }

    fn wants_next(&self) -> bool {
        true
    }
}
