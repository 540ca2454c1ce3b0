//! The numbers of a report: its JSON form, which the page shows.

use super::agreement::Agreement;
use super::evidence::Cost;
use super::judged::Judged;
use super::target::{Role, Target, Way};
use crate::left_out::LeftOut;
use crate::scored::Scored;
use serde::Serialize;
use uspx_colony::bootstrap::{Draws, Estimate};
use uspx_colony::cliff::sure_cliff;
use uspx_colony::faithfulness::{Curve, Ends, Place, curve, rises};
use uspx_domain::{Fingerprint, UnitKind};
use uspx_model::Readable;

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub model: Fingerprint,
    pub name: String,
    /// What units are scored by.
    pub fit: PromptCount,
    /// What everything is judged by.
    pub held_out: PromptCount,
    pub scored: Scored,
    /// Draws that intervals are from.
    pub draws: usize,
    /// Random rankings.
    pub random: usize,
    pub seed: u64,
    /// One for each kind of unit, and one for all of them together.
    pub targets: Vec<TargetFigures>,
    pub costs: Vec<Cost>,
    pub seconds: f64,
    pub peak_rss_bytes: Option<u64>,
    pub skipped: Vec<LeftOut>,
}

#[derive(Debug, Serialize)]
pub(super) struct PromptCount {
    pub prompts: usize,
    pub response_tokens: usize,
}

impl From<&Readable> for PromptCount {
    fn from(prompts: &Readable) -> Self {
        let response_tokens = prompts.sequences.iter().map(|s| s.response_len()).sum();
        Self { prompts: prompts.sequences.len(), response_tokens }
    }
}

/// One kind of unit, or several together.
#[derive(Debug, Serialize)]
pub(super) struct TargetFigures {
    pub kinds: Vec<UnitKind>,
    /// Units of each kind.
    pub units: Vec<usize>,
    /// The grid: the fractions kept, and the units of each kind that these are.
    pub kept: Vec<f64>,
    pub kept_units: Vec<Vec<usize>>,
    /// The loss of the whole model and of the one without any of the units, nats per response token.
    pub whole_loss: f64,
    pub empty_loss: f64,
    pub ways: Vec<WayFigures>,
    /// Of the default.
    pub cliff: Option<CliffFigures>,
    /// Of one kind.
    pub agreement: Option<Agreement>,
}

/// One way to choose what is kept.
#[derive(Debug, Serialize)]
pub(super) struct WayFigures {
    pub name: &'static str,
    pub role: Role,
    #[serde(flatten)]
    pub curve: Curve,
}

/// Where the default's loss turns steep.
#[derive(Debug, Serialize)]
pub(super) struct CliffFigures {
    /// The least fraction that still holds, the units of each kind that it is, and the rise there.
    pub holds: f64,
    pub holds_units: Vec<usize>,
    pub rise: f64,
    /// The next fraction of the grid, where it has fallen.
    pub falls: f64,
    pub falls_units: Vec<usize>,
    /// How much the loss rises between the two, nats per response token.
    pub step: Estimate,
    /// The share of draws with the cliff between the same two.
    pub same: f64,
    /// 95 % of the draws that have a cliff hold to a fraction between these.
    pub holds_between: [f64; 2],
}

impl TargetFigures {
    pub(super) fn of(target: &Target<'_>, ways: &[Way], judged: &Judged, draws: &Draws) -> Self {
        let (ends, shares) = (judged.ends(), &target.shares);
        let kept: Vec<f64> = shares.iter().map(|share| target.kept(*share)).collect();
        let figures = |(number, way): (usize, &Way)| WayFigures {
            name: way.name,
            role: way.role,
            curve: curve(&kept, &judged.runs(number), ends, draws),
        };
        let ways: Vec<WayFigures> = ways.iter().enumerate().map(figures).collect();
        let default = ways.iter().position(|way| way.role == Role::Default);
        let run = default.and_then(|number| judged.runs(number).into_iter().next());
        let cliff = run.and_then(|run| CliffFigures::of(target, &kept, (&run, ends), draws));
        Self {
            kinds: target.kinds.clone(),
            units: target.totals(),
            kept_units: shares.iter().map(|share| target.counts(*share)).collect(),
            whole_loss: ends.loss(ends.whole),
            empty_loss: ends.loss(ends.empty),
            kept,
            ways,
            cliff,
            agreement: None,
        }
    }

    /// What is cut, in words.
    pub(super) fn title(&self) -> String {
        let names: Vec<String> = self.kinds.iter().map(|kind| plural(*kind)).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            Some((one, _)) => one.clone(),
            None => String::new(),
        }
    }

    /// The default's way.
    pub(super) fn default(&self) -> Option<&WayFigures> {
        self.ways.iter().find(|way| way.role == Role::Default)
    }

    /// The default's figures in a sentence.
    pub(super) fn summary(&self) -> String {
        let Some(WayFigures { name, curve: Curve { cmd, cpr, .. }, .. }) = self.default() else {
            return self.title();
        };
        format!(
            "{}, by the default ({name}): CMD {}, CPR {}; {}",
            self.title(),
            with_interval(cmd),
            with_interval(cpr),
            self.cliff_words()
        )
    }

    fn cliff_words(&self) -> String {
        let Some(cliff) = &self.cliff else { return "no sure cliff".to_owned() };
        let CliffFigures { holds, holds_units, falls, falls_units, step, same, .. } = cliff;
        let units = |some: &[usize]| {
            let each = some.iter().zip(&self.units).zip(&self.kinds);
            let each = each.map(|((n, all), kind)| match self.kinds.len() {
                1 => format!("{n} of {all}"),
                _ => format!("{n} of {all} {}", plural(*kind)),
            });
            each.collect::<Vec<_>>().join(", ")
        };
        format!(
            "holds to {} ({}), falls at {} ({}): the loss rises there by {} nats per token; in {} of \
             the draws at the same step",
            units(holds_units),
            percent(*holds),
            units(falls_units),
            percent(*falls),
            with_interval(step),
            percent(*same)
        )
    }
}

impl CliffFigures {
    /// By the product's rule for a cliff; the loss must surely rise over it.
    fn of(
        target: &Target<'_>,
        kept: &[f64],
        (run, ends): (&[&[f32]], Ends<'_>),
        draws: &Draws,
    ) -> Option<Self> {
        let pruned = |counts: Option<&[u32]>| {
            let all = kept.iter().map(|kept| 1.0 - kept).zip(rises(run, ends, counts));
            // The rule's curve begins behind the whole model.
            let mut all: Vec<(f64, f64)> = all.filter(|(pruned, _)| *pruned > 0.0).collect();
            all.reverse();
            all
        };
        let found = sure_cliff(pruned, draws)?;
        let place = |pruned: f64| kept.iter().position(|kept| 1.0 - kept == pruned);
        let share = |pruned| place(pruned).and_then(|at| target.shares.get(at)).copied();
        let (holds, falls) = (share(found.cliff.before)?, share(found.cliff.behind)?);
        Some(Self {
            holds: target.kept(holds),
            holds_units: target.counts(holds),
            rise: found.cliff.rise_before,
            falls: target.kept(falls),
            falls_units: target.counts(falls),
            step: found.step,
            same: found.same,
            holds_between: [1.0 - found.before.high, 1.0 - found.before.low],
        })
    }
}

/// Several units of a kind, in words.
pub(super) fn plural(kind: UnitKind) -> String {
    format!("{}s", kind.name().replace('_', " "))
}

/// A number with four places; `–` where it is not known.
pub(super) fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "–".to_owned(),
        // No minus before nothing.
        v if v.abs() < 5e-5 => "0.0000".to_owned(),
        v => format!("{v:.4}"),
    }
}

/// A figure and its interval.
pub(super) fn with_interval(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = *estimate;
    match low.is_finite() && high.is_finite() {
        true => format!("{} [{}, {}]", number(value), number(low), number(high)),
        false => number(value),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl WayFigures {
    pub(super) fn places(&self) -> &[Place] {
        &self.curve.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_places_and_nothing_has_no_sign() {
        assert_eq!(
            [-1e-9, 0.12345, -2.0, f64::NAN].map(number),
            ["0.0000", "0.1235", "-2.0000", "–"]
        );
        let known = Estimate { value: 0.5, low: 0.25, high: 1.0 };
        assert_eq!(with_interval(&known), "0.5000 [0.2500, 1.0000]");
        let alone = Estimate { low: f64::NAN, ..known };
        assert_eq!(with_interval(&alone), "0.5000");
    }
}
