//! Judging masks: the chosen one against random ones of its size and rule, and the curve; and choosing the mask to label
//! with. The gate prompts are for reports only; the choice is made on the validation prompts.

use super::{Piece, Planner, batches};
use crate::mask::{Budget, build, random_mask};
use crate::{CutRole, Dice, PlannedCut, PlannedWork, Split, State};
use uspx_domain::{Cut, Mask};

impl Planner<'_> {
    pub(super) fn judge_masks(&self) -> Vec<Piece> {
        let (chosen, random, curve) = (self.chosen(), self.random(), self.curve());
        let all: Vec<PlannedCut> = chosen.iter().chain(&random).chain(&curve).cloned().collect();
        let candidates: Vec<PlannedCut> = chosen.into_iter().chain(curve).collect();
        let mut works = self.under(Split::Gate, &all);
        works.extend(self.under(Split::Validation, &candidates));
        works
    }

    fn under(&self, split: Split, cuts: &[PlannedCut]) -> Vec<Piece> {
        let judge = &self.campaign.judge;
        let groups = batches(cuts, judge.masks_per_task);
        let prompts = batches(&self.campaign.split(split), judge.batch);
        let each = |prompts: &Vec<u32>| {
            let prompts = prompts.clone();
            groups.iter().map(move |cuts| PlannedWork::Ablate { prompts: prompts.clone(), cuts: cuts.clone() })
        };
        prompts.iter().flat_map(each).map(|work| self.teacher(work)).collect()
    }

    fn chosen(&self) -> Vec<PlannedCut> {
        let mask = self.state.mask.as_ref().map(|m| m.mask.clone());
        mask.into_iter().map(|mask| PlannedCut { role: CutRole::Chosen, cut: Cut::Mask(mask) }).collect()
    }

    fn random(&self) -> Vec<PlannedCut> {
        let budget = Budget::of(self.campaign);
        let mask = |number| random_mask(&mut Dice::new(self.campaign.seed, "random mask", u64::from(number)), &budget);
        let cut = |number| PlannedCut { role: CutRole::Random(number), cut: Cut::Mask(mask(number)) };
        (0..self.campaign.judge.random_masks).map(cut).collect()
    }

    fn curve(&self) -> Vec<PlannedCut> {
        let Some(version) = &self.state.mask else { return Vec::new() };
        let budget = Budget::of(self.campaign);
        let at = |pruned: &crate::Share| {
            let budget = budget.keeping(pruned.rest());
            let mask = budget.mask(build(&budget, &version.scores));
            PlannedCut { role: CutRole::Curve(pruned.0), cut: Cut::Mask(mask) }
        };
        self.campaign.judge.curve.iter().map(at).collect()
    }
}

/// The mask that cuts most while the validation loss rises by no more than the campaign's bound; none where all cost more.
pub fn label_mask(state: &State) -> Option<Mask> {
    let campaign = state.campaign.as_ref()?;
    let validation = |at: u32| campaign.prompts.get(at as usize).is_some_and(|p| p.split == Split::Validation);
    let rises = state.results.rises(validation);
    let candidates = rises.iter().filter(|(role, _)| matches!(role, CutRole::Chosen | CutRole::Curve(_)));
    let rises = candidates.filter_map(|(role, rise)| Some((*rise, &state.results.trials.get(role)?.mask)));
    let allowed = rises.filter(|(rise, _)| *rise <= campaign.judge.label_rise);
    let size = |mask: &Mask| mask.cut(&campaign.shape, campaign.mask.kind).len();
    // Of equal cuts, the cheaper.
    let best = allowed.min_by(|a, b| size(b.1).cmp(&size(a.1)).then(a.0.total_cmp(&b.0)))?;
    (size(best.1) > 0).then(|| best.1.clone())
}
