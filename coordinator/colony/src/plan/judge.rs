//! Judging masks: the chosen one against random ones of its size and rule, and the curve; and choosing the mask to label
//! with. The gate prompts are for reports only; the choice is made on the validation prompts.

use super::{Piece, Planner, batches};
use crate::mask::{Budget, build, random_mask};
use crate::{Dice, Purpose, Split, State, TrialRole};
use uspx_domain::{Ablate, Cut, Mask, Work};

/// A mask to try, and what it is.
pub(super) type Trial = (TrialRole, Mask);

impl Planner<'_> {
    pub(super) fn judge_masks(&self) -> Vec<Piece> {
        let (chosen, random, curve) = (self.chosen(), self.random(), self.curve());
        let all: Vec<Trial> = chosen.iter().chain(&random).chain(&curve).cloned().collect();
        let candidates: Vec<Trial> = chosen.into_iter().chain(curve).collect();
        let mut works = self.under(Split::Gate, &all);
        works.extend(self.under(Split::Validation, &candidates));
        works
    }

    fn under(&self, split: Split, cuts: &[Trial]) -> Vec<Piece> {
        let judge = &self.campaign.judge;
        let groups = batches(cuts, judge.masks_per_task);
        let prompts = batches(&self.campaign.split(split), judge.batch);
        let each = |prompts: &Vec<u32>| {
            let prompts = prompts.clone();
            groups.iter().map(move |group| self.trials(prompts.clone(), group.clone()))
        };
        prompts.iter().flat_map(each).collect()
    }

    /// A task that tries masks on the teacher.
    pub(super) fn trials(&self, prompts: Vec<u32>, trials: Vec<Trial>) -> Piece {
        let (roles, masks): (Vec<TrialRole>, Vec<Mask>) = trials.into_iter().unzip();
        let cuts = masks.into_iter().map(Cut::Mask).collect();
        self.teacher(Purpose::Trials(roles), Work::Ablate(Ablate { prompts, cuts }))
    }

    fn chosen(&self) -> Vec<Trial> {
        let mask = self.state.mask.as_ref().map(|m| m.mask.clone());
        mask.into_iter().map(|mask| (TrialRole::Chosen, mask)).collect()
    }

    fn random(&self) -> Vec<Trial> {
        let budget = Budget::of(self.campaign);
        let mask = |number| random_mask(&mut Dice::new(self.campaign.seed, "random mask", u64::from(number)), &budget);
        let cut = |number| (TrialRole::Random(number), mask(number));
        (0..self.campaign.judge.random_masks).map(cut).collect()
    }

    fn curve(&self) -> Vec<Trial> {
        let Some(version) = &self.state.mask else { return Vec::new() };
        let budget = Budget::of(self.campaign);
        let at = |pruned: &crate::Share| {
            let budget = budget.keeping(pruned.rest());
            (TrialRole::Curve(pruned.0), budget.mask(build(&budget, &version.scores)))
        };
        self.campaign.judge.curve.iter().map(at).collect()
    }
}

/// The mask that cuts most while the validation loss rises by no more than the campaign's bound; none where all cost more.
pub fn label_mask(state: &State) -> Option<Mask> {
    let campaign = state.campaign.as_ref()?;
    let validation = |at: u32| campaign.prompts.get(at as usize).is_some_and(|p| p.split == Split::Validation);
    let rises = state.results.rises(validation);
    let candidates = rises.iter().filter(|(role, _)| matches!(role, TrialRole::Chosen | TrialRole::Curve(_)));
    let rises = candidates.filter_map(|(role, rise)| Some((*rise, &state.results.trials.get(role)?.mask)));
    let allowed = rises.filter(|(rise, _)| *rise <= campaign.judge.label_rise);
    let size = |mask: &Mask| mask.cut(&campaign.shape, campaign.mask.kind).len();
    // Of equal cuts, the cheaper.
    let best = allowed.min_by(|a, b| size(b.1).cmp(&size(a.1)).then(a.0.total_cmp(&b.0)))?;
    (size(best.1) > 0).then(|| best.1.clone())
}
