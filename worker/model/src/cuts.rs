//! Units taken out of a forward pass: experts banned at the router, heads and channels silenced or
//! replaced by what they give on average, features taken from the stream along their directions.

use crate::dictionary::{Dictionaries, Dictionary, without};
use crate::taps::{Site, Taps};
use crate::{ModelError, Result};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uspx_domain::{Mask, ModelShape, Unit, UnitKind};

/// What a banned expert's logit is set to, as in transformers' own masking. The router picks the
/// next one, and the softmax over the new choice renormalises by itself.
pub const BANNED: f32 = -1e9;

/// A set of units that are gone, as a tap.
#[derive(Debug, Clone, Default)]
pub struct CutTaps {
    units: BTreeSet<Unit>,
    /// Additive router bias per layer, `[1, experts]`.
    router: BTreeMap<usize, Tensor>,
    /// Of heads, `[1, heads, 1]`.
    heads: BTreeMap<usize, Swap>,
    /// Of channels, `[1, channels]`.
    channels: BTreeMap<usize, Swap>,
    /// Of the channels of all experts, `[experts, channels]`.
    expert_channels: BTreeMap<usize, Swap>,
    features: BTreeMap<usize, GoneFeatures>,
}

/// Some of a value's units give something else.
#[derive(Debug, Clone)]
pub struct Swap {
    /// 1 where a unit stays and 0 where it goes; broadcasts to the value.
    pub keeps: Tensor,
    /// What comes instead, which broadcasts to the value; none is zero.
    pub instead: Option<Tensor>,
}

impl Swap {
    /// The value with it.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn apply(&self, value: &Tensor) -> Result<Tensor> {
        let keeps = self.keeps.to_dtype(value.dtype())?;
        let kept = value.broadcast_mul(&keeps)?;
        let Some(instead) = &self.instead else { return Ok(kept) };
        let instead = instead.to_dtype(value.dtype())?.broadcast_mul(&keeps.affine(-1.0, 1.0)?)?;
        Ok(kept.broadcast_add(&instead)?)
    }

    /// The same by part: of what goes, the share `left` is still there.
    fn faded(&self, left: f64) -> Result<Self> {
        Ok(Self { keeps: self.keeps.maximum(left)?, instead: self.instead.clone() })
    }

    /// That of one row, `[1, ..]`.
    fn row(&self, at: usize) -> Result<Self> {
        let row = |all: &Tensor| all.narrow(0, at, 1);
        Ok(Self { keeps: row(&self.keeps)?, instead: self.instead.as_ref().map(row).transpose()? })
    }
}

/// What may take the place of units that are cut.
pub trait Substitutes {
    /// Of a layer's heads, `[1, heads, head_dim]`.
    ///
    /// # Errors
    /// There is none.
    fn of_heads(&self, layer: usize) -> Result<Tensor>;

    /// Of a dense layer's channels, `[1, channels]`.
    ///
    /// # Errors
    /// There is none.
    fn of_channels(&self, layer: usize) -> Result<Tensor>;

    /// Of the channels of a layer's experts, `[experts, channels of an expert]`.
    ///
    /// # Errors
    /// There is none.
    fn of_expert_channels(&self, layer: usize) -> Result<Tensor>;
}

/// The features of a layer that are gone.
#[derive(Debug, Clone)]
struct GoneFeatures {
    dictionary: Arc<dyn Dictionary>,
    /// By feature.
    gone: Arc<[bool]>,
}

/// The units that a mask cuts of a model of this shape.
pub(crate) fn cut_by(mask: &Mask, shape: &ModelShape) -> Result<Vec<Unit>> {
    mask.check(shape).map_err(|e| ModelError::Request(e.to_string()))?;
    Ok(UnitKind::ALL.iter().flat_map(|k| mask.cut(shape, *k)).collect())
}

impl CutTaps {
    /// The taps that leave only what `mask` keeps, of a model without dictionaries; of one that has
    /// some see [`LoadedModel::cut_of_mask`](crate::LoadedModel::cut_of_mask).
    ///
    /// # Errors
    /// The mask does not fit the model.
    pub fn of_mask(mask: &Mask, shape: &ModelShape, device: &Device) -> Result<Self> {
        let none = Dictionaries::default();
        none.check(mask)?;
        Self::with(&cut_by(mask, shape)?, shape, (device, &none))
    }

    /// The taps without `units`, of a model without dictionaries.
    ///
    /// # Errors
    /// A unit that the model lacks, or a layer left with fewer experts than the router picks.
    pub fn of_units(units: &[Unit], shape: &ModelShape, device: &Device) -> Result<Self> {
        Self::with(units, shape, (device, &Dictionaries::default()))
    }

    /// The taps without `units`, whose features are of these dictionaries.
    pub(crate) fn with(
        units: &[Unit],
        shape: &ModelShape,
        (device, dictionaries): (&Device, &Dictionaries),
    ) -> Result<Self> {
        if let Some(unit) = units.iter().find(|u| !shape.has(**u)) {
            return Err(ModelError::Request(format!("the model has no unit {unit}")));
        }
        let mut this = Self { units: units.iter().copied().collect(), ..Self::default() };
        for layer in units.iter().map(|u| u.layer).collect::<BTreeSet<u32>>() {
            this.router(layer, units, shape, device)?;
            this.silence((UnitKind::Head, layer), units, shape, device)?;
            this.silence((UnitKind::Channel, layer), units, shape, device)?;
            this.silence((UnitKind::ExpertChannel, layer), units, shape, device)?;
            this.features(layer, units, dictionaries)?;
        }
        Ok(this)
    }

    fn router(
        &mut self,
        layer: u32,
        units: &[Unit],
        shape: &ModelShape,
        device: &Device,
    ) -> Result<()> {
        let (width, floor) =
            (shape.width(UnitKind::Expert, layer), shape.floor(UnitKind::Expert, layer));
        let gone = gone((UnitKind::Expert, layer), units);
        if gone.is_empty() {
            return Ok(());
        }
        if width as usize - gone.len() < floor as usize {
            return Err(ModelError::Request(format!(
                "layer {layer} would keep fewer experts than the router picks ({floor})"
            )));
        }
        let bias = marked(width, &gone, 0.0, BANNED);
        self.router.insert(layer as usize, Tensor::from_vec(bias, (1, width as usize), device)?);
        Ok(())
    }

    fn silence(
        &mut self,
        (kind, layer): (UnitKind, u32),
        units: &[Unit],
        shape: &ModelShape,
        device: &Device,
    ) -> Result<()> {
        let (width, gone) = (shape.width(kind, layer), gone((kind, layer), units));
        if gone.is_empty() {
            return Ok(());
        }
        let keeps = Tensor::from_vec(marked(width, &gone, 1.0, 0.0), (1, width as usize), device)?;
        let (layer, experts) = (layer as usize, shape.width(UnitKind::Expert, layer) as usize);
        let swap = |keeps| Swap { keeps, instead: None };
        match kind {
            UnitKind::Head => self.heads.insert(layer, swap(keeps.unsqueeze(2)?)),
            UnitKind::ExpertChannel => {
                self.expert_channels.insert(layer, swap(keeps.reshape((experts, ()))?))
            }
            _ => self.channels.insert(layer, swap(keeps)),
        };
        Ok(())
    }

    /// The same cut with `substitutes` for what goes, instead of nothing. Experts stay banned: their
    /// tokens go to others.
    ///
    /// # Errors
    /// A substitute is missing.
    pub fn substituted(mut self, substitutes: &dyn Substitutes) -> Result<Self> {
        for (layer, swap) in &mut self.heads {
            swap.instead = Some(substitutes.of_heads(*layer)?);
        }
        for (layer, swap) in &mut self.channels {
            swap.instead = Some(substitutes.of_channels(*layer)?);
        }
        for (layer, swap) in &mut self.expert_channels {
            swap.instead = Some(substitutes.of_expert_channels(*layer)?);
        }
        Ok(self)
    }

    /// The same cut by part: the share `left`, 0 to 1, of what cut heads and channels give is still there.
    ///
    /// # Errors
    /// Experts or features are cut: they are there or gone.
    pub fn faded(&self, left: f64) -> Result<Self> {
        if !self.router.is_empty() || !self.features.is_empty() {
            let why = "only heads and channels can fade: experts and features are there or gone";
            return Err(ModelError::Request(why.into()));
        }
        let mut this = self.clone();
        for all in [&mut this.heads, &mut this.channels, &mut this.expert_channels] {
            for swap in all.values_mut() {
                *swap = swap.faded(left)?;
            }
        }
        Ok(this)
    }

    /// What the cut makes of `value`; none leaves it as it is.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn replaced(&self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        match site {
            // A ban must win whatever the logit was, so it replaces the logit rather than being
            // added to it.
            Site::Router { layer } => match self.router.get(&layer) {
                Some(bias) => {
                    let bias = bias.to_dtype(value.dtype())?.broadcast_as(value.shape())?;
                    Ok(Some(bias.lt(BANNED / 2.0)?.where_cond(&bias, value)?))
                }
                None => Ok(None),
            },
            Site::Z { layer } => swapped(self.heads.get(&layer), value),
            Site::Channels { layer } => swapped(self.channels.get(&layer), value),
            Site::ExpertChannels(at) => {
                let all = self.expert_channels.get(&at.layer);
                let own = all.map(|all| all.row(at.expert as usize)).transpose()?;
                swapped(own.as_ref(), value)
            }
            Site::ResidPost { layer } => match self.features.get(&layer) {
                Some(own) => without(&own.dictionary, &own.gone, value),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn features(&mut self, layer: u32, units: &[Unit], dictionaries: &Dictionaries) -> Result<()> {
        let gone = gone((UnitKind::Feature, layer), units);
        if gone.is_empty() {
            return Ok(());
        }
        let missing =
            || ModelError::Request(format!("nothing is known of the features of layer {layer}"));
        let dictionary = dictionaries.of_layer(layer as usize).ok_or_else(missing)?.clone();
        let gone = (0..dictionary.features() as u32).map(|f| gone.contains(&f)).collect();
        self.features.insert(layer as usize, GoneFeatures { dictionary, gone });
        Ok(())
    }

    /// Whether a unit is among those that are gone.
    pub fn cuts(&self, unit: Unit) -> bool {
        self.units.contains(&unit)
    }

    /// The first layer that anything is cut in.
    pub fn first_layer(&self) -> Option<usize> {
        self.layers().min()
    }

    /// The last one.
    pub fn last_layer(&self) -> Option<usize> {
        self.layers().max()
    }

    /// Whether heads are cut in `layer`.
    pub fn cuts_heads(&self, layer: usize) -> bool {
        self.heads.contains_key(&layer)
    }

    fn layers(&self) -> impl Iterator<Item = usize> {
        let all = self.router.keys().chain(self.heads.keys()).chain(self.channels.keys());
        all.chain(self.expert_channels.keys()).chain(self.features.keys()).copied()
    }
}

/// Indices of the units of that kind and layer.
fn gone((kind, layer): (UnitKind, u32), units: &[Unit]) -> BTreeSet<u32> {
    units.iter().filter(|u| u.kind == kind && u.layer == layer).map(|u| u.index).collect()
}

fn marked(width: u32, gone: &BTreeSet<u32>, stays: f32, goes: f32) -> Vec<f32> {
    (0..width).map(|i| if gone.contains(&i) { goes } else { stays }).collect()
}

impl Taps for CutTaps {
    fn at(&mut self, site: Site<'_>, value: &Tensor) -> Result<Option<Tensor>> {
        self.replaced(site, value)
    }
}

fn swapped(swap: Option<&Swap>, value: &Tensor) -> Result<Option<Tensor>> {
    swap.map(|swap| swap.apply(value)).transpose()
}
