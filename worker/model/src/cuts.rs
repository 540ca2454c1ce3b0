//! Units taken out of a forward pass: experts banned at the router, heads and channels silenced.

use crate::taps::{Site, Taps};
use crate::{ModelError, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use uspx_domain::{Cut, Mask, ModelShape, Unit, UnitKind};

/// What a banned expert's logit is set to, as in transformers' own masking. The router picks the next one, and the
/// softmax over the new choice renormalises by itself.
const BANNED: f32 = -1e9;

/// A set of units that are gone, as a tap.
#[derive(Debug, Clone, Default)]
pub struct CutTaps {
    /// Additive router bias per layer, `[1, experts]`.
    router: BTreeMap<usize, Tensor>,
    /// Factor per head, `[1, heads, 1]`.
    heads: BTreeMap<usize, Tensor>,
    /// Factor per channel, `[1, channels]`.
    channels: BTreeMap<usize, Tensor>,
}

impl CutTaps {
    /// The taps of `cut` on a model of this shape.
    ///
    /// # Errors
    /// The cut names units that the model lacks, or bans more experts than the router can do without.
    pub fn new(cut: &Cut, shape: &ModelShape, device: &Device) -> Result<Self> {
        match cut {
            Cut::Unit(unit) => Self::of_units(&[*unit], shape, device),
            Cut::Mask(mask) => Self::of_mask(mask, shape, device),
        }
    }

    /// The taps that leave only what `mask` keeps.
    ///
    /// # Errors
    /// The mask does not fit the model.
    pub fn of_mask(mask: &Mask, shape: &ModelShape, device: &Device) -> Result<Self> {
        mask.check(shape).map_err(|e| ModelError::Request(e.to_string()))?;
        let kinds = [UnitKind::Expert, UnitKind::Head, UnitKind::Channel];
        let units: Vec<Unit> = kinds.iter().flat_map(|k| mask.cut(shape, *k)).collect();
        Self::of_units(&units, shape, device)
    }

    /// The taps without `units`.
    ///
    /// # Errors
    /// A unit that the model lacks, or a layer left with fewer experts than the router picks.
    pub fn of_units(units: &[Unit], shape: &ModelShape, device: &Device) -> Result<Self> {
        if let Some(unit) = units.iter().find(|u| !shape.has(**u)) {
            return Err(ModelError::Request(format!("the model has no unit {unit}")));
        }
        let mut this = Self::default();
        for layer in 0..shape.layers {
            let gone = |kind| -> Vec<u32> {
                units.iter().filter(|u| u.kind == kind && u.layer == layer).map(|u| u.index).collect()
            };
            let at = layer as usize;
            let experts = gone(UnitKind::Expert);
            if !experts.is_empty() {
                if shape.experts as usize - experts.len() < shape.top_k as usize {
                    let reason =
                        format!("layer {layer} would keep fewer experts than the router picks ({})", shape.top_k);
                    return Err(ModelError::Request(reason));
                }
                let bias = marked(shape.experts, &experts, 0.0, BANNED);
                this.router.insert(at, Tensor::from_vec(bias, (1, shape.experts as usize), device)?);
            }
            for (kind, map) in [(UnitKind::Head, &mut this.heads), (UnitKind::Channel, &mut this.channels)] {
                let gone = gone(kind);
                if !gone.is_empty() {
                    let width = shape.per_layer(kind) as usize;
                    let factor = Tensor::from_vec(marked(width as u32, &gone, 1.0, 0.0), (1, width), device)?;
                    let factor = if kind == UnitKind::Head { factor.unsqueeze(2)? } else { factor };
                    map.insert(at, factor);
                }
            }
        }
        Ok(this)
    }

    /// The first layer that anything is cut in.
    pub fn first_layer(&self) -> Option<usize> {
        self.router.keys().chain(self.heads.keys()).chain(self.channels.keys()).min().copied()
    }
}

fn marked(width: u32, gone: &[u32], stays: f32, goes: f32) -> Vec<f32> {
    (0..width).map(|i| if gone.contains(&i) { goes } else { stays }).collect()
}

impl Taps for CutTaps {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            // A ban must win whatever the logit was, so it replaces the logit rather than being added to it.
            Site::Router { layer } => match self.router.get(&layer) {
                Some(bias) => {
                    let bias = bias.to_dtype(value.dtype())?.broadcast_as(value.shape())?;
                    Ok(Some(bias.lt(BANNED / 2.0)?.where_cond(&bias, value)?))
                }
                None => Ok(None),
            },
            Site::Heads { layer } => scaled(self.heads.get(&layer), value),
            Site::Channels { layer } => scaled(self.channels.get(&layer), value),
            _ => Ok(None),
        }
    }
}

fn scaled(factor: Option<&Tensor>, value: &Tensor) -> Result<Option<Tensor>> {
    factor.map(|f| Ok(value.broadcast_mul(&f.to_dtype(value.dtype())?)?)).transpose()
}
