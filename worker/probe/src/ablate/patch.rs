//! What is changed in a run, and where it bites first.

use crate::Result;
use crate::means::Means;
use candle_core::Tensor;
use std::sync::Arc;
use uspx_domain::{Cut, Unit, UnitKind};
use uspx_model::cuts::{CutTaps, Substitutes, Swap};
use uspx_model::layers::kept::ExpertMode;
use uspx_model::{LoadedModel, ModelError};

/// A change of a run.
pub(crate) enum Patch {
    /// None.
    Nothing,
    /// One expert goes.
    Expert { layer: usize, index: u32, mode: ExpertMode },
    /// One head gives something else.
    Head { layer: usize, index: u32, baseline: HeadBaseline },
    /// One feature is moved to so much of it at every token.
    Feature { layer: usize, index: u32, base: f32 },
    /// Some units are cut.
    Cut {
        /// The first layer that they are in.
        layer: usize,
        taps: CutTaps,
        /// Whether heads are among them there, or only what follows attention.
        at_heads: bool,
        /// Whether later layers have some, too.
        goes_on: bool,
    },
}

/// What takes the place of a head's output.
#[derive(Clone)]
pub(crate) enum HeadBaseline {
    /// Nothing.
    Zero,
    /// Its mean.
    Mean(Arc<Means>),
    /// Its output at the same position of another sequence.
    Resampled,
}

impl Patch {
    /// The patch that a cut is.
    ///
    /// # Errors
    /// The cut does not fit the model.
    pub fn of_cut(cut: &Cut, model: &LoadedModel) -> Result<Self> {
        // Whatever runs in the end: this says whether the cut fits.
        let taps = model.cut(cut)?;
        let Some(layer) = taps.first_layer() else { return Ok(Self::Nothing) };
        match cut {
            Cut::Unit(Unit { kind: UnitKind::Expert, index, .. }) => {
                Ok(Self::Expert { layer, index: *index, mode: ExpertMode::Ban })
            }
            Cut::Unit(Unit { kind: UnitKind::Head, index, .. }) => {
                Ok(Self::Head { layer, index: *index, baseline: HeadBaseline::Zero })
            }
            Cut::Unit(Unit { kind: UnitKind::Feature, index, .. }) => {
                Ok(Self::Feature { layer, index: *index, base: 0.0 })
            }
            _ => Ok(Self::of_taps(taps)),
        }
    }

    /// The patch that all of these taps are.
    pub fn of_taps(taps: CutTaps) -> Self {
        let Some(layer) = taps.first_layer() else { return Self::Nothing };
        let (at_heads, goes_on) = (taps.cuts_heads(layer), taps.last_layer() > Some(layer));
        Self::Cut { layer, taps, at_heads, goes_on }
    }

    /// The first layer that it changes.
    pub fn layer(&self) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::Expert { layer, .. }
            | Self::Head { layer, .. }
            | Self::Feature { layer, .. }
            | Self::Cut { layer, .. } => Some(*layer),
        }
    }

    /// Whether it changes only some rows of its layer's output, each by itself: it can begin from the
    /// clean run's.
    pub fn changes_some_rows(&self) -> bool {
        matches!(self, Self::Expert { .. } | Self::Feature { .. })
    }

    /// The layer whose feature it moves.
    pub fn layer_of_feature(&self) -> Option<usize> {
        match self {
            Self::Feature { layer, .. } => Some(*layer),
            _ => None,
        }
    }

    /// What it cuts in later layers.
    pub fn later(&self) -> Option<&CutTaps> {
        match self {
            Self::Cut { taps, goes_on: true, .. } => Some(taps),
            _ => None,
        }
    }

    /// The outputs of its layer's heads, `[rows, heads, head_dim]`, as it makes them; cuts do that by
    /// their taps. `source` are those that resampling takes.
    pub fn heads(&self, z: &Tensor, source: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Head { layer, index, baseline } => {
                let others = (0..z.dim(1)? as u32).map(|head| u32::from(head != *index));
                let keeps = Tensor::from_iter(others, z.device())?.to_dtype(z.dtype())?;
                let missing =
                    || ModelError::Request("there is no output to resample a head from".into());
                let instead = match baseline {
                    HeadBaseline::Zero => None,
                    HeadBaseline::Mean(means) => Some(means.of_heads(*layer)?),
                    HeadBaseline::Resampled => Some(source.ok_or_else(missing)?.clone()),
                };
                Swap { keeps: keeps.reshape((1, (), 1))?, instead }.apply(z)
            }
            _ => Ok(z.clone()),
        }
    }
}
