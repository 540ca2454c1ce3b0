//! Losses under cuts: single units gone, or everything outside a mask.

use super::Job;
use crate::{Asked, Mask, Outcome, Refusal, Unit};
use serde::{Deserialize, Serialize};

/// The loss of each prompt under each cut, and under none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ablate<P> {
    /// On these prompts.
    pub prompts: Vec<P>,
    /// One run each.
    pub cuts: Vec<Cut>,
}

/// One run of an ablation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// One unit gone: an expert banned and its tokens re-routed, a head or channel zeroed.
    Unit(Unit),
    /// Everything outside the mask gone.
    Mask(Mask),
}

impl<P> Ablate<P> {
    pub(super) fn on<Q>(self, prompts: Vec<Q>) -> Ablate<Q> {
        Ablate { prompts, cuts: self.cuts }
    }
}

impl<P> Job<P> for Ablate<P> {
    fn name(&self) -> &'static str {
        "ablate"
    }

    fn prompts(&self) -> &[P] {
        &self.prompts
    }

    fn is_comparable(&self) -> bool {
        true
    }

    fn check(&self, asked: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Losses(rows) = outcome else { return Err(Refusal::Kind("ablate")) };
        asked.losses(rows, self.cuts.len() + 1)?;
        rows.iter().try_for_each(|row| asked.answers(row, false))
    }
}
