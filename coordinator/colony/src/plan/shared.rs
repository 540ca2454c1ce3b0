//! What trainings need next that several machines share: of each recipe a part for every machine
//! of its next round, or its end. All recipes' next rounds are one batch of work.

use super::{Piece, View};
use crate::Purpose;
use crate::together::{Due, Shared};
use uspx_domain::{BlobRef, DistilRecipe, Part, Place, Work};

/// The next pieces of every recipe; the first round of each takes these labels.
pub(super) fn pieces(view: &View<'_>, train: &[BlobRef], validation: &[BlobRef]) -> Vec<Piece> {
    let begun =
        || Shared { train: train.to_vec(), validation: validation.to_vec(), ..Shared::default() };
    let next = |(number, recipe): (u32, DistilRecipe)| {
        let known = view.state.results.shared.get(&number).cloned();
        of_recipe(view, (number, recipe), &known.unwrap_or_else(begun))
    };
    view.campaign.distil.trainings().flat_map(next).collect()
}

fn of_recipe(view: &View<'_>, (number, recipe): (u32, DistilRecipe), known: &Shared) -> Vec<Piece> {
    // Each machine's steps take its share of a batch: together they take as many steps as one alone would.
    let batch_tokens = (recipe.batch_tokens / view.campaign.together.machines.max(1)).max(1);
    let recipe = DistilRecipe { batch_tokens, ..recipe };
    let part = |place| {
        let (train, validation) = (known.train.clone(), known.validation.clone());
        let (rounds, steps) = (known.told(), view.campaign.together.steps);
        Work::Part(Part { train, validation, recipe, rounds, steps, place })
    };
    match known.due() {
        Due::Nothing => Vec::new(),
        Due::End => view.student(Purpose::Adapter(number), part(Place::End)).into_iter().collect(),
        Due::Round(round) => {
            let of = machines(view, &part(Place::Machine { at: 0, of: 1 }));
            let piece = |at| {
                let purpose = Purpose::Part { recipe: number, round, at };
                view.student(purpose, part(Place::Machine { at, of }))
            };
            (0..of).filter_map(piece).collect()
        }
    }
}

/// Machines that share a round: as many as the campaign wants, as far as they are there now.
fn machines(view: &View<'_>, work: &Work<u32>) -> u32 {
    let able = view.campaign.student.map_or(0, |student| view.speeds.able(student, work));
    view.campaign.together.machines.min(u32::try_from(able).unwrap_or(u32::MAX)).max(1)
}
