//! What is cut together, how much of it is kept, and by which ways to choose.

use super::evidence::Evidence;
use crate::args::ReportArgs;
use crate::rows::Ranking;
use crate::scores::best_units;
use serde::Serialize;
use std::collections::BTreeMap;
use uspx_colony::mask::{Budget, Rule};
use uspx_colony::{Dice, Share};
use uspx_domain::{Fingerprint, Mask, ModelShape, Unit, UnitKind};

/// One kind of unit, or several of which the same fraction is kept.
pub(super) struct Target<'a> {
    model: Fingerprint,
    shape: &'a ModelShape,
    pub kinds: Vec<UnitKind>,
    /// The fractions to keep, ascending, no two of which keep as many units.
    pub shares: Vec<Share>,
}

/// What a way is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// What the product ranks by.
    Default,
    /// Exact effects of single units: the oracle of those who look at single units.
    Exact,
    /// No score at all.
    Random,
    /// Another score.
    Score,
}

/// Scores of the units of each kind.
type Scores = BTreeMap<UnitKind, BTreeMap<Unit, f64>>;

/// A way to choose what is kept.
pub(super) struct Way {
    pub name: &'static str,
    pub role: Role,
    /// What it chooses by; several are averaged.
    pub runs: Vec<Scores>,
}

impl<'a> Target<'a> {
    pub(super) fn of(
        (model, shape): (Fingerprint, &'a ModelShape),
        kinds: Vec<UnitKind>,
        shares: &[Share],
    ) -> Self {
        let mut this = Self { model, shape, kinds, shares: Vec::new() };
        let least = |kind: &UnitKind| {
            let least = this.budget(*kind, Share(0)).count() as f64;
            Share::nearest(least / shape.count(*kind).max(1) as f64)
        };
        let least = this.kinds.iter().map(least).max().unwrap_or(Share(0));
        let above = shares.iter().copied().filter(|share| *share > least);
        let mut all: Vec<Share> = [least].into_iter().chain(above).collect();
        all.dedup_by_key(|share| this.counts(*share));
        this.shares = all;
        this
    }

    fn budget(&self, kind: UnitKind, keep: Share) -> Budget<'a> {
        let rule = Rule::Global;
        Budget { model: self.model, shape: self.shape, kind, keep, rule, parts: 1 }
    }

    /// Units of each kind that are kept.
    pub(super) fn counts(&self, share: Share) -> Vec<usize> {
        self.kinds.iter().map(|kind| self.budget(*kind, share).count()).collect()
    }

    /// All units of each kind.
    pub(super) fn totals(&self) -> Vec<usize> {
        self.kinds.iter().map(|kind| self.shape.count(*kind)).collect()
    }

    /// The fraction that is kept: of one kind as its units can be counted, of several as it was
    /// asked for.
    pub(super) fn kept(&self, share: Share) -> f64 {
        match (self.counts(share).as_slice(), self.totals().as_slice()) {
            ([count], [total]) => *count as f64 / *total as f64,
            _ => share.to_f64(),
        }
    }

    /// What `scores` keep.
    pub(super) fn mask(&self, scores: &Scores, share: Share) -> Mask {
        let mut mask = Mask::everything(self.model);
        for kind in &self.kinds {
            let Some(scores) = scores.get(kind) else { continue };
            mask.keep.0.extend(best_units(&self.budget(*kind, share), scores).keep.0);
        }
        mask
    }
}

/// Every way to choose units of all of the target's kinds, and random ones.
pub(super) fn ways(args: &ReportArgs, target: &Target<'_>, found: &[Evidence]) -> Vec<Way> {
    let own: Vec<&Evidence> = found.iter().filter(|e| target.kinds.contains(&e.kind)).collect();
    let ranks_all = |ranking: &Ranking| {
        let ranks = |kind: &UnitKind| {
            args.rankings(*kind).iter().any(|other| other.name() == ranking.name())
        };
        target.kinds.iter().all(ranks)
    };
    let way = |ranking: Ranking| {
        let scores = own.iter().map(|e| (e.kind, e.scores(ranking, None))).collect();
        Way { name: ranking.name(), role: role(ranking), runs: vec![scores] }
    };
    let random = |number: usize| -> Scores {
        target.kinds.iter().map(|kind| (*kind, random(args.seed, number, target, *kind))).collect()
    };
    let random =
        Way { name: "random", role: Role::Random, runs: (0..args.random).map(random).collect() };
    Ranking::all().filter(ranks_all).map(way).chain([random]).collect()
}

fn role(ranking: Ranking) -> Role {
    match ranking.is_default() {
        true => Role::Default,
        false if ranking.is_exact() => Role::Exact,
        false => Role::Score,
    }
}

/// The same for a kind alone and among others.
fn random(seed: u64, number: usize, target: &Target<'_>, kind: UnitKind) -> BTreeMap<Unit, f64> {
    let mut dice = Dice::new(seed, &format!("random {kind}s"), number as u64);
    target.shape.units(kind).map(|unit| (unit, dice.unit())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Digest, LayerShape, MlpShape};

    fn shape() -> ModelShape {
        let mlp = MlpShape::Experts { experts: 8, top_k: 2, channels: 4 };
        ModelShape::uniform(2, LayerShape::new(4, mlp))
    }

    fn target(shape: &ModelShape, kinds: Vec<UnitKind>) -> Target<'_> {
        let shares: Vec<Share> = (0..=16).map(|n| Share(n * 62_500)).collect();
        Target::of((Fingerprint(Digest::of(b"m")), shape), kinds, &shares)
    }

    #[test]
    fn experts_begin_at_what_the_router_picks_and_heads_at_none() {
        let shape = shape();
        let experts = target(&shape, vec![UnitKind::Expert]);
        let kept: Vec<f64> = experts.shares.iter().map(|s| experts.kept(*s)).collect();
        let want: Vec<f64> = (4..=16).map(|n| f64::from(n) / 16.0).collect();
        assert_eq!(kept, want);
        let heads = target(&shape, vec![UnitKind::Head]);
        let kept: Vec<f64> = heads.shares.iter().map(|s| heads.kept(*s)).collect();
        let want: Vec<f64> = (0..=8).map(|n| f64::from(n) / 8.0).collect();
        assert_eq!(kept, want, "as many points as there are counts of heads");
    }

    #[test]
    fn several_kinds_keep_the_same_fraction_of_each() {
        let shape = shape();
        let both = target(&shape, vec![UnitKind::Expert, UnitKind::Head]);
        assert_eq!(both.counts(both.shares[0]), [4, 2]);
        let half = Share::percent(50);
        let scores = |kind| shape.units(kind).map(|u| (u, f64::from(u.index))).collect();
        let scores: Scores = both.kinds.iter().map(|kind| (*kind, scores(*kind))).collect();
        let mask = both.mask(&scores, half);
        mask.check(&shape).unwrap();
        let cut = |kind| mask.cut(&shape, kind).len();
        assert_eq!((cut(UnitKind::Expert), cut(UnitKind::Head)), (8, 4));
        assert_eq!((both.kept(half), both.totals()), (0.5, vec![16, 8]));
    }
}
