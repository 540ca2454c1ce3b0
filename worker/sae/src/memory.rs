//! What an SAE takes of memory beside the model that it reads, for the plan that batches are cut by.

use crate::Recipe;
use crate::attach::READING;
use crate::sae::Sae;
use uspx_model::budget::{Beside, Bytes};

const FLOAT: u64 = size_of::<f32>() as u64;

/// Copies of the weights in a training: themselves, Adam's moments, their gradient.
const LEARNING: u64 = 4;

/// Copies of weights and moments while a checkpoint is written: as they are, as bytes, as a file.
const KEEPING: u64 = 9;

/// Rows of the stream that a step has for each of its tokens: what it learns from, centred, made,
/// missed, the slope, and the same of the dead features.
const STEP_ROWS: u64 = 12;

/// Rows of the stream for each token of a batch whose SAE is judged: the activations, normalised and
/// centred, three grafts, their tensors.
const JUDGED_ROWS: u64 = 12;

/// Rows of the stream for each token of a batch whose features are read or cut.
const READ_ROWS: u64 = 6;

/// Bytes of a token's active features.
const ACTIVE: u64 = 512;

/// Effects and moments of a feature while they are added up, in bytes.
const MOMENTS: u64 = 128;

/// An SAE's weights.
fn weights(features: u64) -> Bytes {
    Bytes { fixed: FLOAT * features, by_width: FLOAT * (2 * features + 1) }
}

fn times(n: u64, bytes: Bytes) -> Bytes {
    Bytes { fixed: n * bytes.fixed, by_width: n * bytes.by_width }
}

/// An SAE whose features are units: its weights, and what reading them takes.
pub fn of_units(sae: &Sae<f32>) -> Beside {
    let features = sae.parameters.features() as u64;
    let reading = Bytes { fixed: 3 * READING + MOMENTS * features, by_width: 0 };
    // A prompt has sixteen tokens at least, mostly: its sums are theirs.
    let token = Bytes { fixed: ACTIVE + features, by_width: READ_ROWS * FLOAT };
    Beside { held: weights(features) + reading, token }
}

/// A training by a recipe: weights, moments, a step, and the activations that are held.
pub fn of_training(recipe: &Recipe) -> Beside {
    let (features, batch) = (recipe.features as u64, recipe.batch as u64);
    let step = Bytes { fixed: batch * FLOAT * features, by_width: batch * FLOAT * STEP_ROWS };
    let learning = times(LEARNING, weights(features)) + step;
    let keeping = times(KEEPING, weights(features));
    let rows = recipe.buffer as u64;
    let buffer = Bytes { fixed: rows * 2 * size_of::<usize>() as u64, by_width: rows * FLOAT };
    let token = Bytes { fixed: 0, by_width: 2 * FLOAT };
    Beside { held: learning.most(keeping) + buffer, token }
}

/// An SAE of so many features that is judged.
pub fn of_judging(features: usize) -> Beside {
    let features = features as u64;
    let token = Bytes { fixed: FLOAT * features + ACTIVE, by_width: JUDGED_ROWS * FLOAT };
    Beside { held: weights(features), token }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::sae::Normalisation;
    use crate::select::Select;

    #[test]
    fn weights_are_counted_as_they_are() {
        let parameters = Parameters::<f32>::zero(24, 96);
        let values: usize = parameters.lists().iter().map(|list| list.len()).sum();
        assert_eq!(weights(96).at(24), 4 * values as u64);
        let sae = Sae { parameters, select: Select::Positive, normalisation: Normalisation::None };
        assert!(of_units(&sae).held.at(24) > weights(96).at(24));
    }

    #[test]
    fn a_training_takes_more_than_what_it_makes() {
        let recipe = Recipe { features: 4096, ..Recipe::default() };
        let (training, judging) = (of_training(&recipe), of_judging(4096));
        assert!(training.held.at(512) > 4 * judging.held.at(512));
        let step = 4 * (recipe.batch * recipe.features) as u64;
        assert!(of_training(&Recipe { batch: 8192, ..recipe }).held.at(8) > step);
        assert!(judging.token.at(512) > training.token.at(512));
        let both = training.most(judging);
        assert!(
            both.held.at(512) >= training.held.at(512) && both.token.at(8) >= judging.token.at(8)
        );
    }
}
