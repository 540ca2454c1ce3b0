//! Proposes labels of train and validation prompts, by the teacher under the mask that costs little
//! enough.

use super::{Offer, Piece, Proposer, View, batches};
use crate::state::Stage;
use crate::{Purpose, Split, State, TrialRole};
use uspx_domain::{Dreams, Mask, Work};

pub(super) struct Label;

impl Proposer for Label {
    fn stage(&self) -> Stage {
        Stage::Label
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        let mask = label_mask(view.state);
        // Labels of another mask are made anew; those of the same one stand.
        let stand = view.state.results.label_mask == mask;
        let due = |split| {
            let prompts = view.campaign.split(split);
            if stand { view.unasked(Stage::Label, prompts) } else { prompts }
        };
        if view.was_opened(Stage::Label) {
            return Offer::Nothing;
        }
        let of = |split| {
            let due = due(split);
            let batches = batches(&due, view.label_batch(due.len()));
            batches.into_iter().map(move |prompts| (prompts, split))
        };
        let work = |(prompts, split)| {
            view.teacher(Purpose::Labels(split), label(view, (prompts, split), mask.clone()))
        };
        of(Split::Train).chain(of(Split::Validation)).map(work).collect::<Vec<Piece>>().into()
    }
}

/// A task of labels. What is only chosen by has no prompts beside it.
pub(super) fn label(
    view: &View<'_>,
    (prompts, split): (Vec<u32>, Split),
    mask: Option<Mask>,
) -> Work<u32> {
    let student = &view.campaign.distil;
    let rounds = if split == Split::Train { view.campaign.dream.rounds } else { 0 };
    let seed = view.campaign.seed;
    let dreams = Dreams { rounds, seed };
    let answers = view.campaign.answers;
    let answering = if split == Split::Train { answers } else { answers.for_judging() };
    Work::Label(uspx_domain::Label {
        prompts,
        mask,
        top_k: student.top_k,
        max_new_tokens: student.max_new_tokens,
        max_reasoning_tokens: student.max_reasoning_tokens,
        dreams: if rounds > 0 { dreams } else { Dreams::default() },
        answering,
        // What draws nothing is the same task whatever the seed.
        seed: if answering.samples > 0 { seed } else { 0 },
    })
}

/// The mask that cuts most while the validation loss rises by no more than the campaign's bound;
/// none where all cost more.
pub fn label_mask(state: &State) -> Option<Mask> {
    let campaign = state.campaign.as_ref()?;
    let validation =
        |at: u32| campaign.prompts.get(at as usize).is_some_and(|p| p.split == Split::Validation);
    let rises = state.results.rises(validation);
    let candidates =
        rises.iter().filter(|(role, _)| matches!(role, TrialRole::Chosen | TrialRole::Curve(_)));
    let rises =
        candidates.filter_map(|(role, rise)| Some((*rise, &state.results.trials.get(role)?.mask)));
    let allowed = rises.filter(|(rise, _)| *rise <= campaign.judge.label_rise);
    let size = |mask: &Mask| mask.cut(&campaign.shape, campaign.mask.kind).len();
    // Of equal cuts, the cheaper.
    let best = allowed.min_by(|a, b| size(b.1).cmp(&size(a.1)).then(a.0.total_cmp(&b.0)))?;
    (size(best.1) > 0).then(|| best.1.clone())
}
