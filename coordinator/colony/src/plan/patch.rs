//! Proposes attribution patching on some of the train prompts.

use super::{Offer, Piece, Proposer, View, batches};
use crate::Dice;
use crate::mix::{Stratum, strata};
use crate::state::Stage;
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
        let prompts =
            strata(view.state).iter().flat_map(|s| unpatched(view, s)).collect::<Vec<_>>();
        let patch = |prompts| view.estimate(Estimator::ATP, prompts);
        let batches = batches(&prompts, view.patch_batch(prompts.len()));
        batches.into_iter().map(patch).collect::<Vec<Piece>>().into()
    }
}

/// Prompts of a stratum that are patched whatever its weight: without any, its effects cannot be told.
const LEAST: usize = 8;

/// The prompts of a stratum that are still to be patched: its share of them.
fn unpatched(view: &View<'_>, stratum: &Stratum) -> Vec<u32> {
    let budget = view.campaign.probe.patch_prompts;
    let least = LEAST.min(budget as usize);
    let wanted = (stratum.share_of(u64::from(budget)) as usize).max(least);
    let mut prompts = stratum.prompts.clone();
    prompts.sort_unstable();
    Dice::new(view.campaign.seed, "patch", 0).shuffle(&mut prompts);
    let all = prompts.len();
    let mut prompts = view.unasked(Stage::Patch, prompts);
    prompts.truncate(wanted.saturating_sub(all - prompts.len()));
    prompts
}

fn untraced(view: &View<'_>) -> &'static str {
    let is_trace = |work: &str| work == Estimator::TRACE.name();
    let mut open = view.state.tickets.values().filter(|t| !t.is_answered());
    let given_up = open.any(|t| is_trace(t.task.work.name()));
    if given_up { "no trace task was answered" } else { "no train prompt could be traced" }
}
