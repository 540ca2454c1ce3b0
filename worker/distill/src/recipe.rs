//! The recipes that stand behind `uspx demo` and the colony's first student.
//!
//! Chosen on the last prompts of the shipped training set by `examples/tune.rs`; held-out prompts
//! only judged them.

use crate::{DistillError, Result};
use uspx_domain::{DistilLoss, DistilRecipe};

/// Learns from the references' text alone. Fewer passes: by the fourth it only learns them by
/// heart.
pub fn recipe_references() -> DistilRecipe {
    DistilRecipe { teacher_weight: 0.0, epochs: 3, learning_rate: 2e-3, ..recipe_teacher() }
}

/// Learns the teacher's distribution along the references, and their text where the teacher's word
/// is not known.
///
/// Rank 64 is high for LoRA: the shipped student is 128 wide, and rank 16 left a third of the gain
/// behind.
pub fn recipe_teacher() -> DistilRecipe {
    DistilRecipe {
        rank: 64,
        alpha: 64.0,
        epochs: 5,
        learning_rate: 3e-3,
        batch_tokens: 512,
        teacher_weight: 1.0,
        seed: 1,
        loss: DistilLoss::HYBRID,
    }
}

/// Refuses what cannot be followed.
///
/// # Errors
/// [`DistillError::Recipe`], with the number that is at fault.
pub fn check(recipe: &DistilRecipe) -> Result<()> {
    let refuse = |reason: String| Err(DistillError::Recipe(reason));
    if recipe.rank == 0 || recipe.epochs == 0 || recipe.batch_tokens == 0 {
        return refuse("rank, epochs and batch_tokens must be above 0".into());
    }
    if !(0.0..=1.0).contains(&recipe.teacher_weight) {
        return refuse(format!(
            "teacher_weight is {}, it must lie between 0 and 1",
            recipe.teacher_weight
        ));
    }
    let positive = |x: f32| x.is_finite() && x > 0.0;
    if !positive(recipe.learning_rate) || !positive(recipe.alpha) {
        return refuse(format!(
            "learning_rate {} and alpha {} must be above 0",
            recipe.learning_rate, recipe.alpha
        ));
    }
    Ok(())
}
