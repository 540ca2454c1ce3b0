//! One attempt at a training, and which is to follow: how fast and how long a student should learn shows
//! only by its loss on the validation answers.

use crate::Result;
use crate::adam_w::set;
use crate::state::Turn;
use candle_core::{Tensor, Var};
use uspx_domain::{DistilRecipe, TrainingSummary};

/// How much was learned from in how long: steps alone, without what they are judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Seconds of the steps on them.
    pub seconds: f64,
}

impl Pace {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { tokens: self.tokens + other.tokens, seconds: self.seconds + other.seconds }
    }
}

/// A training that was made.
pub(crate) struct Attempt {
    /// The adapters that hang on the student.
    pub vars: Vec<Var>,
    /// Their values after the best pass.
    pub values: Vec<Tensor>,
    /// How it went.
    pub summary: TrainingSummary,
    /// How fast.
    pub pace: Pace,
    /// By what.
    pub recipe: DistilRecipe,
}

impl Attempt {
    /// Whether it made passes that only cost.
    pub fn went_too_far(&self) -> bool {
        self.summary.best_epoch < self.recipe.epochs
    }

    /// The recipe with a third of the rate: what suits a width may be too much for few prompts, or for a
    /// student that knows most of it already. None where every pass gained.
    pub fn slower(&self) -> Option<DistilRecipe> {
        let learning_rate = self.recipe.learning_rate / 3.0;
        self.went_too_far().then_some(DistilRecipe { learning_rate, ..self.recipe })
    }

    /// The recipe with as many passes as gained anything: the rate then falls to its end within them.
    /// None where it did, or nothing was gained.
    pub fn shorter(&self) -> Option<DistilRecipe> {
        let epochs = self.summary.best_epoch;
        (epochs > 0 && self.went_too_far()).then_some(DistilRecipe { epochs, ..self.recipe })
    }

    /// The better of this and a later one, whose adapters hang on the student now; the steps are those
    /// of both.
    pub fn or(self, later: Self) -> Self {
        let steps = self.summary.steps + later.summary.steps;
        let (vars, pace) = (later.vars.clone(), self.pace.and(later.pace));
        let better = if later.summary.after < self.summary.after { later } else { self };
        Self { vars, pace, summary: TrainingSummary { steps, ..better.summary }, ..better }
    }

    /// Gives the student's adapters the best values.
    pub fn attach(&self) -> Result<()> {
        set(&self.vars, &self.values)
    }
}

impl Turn {
    /// What follows this attempt, `best` being the best so far: nothing, or which and by what recipe.
    pub fn next(self, best: &Attempt, rate_is_open: bool) -> Option<(Self, DistilRecipe)> {
        let slower = best.slower().filter(|_| self == Self::First && rate_is_open);
        let shorter = best.shorter().filter(|_| self != Self::Shorter);
        let slower = slower.map(|recipe| (Self::Slower, recipe));
        slower.or(shorter.map(|recipe| (Self::Shorter, recipe)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe_teacher;
    use candle_core::Device;

    fn attempt(value: f32, after: f32, best_epoch: u32) -> Attempt {
        let tensor = |x: f32| Tensor::new(&[x], &Device::Cpu).unwrap();
        Attempt {
            vars: vec![Var::from_tensor(&tensor(9.0)).unwrap()],
            values: vec![tensor(value)],
            summary: TrainingSummary { steps: 10, before: 3.0, after, best_epoch },
            pace: Pace { tokens: 7, seconds: 0.5 },
            recipe: DistilRecipe { epochs: 5, learning_rate: 3e-3, ..recipe_teacher() },
        }
    }

    #[test]
    fn what_follows_is_slower_and_then_shorter_until_every_pass_gains() {
        let next = |turn: Turn, best_epoch, is_open| {
            let next = turn.next(&attempt(0.0, 2.0, best_epoch), is_open);
            next.map(|(turn, recipe)| (turn, recipe.epochs, (recipe.learning_rate * 1e4) as u32))
        };
        let (slower, shorter) = ((Turn::Slower, 5, 10), (Turn::Shorter, 2, 30));
        for turn in [Turn::First, Turn::Slower, Turn::Shorter] {
            assert_eq!(next(turn, 5, true), None);
        }
        assert_eq!([next(Turn::First, 2, true), next(Turn::First, 0, true)], [Some(slower); 2]);
        assert_eq!(
            [next(Turn::First, 2, false), next(Turn::First, 0, false)],
            [Some(shorter), None]
        );
        assert_eq!(
            [next(Turn::Slower, 2, true), next(Turn::Slower, 0, true)],
            [Some(shorter), None]
        );
        assert_eq!(next(Turn::Shorter, 2, true), None);
    }

    #[test]
    fn the_better_one_s_values_hang_on_the_student() {
        for (first, second, kept) in [(2.0, 2.5, 1.0), (2.5, 2.0, 4.0)] {
            let both = attempt(1.0, first, 2).or(attempt(4.0, second, 3));
            both.attach().unwrap();
            let there = both.vars[0].as_tensor().to_vec1::<f32>().unwrap();
            assert_eq!((there, both.summary.steps), (vec![kept], 20));
            assert_eq!((both.summary.after, both.pace), (2.0, Pace { tokens: 14, seconds: 1.0 }));
        }
    }
}
