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
        nf4: false,
    }
}

/// Peak learning rate of a student of width 1 where the adapters' scale is 1: it falls with the root of
/// the width. Measured best within a factor of two at 128 (1e-3) and 256 (5e-4 to 7e-4); at 4,096 it
/// is what is usual for models of 8 billion parameters (2e-4).
const RATE: f64 = 0.0113;
/// The rank at which those were measured.
const MEASURED_RANK: f64 = 64.0;
/// How the rate falls where the rank is higher: more columns move the weights together. Measured best at four
/// times the rank: a third.
const BY_RANK: f64 = 0.8;
/// Students up to this width can afford adapters of high rank, which learn more; larger ones have 16, as is usual.
const NARROW: usize = 1024;
/// The highest rank of these. At the student's own width adapters can move its weights anywhere: at 256, 300 prompts
/// with new ones come .004 bits per byte lower than by rank 64, 1,900 more than that.
const HIGH_RANK: usize = 256;

/// The open rate of a student of so many values a token.
fn open_rate(hidden: usize, rank: u32) -> f64 {
    let many = (f64::from(rank) / MEASURED_RANK).max(1.0);
    RATE / (hidden.max(1) as f64).sqrt() / many.powf(BY_RANK)
}

/// The recipe with what it leaves open (0) as it suits a student of so many values a token.
pub fn resolved(recipe: &DistilRecipe, hidden: usize) -> DistilRecipe {
    let open = |given: f32, usual: f32| if given == 0.0 { usual } else { given };
    let usual_rank = if hidden <= NARROW { hidden.clamp(1, HIGH_RANK) as u32 } else { 16 };
    let rank = if recipe.rank == 0 { usual_rank } else { recipe.rank };
    DistilRecipe {
        rank,
        alpha: open(recipe.alpha, rank as f32),
        learning_rate: open(recipe.learning_rate, open_rate(hidden, rank) as f32),
        ..*recipe
    }
}

/// Refuses what cannot be followed.
///
/// # Errors
/// [`DistillError::Recipe`], with the number that is at fault.
pub fn check(recipe: &DistilRecipe) -> Result<()> {
    let refuse = |reason: String| Err(DistillError::Recipe(reason));
    if recipe.epochs == 0 || recipe.batch_tokens == 0 {
        return refuse("epochs and batch_tokens must be above 0".into());
    }
    if !(0.0..=1.0).contains(&recipe.teacher_weight) {
        return refuse(format!(
            "teacher_weight is {}, it must lie between 0 and 1",
            recipe.teacher_weight
        ));
    }
    let usable = |x: f32| x.is_finite() && x >= 0.0;
    if !usable(recipe.learning_rate) || !usable(recipe.alpha) {
        return refuse(format!(
            "learning_rate {} and alpha {} must be above 0, or 0 for what suits the student",
            recipe.learning_rate, recipe.alpha
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_follows_from_the_student_s_width() {
        let open = DistilRecipe { rank: 0, alpha: 0.0, learning_rate: 0.0, ..recipe_teacher() };
        let (small, large) = (resolved(&open, 128), resolved(&open, 4096));
        assert_eq!((small.rank, small.alpha, large.rank, large.alpha), (128, 128.0, 16, 16.0));
        assert!((small.learning_rate - 5.7e-4).abs() < 1e-5, "{small:?}");
        assert_eq!([256, 896].map(|hidden| resolved(&open, hidden).rank), [256; 2]);
        assert!((large.learning_rate - 1.77e-4).abs() < 1e-5, "{large:?}");
        let high = resolved(&DistilRecipe { rank: 256, ..open }, 128);
        assert!((high.learning_rate * 3.0 - 1e-3).abs() < 2e-5 && high.alpha == 256.0, "{high:?}");
        let [low, usual] = [8, 64].map(|rank| resolved(&DistilRecipe { rank, ..open }, 128));
        assert!(
            low.learning_rate == usual.learning_rate && (low.learning_rate - 1e-3).abs() < 1e-5
        );
        assert_eq!(resolved(&recipe_teacher(), 4096), recipe_teacher());
        assert_eq!(resolved(&small, 4096), small);
        assert!(check(&open).is_ok());
        assert!(check(&DistilRecipe { learning_rate: -1.0, ..open }).is_err());
        assert!(check(&DistilRecipe { alpha: f32::NAN, ..open }).is_err());
    }
}
