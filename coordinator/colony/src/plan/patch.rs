//! Proposes attribution patching on some of the train prompts.

use super::{Offer, Piece, Proposer, View, batches};
use crate::state::Stage;
use crate::{Dice, Split};
use uspx_domain::Estimator;

pub(super) struct Patch;

impl Proposer for Patch {
    fn stage(&self) -> Stage {
        Stage::Patch
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        if view.state.trails.is_empty() {
            return Offer::Blocked(view.because(untraced(view), &["trace"]));
        }
        let probe = &view.campaign.probe;
        let mut prompts = view.measurable(Split::Train);
        Dice::new(view.campaign.seed, "patch", 0).shuffle(&mut prompts);
        let asked = view.state.asked.get(&Stage::Patch).map_or(0, |asked| asked.len());
        let mut prompts = view.unasked(Stage::Patch, prompts);
        prompts.truncate((probe.patch_prompts as usize).saturating_sub(asked));
        let patch = |prompts| view.estimate(Estimator::ATP, prompts);
        let batches = batches(&prompts, view.patch_batch(prompts.len()));
        batches.into_iter().map(patch).collect::<Vec<Piece>>().into()
    }
}

fn untraced(view: &View<'_>) -> &'static str {
    let is_trace = |work: &str| work == Estimator::TRACE.name();
    let mut open = view.state.tickets.values().filter(|t| !t.is_answered());
    let given_up = open.any(|t| is_trace(t.task.work.name()));
    if given_up { "no trace task was answered" } else { "no train prompt could be traced" }
}
