//! Proposes a sparse autoencoder for each layer that the campaign wants one of, a task each. Nothing
//! rests on them: one that cannot be trained holds nothing up.

use super::{Offer, Piece, Proposer, View};
use crate::state::Stage;
use crate::{Purpose, Split};
use uspx_domain::Work;

pub(super) struct Sae;

impl Proposer for Sae {
    fn stage(&self) -> Stage {
        Stage::Sae
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        if view.was_opened(Stage::Sae) {
            return Offer::Nothing;
        }
        let trained = &view.state.results.saes;
        let wanted = view.campaign.sae.layers.iter().filter(|layer| !trained.contains_key(layer));
        wanted.map(|layer| sae(view, *layer)).collect::<Vec<Piece>>().into()
    }
}

/// The training of a layer's, judged by the prompts for choices.
pub(super) fn sae(view: &View<'_>, layer: u32) -> Piece {
    let (mut prompts, judged) = (view.measurable(Split::Train), view.measurable(Split::Validation));
    let count = judged.len() as u32;
    prompts.extend(judged);
    let recipe = view.campaign.sae.recipe;
    let work = Work::Sae(uspx_domain::Sae { prompts, judged: count, layer, recipe });
    view.teacher(Purpose::Sae(layer), work)
}
