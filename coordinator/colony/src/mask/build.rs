//! Budget and scores → mask. A global ranking with a floor of top-k experts per layer is the
//! default.

use crate::combine::Score;
use crate::{CampaignConfig, Dice, Share};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Fingerprint, Mask, ModelShape, Unit, UnitKind};

/// How a budget is spread over layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The best units of the whole model; no layer below the router's top-k.
    #[default]
    Global,
    /// As many in each layer. Only where a format needs it: it costs a lot.
    Uniform,
}

/// How much is kept of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget<'a> {
    /// The model.
    pub model: Fingerprint,
    /// Its dimensions.
    pub shape: &'a ModelShape,
    /// The kind of unit that is cut; all of the others stay.
    pub kind: UnitKind,
    /// The share kept.
    pub keep: Share,
    /// How it is spread over layers.
    pub rule: Rule,
    /// Under [`Rule::Uniform`] the equal parts of a layer that keep as many each, where what a layer
    /// keeps divides by them: heads that share a KV head are one. 1: the layer alone counts.
    pub parts: u32,
}

impl<'a> Budget<'a> {
    /// The campaign's budget.
    pub fn of(campaign: &'a CampaignConfig) -> Self {
        Self {
            model: campaign.teacher,
            shape: &campaign.shape,
            kind: campaign.mask.kind,
            keep: campaign.mask.keep,
            rule: campaign.mask.rule,
            parts: 1,
        }
    }

    /// The same with another share kept.
    pub fn keeping(self, keep: Share) -> Self {
        Self { keep, ..self }
    }

    /// The least kept of a layer: what the router picks, for other kinds may lose a whole layer; or
    /// the share that every layer keeps.
    fn first(&self, layer: u32) -> usize {
        let floor = self.shape.floor(self.kind, layer) as usize;
        match self.rule {
            Rule::Global => floor,
            Rule::Uniform => self.keep.of(self.shape.width(self.kind, layer) as usize).max(floor),
        }
    }

    /// Units kept whatever the others score, of each part of each layer; where a layer is one part,
    /// all stand in its first.
    pub(super) fn firsts(&self) -> Vec<usize> {
        let split = |layer| {
            let (first, parts) = (self.first(layer), self.parts_of(layer));
            let of_part = move |part| if part < parts { first / parts as usize } else { 0 };
            (0..self.parts.max(1)).map(of_part)
        };
        (0..self.shape.depth()).flat_map(split).collect()
    }

    /// Parts of a layer that keep as many each.
    fn parts_of(&self, layer: u32) -> u32 {
        let (width, parts) = (self.shape.width(self.kind, layer), self.parts.max(1));
        let divides =
            width.is_multiple_of(parts) && self.first(layer).is_multiple_of(parts as usize);
        if self.rule == Rule::Uniform && divides { parts } else { 1 }
    }

    /// The place of a unit's part among all layers'.
    pub(super) fn part(&self, unit: Unit) -> usize {
        let size = self.shape.width(self.kind, unit.layer) / self.parts_of(unit.layer);
        let within = unit.index.checked_div(size).unwrap_or(0);
        unit.layer as usize * self.parts.max(1) as usize + within as usize
    }

    /// Units kept in the whole model.
    pub fn count(&self) -> usize {
        let least: usize = self.firsts().iter().sum();
        match self.rule {
            Rule::Global => self.keep.of(self.shape.count(self.kind)).max(least),
            Rule::Uniform => least,
        }
    }

    /// The mask that keeps `kept`.
    pub fn mask(&self, kept: impl IntoIterator<Item = Unit>) -> Mask {
        Mask::keeping(self.model, self.shape, self.kind, kept)
    }

    /// The units that a mask keeps.
    pub fn kept(&self, mask: &Mask) -> BTreeSet<Unit> {
        self.shape.units(self.kind).filter(|u| mask.keeps(*u)).collect()
    }

    /// Whether `kept` has this budget's size and respects its rule.
    pub fn allows(&self, kept: &BTreeSet<Unit>) -> bool {
        let firsts = self.firsts();
        let mut parts = vec![0usize; firsts.len()];
        for unit in kept {
            if let Some(count) = parts.get_mut(self.part(*unit)) {
                *count += 1;
            }
        }
        kept.len() == self.count() && parts.iter().zip(firsts).all(|(n, first)| *n >= first)
    }
}

/// The units that `scores` keep at a budget. A unit without a score ranks below all others; ties go
/// by layer and index.
pub fn build(budget: &Budget<'_>, scores: &BTreeMap<Unit, Score>) -> BTreeSet<Unit> {
    let mean = |u: Unit| scores.get(&u).map_or(f64::NEG_INFINITY, |s| s.mean);
    let mut ranked: Vec<(f64, Unit)> =
        budget.shape.units(budget.kind).map(|u| (mean(u), u)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut open = budget.firsts();
    let (mut kept, mut rest) = (BTreeSet::new(), Vec::new());
    for (_, unit) in ranked {
        match open.get_mut(budget.part(unit)).filter(|n| **n > 0) {
            Some(n) => {
                *n -= 1;
                kept.insert(unit);
            }
            None => rest.push(unit),
        }
    }
    let room = budget.count().saturating_sub(kept.len());
    kept.extend(rest.into_iter().take(room));
    kept
}

/// A random mask of the same size and rule: random scores through the same builder.
pub fn random_mask(dice: &mut Dice, budget: &Budget<'_>) -> Mask {
    let scores = budget
        .shape
        .units(budget.kind)
        .map(|u| (u, Score { mean: dice.unit(), error: 0.0, effective: 0.0 }));
    budget.mask(build(budget, &scores.collect()))
}

/// Moves from `before` towards `ideal`, but only by swaps in which a unit's interval (`z` standard
/// errors) has cleared the cut: one that waited lies wholly above it, or one that was kept lies
/// wholly below it. Its partner is the weakest kept or the best waiting. Within a layer the cut
/// lies between the two, because a layer's floor or count may be what binds.
pub fn settle(
    budget: &Budget<'_>,
    scores: &BTreeMap<Unit, Score>,
    before: &BTreeSet<Unit>,
    ideal: &BTreeSet<Unit>,
    (cut, z): (f64, f64),
) -> BTreeSet<Unit> {
    let mean = |u: &Unit| scores.get(u).map_or(f64::NEG_INFINITY, |s| s.mean);
    let mut incoming: Vec<Unit> = ideal.difference(before).copied().collect();
    let mut outgoing: Vec<Unit> = before.difference(ideal).copied().collect();
    incoming.sort_by(|a, b| mean(b).total_cmp(&mean(a)).then(a.cmp(b)));
    outgoing.sort_by(|a, b| mean(a).total_cmp(&mean(b)).then(a.cmp(b)));
    let mut kept = before.clone();
    for new in incoming {
        let fits = |old: &&Unit| {
            let cut = if old.layer == new.layer { (mean(old) + mean(&new)) / 2.0 } else { cut };
            has_cleared(scores.get(&new), scores.get(old), cut, z)
                && budget.allows(&swapped(&kept, new, **old))
        };
        if let Some(old) = outgoing.iter().find(fits).copied() {
            kept = swapped(&kept, new, old);
            outgoing.retain(|u| *u != old);
        }
    }
    kept
}

fn swapped(kept: &BTreeSet<Unit>, new: Unit, old: Unit) -> BTreeSet<Unit> {
    kept.iter().copied().filter(|u| *u != old).chain([new]).collect()
}

/// Whether one of a pair is surely on its new side of the cut. A unit without a score is surely
/// below.
fn has_cleared(new: Option<&Score>, old: Option<&Score>, cut: f64, z: f64) -> bool {
    let above = new.is_some_and(|s| s.mean - z * s.error > cut);
    let below = old.is_none_or(|s| s.mean + z * s.error < cut);
    above || below
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uspx_domain::{Digest, LayerShape, MlpShape};

    /// Layers of experts: how many each has, and how many the router picks; 0 experts make a dense
    /// layer.
    fn shape(layers: &[(u32, u32)]) -> ModelShape {
        let layer = |(experts, top_k): &(u32, u32)| {
            let (experts, top_k) = (*experts, *top_k);
            let mlp = match experts {
                0 => MlpShape::Dense { channels: 8 },
                _ => MlpShape::Experts { experts, top_k, channels: 8 },
            };
            LayerShape::new(2, mlp)
        };
        ModelShape { layers: layers.iter().map(layer).collect() }
    }

    fn budget(keep: u32, rule: Rule, shape: &ModelShape) -> Budget<'_> {
        let (model, kind) = (Fingerprint(Digest::of(b"m")), UnitKind::Expert);
        Budget { model, shape, kind, keep: Share(keep), rule, parts: 1 }
    }

    /// Mixed models: dense layers, and layers of different numbers of experts.
    fn layers() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0u32..12, 1u32..3), 1..5)
    }

    fn scores(budget: &Budget<'_>, seed: u64, error: f64) -> BTreeMap<Unit, Score> {
        let mut dice = Dice::new(seed, "scores", 0);
        let mut score = || Score { mean: dice.normal(), error, effective: 10.0 };
        budget.shape.units(budget.kind).map(|u| (u, score())).collect()
    }

    fn rules() -> impl Strategy<Value = Rule> {
        prop_oneof![Just(Rule::Global), Just(Rule::Uniform)]
    }

    proptest! {
        #[test]
        fn floor_and_budget_hold(keep in 1u32..=1_000_000, rule in rules(), layers in layers(), seed: u64) {
            let shape = shape(&layers);
            let budget = budget(keep, rule, &shape);
            let kept = build(&budget, &scores(&budget, seed, 0.1));
            prop_assert!(budget.allows(&kept));
            budget.mask(kept.iter().copied()).check(budget.shape).unwrap();
            let random = random_mask(&mut Dice::new(seed, "random", 0), &budget);
            prop_assert!(budget.allows(&budget.kept(&random)));
        }

        #[test]
        fn more_budget_keeps_all_that_less_kept(a in 1u32..=1_000_000, b in 1u32..=1_000_000, rule in rules(), seed: u64) {
            let shape = shape(&[(16, 2); 4]);
            let (less, more) = (budget(a.min(b), rule, &shape), budget(a.max(b), rule, &shape));
            let scores = scores(&less, seed, 0.1);
            prop_assert!(build(&less, &scores).is_subset(&build(&more, &scores)));
        }

        #[test]
        fn a_better_score_never_costs_a_unit_its_place(seed: u64, which in 0usize..64, lift in 0.0f64..3.0) {
            let shape = shape(&[(16, 2); 4]);
            let budget = budget(400_000, Rule::Global, &shape);
            let mut scores = scores(&budget, seed, 0.1);
            let unit = *scores.keys().nth(which).unwrap();
            let before = build(&budget, &scores);
            scores.get_mut(&unit).unwrap().mean += lift;
            prop_assert!(!before.contains(&unit) || build(&budget, &scores).contains(&unit));
        }

        #[test]
        fn settling_keeps_rule_and_size(one: u64, two: u64, error in 0.0f64..2.0, rule in rules()) {
            let shape = shape(&[(16, 2); 4]);
            let budget = budget(500_000, rule, &shape);
            let before = build(&budget, &scores(&budget, one, error));
            let now = scores(&budget, two, error);
            let ideal = build(&budget, &now);
            let kept = settle(&budget, &now, &before, &ideal, (0.0, 1.0));
            prop_assert!(budget.allows(&kept));
            prop_assert!(kept.iter().all(|u| before.contains(u) || ideal.contains(u)));
        }
    }

    /// Two layers of 8 heads, 4 of which ask one KV head.
    #[test]
    fn parts_of_a_layer_keep_as_many_each_where_what_it_keeps_divides() {
        let shape = ModelShape::uniform(2, LayerShape::new(8, MlpShape::Dense { channels: 1 }));
        for (keep, parts, wanted) in
            [(500_000, 2, true), (750_000, 2, true), (625_000, 2, false), (500_000, 1, false)]
        {
            let kind = UnitKind::Head;
            let budget = Budget { kind, parts, ..budget(keep, Rule::Uniform, &shape) };
            // The best lie in the first half.
            let score = |u: Unit| Score { mean: -f64::from(u.index), error: 0.0, effective: 1.0 };
            let kept = build(&budget, &shape.units(kind).map(|u| (u, score(u))).collect());
            assert!(budget.allows(&kept));
            let firsts = |layer| kept.iter().filter(|u| u.layer == layer && u.index < 4).count();
            for layer in 0..2 {
                let all = kept.iter().filter(|u| u.layer == layer).count();
                assert_eq!(all, budget.keep.of(8));
                assert_eq!(2 * firsts(layer) == all, wanted, "{keep} in {parts}");
            }
            let moved = kept.iter().map(|u| Unit { index: 7 - u.index, ..*u }).collect();
            assert!(budget.allows(&moved), "mirrored it is as good");
        }
    }

    #[test]
    fn only_a_cleared_interval_swaps() {
        let shape = shape(&[(4, 1)]);
        let budget = budget(500_000, Rule::Uniform, &shape);
        let unit = |index| Unit { kind: UnitKind::Expert, layer: 0, index };
        let score = |mean, error| Score { mean, error, effective: 1.0 };
        let mut now: BTreeMap<_, _> =
            [(0, 5.0), (1, 1.0), (2, 2.0), (3, 0.0)].map(|(i, m)| (unit(i), score(m, 1.0))).into();
        let before = BTreeSet::from([unit(0), unit(1)]);
        let ideal = build(&budget, &now);
        assert_eq!(ideal, BTreeSet::from([unit(0), unit(2)]));
        assert_eq!(settle(&budget, &now, &before, &ideal, (1.5, 1.0)), before);
        now.insert(unit(2), score(2.0, 0.1));
        assert_eq!(settle(&budget, &now, &before, &ideal, (1.5, 1.0)), ideal);
    }
}
