//! Proposes a training for each of the campaign's recipes: a task of its own, or, where machines
//! share it, round by round what it needs next.

use super::{Offer, Piece, Proposer, View, shared};
use crate::state::Stage;
use crate::{Purpose, Split};
use uspx_domain::{BlobRef, DistilRecipe, Work};

pub(super) struct Distil;

impl Proposer for Distil {
    fn stage(&self) -> Stage {
        Stage::Distil
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        let is_shared = view.campaign.together.is_shared();
        if view.was_opened(Stage::Distil) && !is_shared {
            return Offer::Nothing;
        }
        let (train, validation) = (labels(view, Split::Train), labels(view, Split::Validation));
        for (labels, what) in [
            (&train, "no train prompt was labelled"),
            (&validation, "no validation prompt was labelled"),
        ] {
            if labels.is_empty() {
                return Offer::Blocked(view.because(what, &["label"]));
            }
        }
        if is_shared {
            return shared::pieces(view, &train, &validation).into();
        }
        let work = |(number, recipe): (u32, DistilRecipe)| {
            let (train, validation) = (train.clone(), validation.clone());
            let distil = uspx_domain::Distil { train, validation, recipe };
            view.student(Purpose::Adapter(number), Work::Distil(distil))
        };
        view.campaign.distil.trainings().filter_map(work).collect::<Vec<Piece>>().into()
    }
}

/// What is labelled of a split, new prompts among it.
pub(super) fn labels(view: &View<'_>, split: Split) -> Vec<BlobRef> {
    let labels = view.state.results.labels.get(&split);
    labels.into_iter().flat_map(|l| l.values().copied()).collect()
}
