//! What is known of a unit on some of the prompts.

use super::say::Said;
use crate::state::{ByPrompt, Scores, Sums};
use crate::trail::UnitEstimate;
use std::collections::BTreeMap;
use uspx_domain::Unit;

/// Prompts, by place, and how often each counts.
pub(super) type Counted = BTreeMap<u32, u32>;

/// A unit on the prompts of a stratum.
pub(super) struct Row {
    pub unit: Unit,
    /// Predictors: the control and the second score, per token over all these prompts, on one scale.
    pub predictors: [f64; 2],
    /// Variance of the control from prompt to prompt, per token.
    pub spread: f64,
    /// The effect, where it was tried.
    pub tried: Option<Tried>,
    /// It beside the control, where both are known.
    pub beside: Option<Beside>,
}

/// An exact effect.
pub(super) struct Tried {
    /// Per token, corrected.
    pub effect: f64,
    /// Prompts' worth of evidence.
    pub effective: f64,
    /// Its variance, as the tried prompts alone tell it.
    pub variance: f64,
}

/// Sums about the ratios of an effect and its control, in nats².
pub(super) struct Beside {
    /// The control per token, on the prompts that were tried.
    pub control: f64,
    /// Σ(c − ĉt)(x − x̂t).
    pub both: f64,
    /// Σ(c − ĉt)².
    pub own: f64,
    /// Σ(x − x̂t)².
    pub effect: f64,
    /// Prompts.
    pub prompts: f64,
    /// Tokens of a prompt.
    pub tokens: f64,
}

impl Row {
    /// Variance of an effect: by the control, where that says anything of the unit.
    pub(super) fn variance(&self, tried: &Tried, noise: f64) -> f64 {
        if self.spread > 0.0 { noise * self.spread / tried.effective } else { tried.variance }
    }
}

/// A unit's row before effects are corrected: that takes all rows' slope.
pub(super) struct Raw {
    unit: Unit,
    control: Option<UnitEstimate>,
    /// The second score per token.
    pub second: f64,
    exact: Option<UnitEstimate>,
    /// The effect beside the control, where both are known.
    pub beside: Option<Beside>,
}

impl Raw {
    /// A unit on these prompts.
    pub(super) fn of(known: &ByPrompt, unit: Unit, (prompts, say): (&Counted, Said)) -> Self {
        let control = estimate(&known.control, unit, (prompts, say));
        let second = estimate(&known.second, unit, (prompts, say)).map_or(0.0, |e| e.mean);
        let (mut exact, mut pairs) = (Sums::default(), Vec::new());
        for (at, effect) in known.effects(unit) {
            let Some(times) = prompts.get(&at) else { continue };
            let tokens = effect.tokens;
            let value = say.of(f64::from(effect.nats));
            let control = known.control.get(unit, at);
            let beside = control.map(|(c, _)| [say.of(c), value, f64::from(tokens)]);
            for _ in 0..*times {
                exact.observe(value, tokens);
                pairs.extend(beside);
            }
        }
        let exact = UnitEstimate::of(&exact);
        Self { unit, control, second, exact, beside: Beside::of(&pairs) }
    }

    /// The control per token.
    pub(super) fn control(&self) -> f64 {
        self.control.map_or(0.0, |e| e.mean)
    }

    /// The row, by the slope of effects on the control, the second score brought to the control's scale.
    pub(super) fn row(self, slope: f64, scale: f64) -> Row {
        let control = self.control();
        let correct = |exact: &UnitEstimate| {
            // A prompt whose control is not known is taken to have that of all.
            let told = |b: &Beside| slope * (control - b.control) * b.prompts / exact.effective;
            let effect = exact.mean + self.beside.as_ref().map_or(0.0, told);
            Tried { effect, effective: exact.effective, variance: exact.variance() }
        };
        Row {
            unit: self.unit,
            predictors: [control, self.second * scale],
            spread: self.control.map_or(0.0, |e| e.spread),
            tried: self.exact.as_ref().map(correct),
            beside: self.beside,
        }
    }
}

impl Beside {
    /// Of (control, effect, tokens) of each prompt; none of nothing.
    fn of(pairs: &[[f64; 3]]) -> Option<Self> {
        let sum = |of: &dyn Fn(&[f64; 3]) -> f64| pairs.iter().map(of).sum::<f64>();
        let (prompts, tokens) = (pairs.len() as f64, sum(&|[_, _, t]| *t));
        if tokens <= 0.0 {
            return None;
        }
        let (control, effect) = (sum(&|[c, ..]| *c) / tokens, sum(&|[_, x, _]| *x) / tokens);
        Some(Self {
            control,
            both: sum(&|[c, x, t]| (c - control * t) * (x - effect * t)),
            own: sum(&|[c, _, t]| (c - control * t) * (c - control * t)),
            effect: sum(&|[_, x, t]| (x - effect * t) * (x - effect * t)),
            prompts,
            tokens: tokens / prompts,
        })
    }
}

/// What a cheap score is per token; none where it is known of none of these prompts.
fn estimate(scores: &Scores, unit: Unit, (prompts, say): (&Counted, Said)) -> Option<UnitEstimate> {
    let (mut sums, values) = (Sums::default(), scores.values(unit)?);
    for (at, times) in prompts.iter().filter(|(_, times)| **times > 0) {
        let known = values.get(*at as usize).zip(scores.tokens(*at));
        let Some((value, tokens)) = known else { continue };
        let value = say.of(f64::from(*value));
        (0..*times).for_each(|_| sums.observe(value, tokens));
    }
    UnitEstimate::of(&sums)
}
