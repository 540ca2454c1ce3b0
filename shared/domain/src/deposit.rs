//! What a finished probe brings: values per prompt and unit, or moments of units that are too many
//! for that; and losses.

use crate::{Pace, Statistic, Unit, UnitKind};
use serde::{Deserialize, Serialize};

/// A prompt and the number of its response tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokens {
    /// The prompt's id.
    pub id: String,
    /// Its response tokens.
    pub tokens: u32,
}

/// Statistics of many units on many prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deposit {
    /// The prompts, in the order of the columns' values.
    pub prompts: Vec<PromptTokens>,
    /// One column per statistic and unit, for kinds with few units.
    pub columns: Vec<Column>,
    /// One per statistic and layer, for kinds with many units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moments>,
}

/// One statistic of one unit on every prompt of the deposit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Which unit.
    pub unit: Unit,
    /// Which statistic.
    pub statistic: Statistic,
    /// One value per prompt.
    pub values: Vec<f32>,
}

/// One statistic of all units of a layer, summed over the deposit's prompts: all that a ratio
/// estimate of it needs. Its n, Σt and Σt² follow from the deposit's prompts.
///
/// x is a prompt's value (a sum over its response tokens), t the number of these tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Of units of this kind.
    pub kind: UnitKind,
    /// In this layer, from 0.
    pub layer: u32,
    /// Which statistic.
    pub statistic: Statistic,
    /// Σx of each unit.
    pub x: Vec<f32>,
    /// Σx² of each unit.
    pub xx: Vec<f32>,
    /// Σxt of each unit.
    pub xt: Vec<f32>,
}

impl Moments {
    /// The moments of `values`, which gives a unit's values on prompts of so many `tokens`.
    pub fn of<'a>(
        (kind, layer, statistic): (UnitKind, u32, Statistic),
        values: impl Iterator<Item = &'a [f64]>,
        tokens: &[u32],
    ) -> Self {
        let (x, xx, xt) = (Vec::new(), Vec::new(), Vec::new());
        let mut moments = Self { kind, layer, statistic, x, xx, xt };
        for unit in values {
            let sum = |of: fn(f64, f64) -> f64| -> f32 {
                unit.iter().zip(tokens).map(|(x, t)| of(*x, f64::from(*t))).sum::<f64>() as f32
            };
            moments.x.push(sum(|x, _| x));
            moments.xx.push(sum(|x, _| x * x));
            moments.xt.push(sum(|x, t| x * t));
        }
        moments
    }

    /// Each unit of the layer with its (Σx, Σx², Σxt).
    pub fn units(&self) -> impl Iterator<Item = (Unit, [f32; 3])> + '_ {
        let sums = self.x.iter().zip(&self.xx).zip(&self.xt);
        (0..).zip(sums).map(|(index, ((x, xx), xt))| {
            (Unit { kind: self.kind, layer: self.layer, index }, [*x, *xx, *xt])
        })
    }
}

/// Summed losses of a run, prompt by prompt, and whether the model's own answers are right.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LossRow {
    /// The prompts, in the order of `nats`.
    pub prompts: Vec<PromptTokens>,
    /// Negative log-likelihood of each prompt's response, in nats, summed over its tokens.
    pub nats: Vec<f32>,
    /// UTF-8 bytes of each prompt's reference.
    pub bytes: Vec<u32>,
    /// Whether the model's own greedy answer to each prompt is the reference. Empty where no answer
    /// was asked for, or the worker could give none (it reads the weights from their file).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub right: Vec<bool>,
    /// How fast it wrote answers one at a time, where that was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_sums_over_prompts() {
        let of = (UnitKind::Channel, 2, Statistic::ATP);
        let values: [&[f64]; 2] = [&[1.0, -2.0], &[0.5, 0.0]];
        let moments = Moments::of(of, values.into_iter(), &[3, 5]);
        let units: Vec<(u32, [f32; 3])> =
            moments.units().map(|(unit, sums)| (unit.index, sums)).collect();
        assert_eq!(units, [(0, [-1.0, 5.0, -7.0]), (1, [0.5, 0.25, 1.5])]);
    }
}
