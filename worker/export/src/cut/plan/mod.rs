//! What stays of a model, and which masks cannot be carried out by removing the rest: of a mixture
//! of experts its experts (`experts`), of a dense model whole layers (`depth`), query heads and channels
//! (`dense`).

mod dense;
mod depth;
mod experts;

use super::CutRequest;
use crate::{ExportError, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uspx_domain::{Mask, UnitKind};
use uspx_model::StoredModel;
use uspx_model::config::ModelConfig;

pub use dense::{Dense, Sizes, counts_of_heads};
pub use depth::Depth;
pub use experts::Experts;

/// For each entry of the written model which one of the source's it is; `None` is a dead one.
pub type Slots = Vec<Option<u32>>;

/// What is written of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Some experts of a mixture.
    Experts(Experts),
    /// Some layers, heads and channels of a dense model.
    Dense(Dense),
}

/// What a report says of what went and stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Kept {
    /// Of a mixture of experts.
    Experts {
        /// Experts of each layer before; 0 where it has none.
        experts_before: Vec<usize>,
        /// Experts that each layer keeps.
        experts_kept: Vec<usize>,
        /// Experts that each layer's tensors hold now: those kept and, where layers keep different
        /// counts, dead ones that the router cannot choose.
        experts: usize,
        /// Dead ones of each layer.
        dead: Vec<usize>,
    },
    /// Of a dense model.
    Dense {
        /// What it had.
        before: Sizes,
        /// What it has now.
        #[serde(flatten)]
        now: Sizes,
    },
}

/// What becomes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate<'a> {
    /// It stays, under this name.
    Whole(String),
    /// It goes.
    Gone,
    /// Some of it stays.
    Picked(Pick<'a>),
}

/// Some of a tensor's equal entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick<'a> {
    /// Where they lie.
    pub along: Along,
    /// How many it has.
    pub of: usize,
    /// Rows or columns of each.
    pub each: usize,
    /// Those that stay.
    pub slots: &'a [Option<u32>],
    /// What a dead one holds.
    pub dead: Filler,
}

/// Where a tensor's entries lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Along its first dimension.
    Rows,
    /// Along the second of two.
    Columns,
}

/// What a dead entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filler {
    /// Zeros.
    Zeros,
    /// -∞.
    Never,
}

impl Plan {
    /// What `request` asks for.
    ///
    /// # Errors
    /// [`ExportError::Refused`] for a mask that cannot be carried out so.
    pub fn of(request: &CutRequest<'_>) -> Result<Self> {
        let CutRequest { source, fingerprint, mask, .. } = *request;
        if mask.model != fingerprint {
            return refuse(format!("the mask is of model {}, this is {fingerprint}", mask.model));
        }
        mask.check(&source.config.shape()).map_err(|e| ExportError::Refused(e.to_string()))?;
        if source.config.mixture().is_some() {
            only(source, mask, &[UnitKind::Expert])?;
            return Experts::of(source, mask).map(Self::Experts);
        }
        only(source, mask, &[UnitKind::Head, UnitKind::Channel])?;
        Dense::of(source, mask).map(Self::Dense)
    }

    /// What a tensor that stays is called, unless its fate says otherwise; none where it goes with its
    /// layer.
    pub fn renamed(&self, name: &str) -> Option<String> {
        match self {
            Self::Experts(_) => Some(name.to_owned()),
            Self::Dense(plan) => plan.renamed(name),
        }
    }

    /// What becomes of the source's tensors; those that are not named stay as they are.
    pub fn fates(&self, source: &StoredModel) -> BTreeMap<String, Fate<'_>> {
        match self {
            Self::Experts(plan) => plan.fates(source),
            Self::Dense(plan) => plan.fates(),
        }
    }

    /// The keys of config.json that change, with their values; `source` is what the file means.
    pub fn keys(&self, source: &ModelConfig, config: &Value) -> Vec<(&'static str, Value)> {
        match self {
            Self::Experts(plan) => plan.keys(config),
            Self::Dense(plan) => plan.keys(source, config),
        }
    }

    /// Changes what the source's configuration means into what the written one is to mean.
    pub fn apply(&self, config: &mut ModelConfig) {
        match self {
            Self::Experts(plan) => plan.apply(config),
            Self::Dense(plan) => plan.apply(config),
        }
    }

    /// What the note says of the source, and of what was made of it.
    pub fn note(&self) -> (Value, Value) {
        match self {
            Self::Experts(plan) => plan.note(),
            Self::Dense(plan) => plan.note(),
        }
    }

    /// What the report says.
    pub fn kept(&self) -> Kept {
        match self {
            Self::Experts(plan) => plan.kept(),
            Self::Dense(plan) => plan.kept(),
        }
    }
}

fn refuse<T>(reason: String) -> Result<T> {
    Err(ExportError::Refused(reason))
}

/// Refuses a mask that cuts anything but units of these kinds.
fn only(source: &StoredModel, mask: &Mask, kinds: &[UnitKind]) -> Result<()> {
    let shape = source.config.shape();
    let others = UnitKind::ALL.iter().filter(|kind| !kinds.contains(kind));
    let cut = others.map(|kind| (kind, mask.cut(&shape, *kind).len())).filter(|(_, n)| *n > 0);
    let counted =
        |(kind, n): (&UnitKind, usize)| format!("{n} {kind}{}", if n == 1 { "" } else { "s" });
    let cut: Vec<String> = cut.map(counted).collect();
    if cut.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let plural: Vec<String> = names.iter().map(|name| format!("{name}s")).collect();
    let (units, plural) = (names.join(","), plural.join(" and "));
    refuse(format!(
        "the mask also cuts {}, and only {plural} can be removed from the files of such a model: build a mask of {plural} alone \
         (uspx mask build --units {units}), or apply this one while the model runs (--mask)",
        cut.join(" and ")
    ))
}
