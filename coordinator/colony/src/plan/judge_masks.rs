//! Proposes that the mask be judged: against random ones of its size and rule, and along the curve.
//! The gate prompts are for reports only; the mask to label with is chosen on the validation
//! prompts.

use super::{Offer, Piece, Proposer, View, batches};
use crate::mask::{Budget, build, random_mask};
use crate::state::Stage;
use crate::{Dice, Purpose, Share, Split, TrialRole};
use uspx_domain::{Ablate, Cut, Mask, Work};

/// A mask to try, and what it is.
pub(super) type MaskTrial = (TrialRole, Mask);

pub(super) struct JudgeMasks;

impl Proposer for JudgeMasks {
    fn stage(&self) -> Stage {
        Stage::JudgeMasks
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        if view.was_opened(Stage::JudgeMasks) {
            return Offer::Nothing;
        }
        if view.state.mask.is_none() {
            let what = "there is no evidence to draw a mask from";
            return Offer::Blocked(view.because(what, &["ablate"]));
        }
        let (chosen, random, curve) = (view.chosen(), view.random(), view.curve());
        let all: Vec<MaskTrial> = chosen.iter().chain(&random).chain(&curve).cloned().collect();
        let candidates: Vec<MaskTrial> = chosen.into_iter().chain(curve).collect();
        let mut works = view.under(Split::Gate, &all);
        works.extend(view.under(Split::Validation, &candidates));
        works.into()
    }
}

/// A task that tries masks on the teacher.
pub(super) fn trials(view: &View<'_>, prompts: Vec<u32>, trials: Vec<MaskTrial>) -> Piece {
    let (roles, masks): (Vec<TrialRole>, Vec<Mask>) = trials.into_iter().unzip();
    let cuts = masks.into_iter().map(Cut::Mask).collect();
    view.teacher(Purpose::Trials(roles), Work::Ablate(Ablate { prompts, cuts }))
}

impl View<'_> {
    /// Every trial on every prompt of a split.
    fn under(&self, split: Split, cuts: &[MaskTrial]) -> Vec<Piece> {
        let judge = &self.campaign.judge;
        let groups = batches(cuts, judge.masks_per_task);
        let most = groups.iter().map(Vec::len).max().unwrap_or(0);
        let prompts = self.campaign.split(split);
        let prompts = batches(&prompts, self.mask_batch(most, prompts.len()));
        let each = |prompts: &Vec<u32>| {
            let prompts = prompts.clone();
            groups.iter().map(move |group| trials(self, prompts.clone(), group.clone()))
        };
        prompts.iter().flat_map(each).collect()
    }

    fn chosen(&self) -> Vec<MaskTrial> {
        let mask = self.state.mask.as_ref().map(|m| m.mask.clone());
        mask.into_iter().map(|mask| (TrialRole::Chosen, mask)).collect()
    }

    fn random(&self) -> Vec<MaskTrial> {
        let budget = Budget::of(self.campaign);
        let mask = |number| {
            random_mask(
                &mut Dice::new(self.campaign.seed, "random mask", u64::from(number)),
                &budget,
            )
        };
        let cut = |number| (TrialRole::Random(number), mask(number));
        (0..self.campaign.judge.random_masks).map(cut).collect()
    }

    fn curve(&self) -> Vec<MaskTrial> {
        let Some(version) = &self.state.mask else { return Vec::new() };
        let budget = Budget::of(self.campaign);
        let at = |pruned: &Share| {
            let budget = budget.keeping(pruned.rest());
            (TrialRole::Curve(pruned.0), budget.mask(build(&budget, &version.scores)))
        };
        self.campaign.judge.curve.iter().map(at).collect()
    }
}
