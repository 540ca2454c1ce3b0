//! A part of a training that several machines share (DiLoCo, arXiv 2311.08105): in a round each
//! machine trains alone on its share of the next batches and tells how far it came; whoever begins
//! the next round, or makes the adapter, puts together what was told in all rounds before.

use super::{Distil, DistilRecipe, Job};
use crate::{Asked, BlobRef, LARGEST, MOST_TOKENS, Outcome, Refusal};
use serde::{Deserialize, Serialize};

/// A machine's part of a round of a training that several machines share, or the training's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Label blobs to learn from.
    pub train: Vec<BlobRef>,
    /// Label blobs to stop early on.
    pub validation: Vec<BlobRef>,
    /// How.
    pub recipe: DistilRecipe,
    /// What the machines told in each round before, in order.
    pub rounds: Vec<Round>,
    /// Steps of each machine in a round.
    pub steps: u32,
    /// What is to be done after those rounds.
    pub place: Place,
}

/// A round that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Machines among which its batches were dealt.
    pub machines: u32,
    /// What those told that answered, in the order of the machines.
    pub told: Vec<Told>,
}

/// How far a machine came in its part of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The blob.
    pub blob: BlobRef,
    /// Tokens learned from: what it weighs.
    pub tokens: u64,
}

/// What is to be done of a shared training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A machine's part of the next round.
    Machine {
        /// Which machine's, from 0.
        at: u32,
        /// Machines among which the round's batches are dealt.
        of: u32,
    },
    /// No more rounds: make the adapter.
    End,
}

impl Part {
    /// The most tokens that a machine can have learned from: a step has about as many as the recipe
    /// says, but for one text that is longer by itself.
    fn most_tokens(&self) -> u64 {
        let step = u64::from(self.recipe.batch_tokens) + u64::from(MOST_TOKENS);
        u64::from(self.steps).saturating_mul(step)
    }

    fn check_told(&self, at: u32, outcome: &Outcome) -> Result<(), Refusal> {
        let Outcome::Told { told, loss, epoch, .. } = outcome else {
            return Err(Refusal::Kind("part"));
        };
        let is_loss = |loss: f32| at == 0 && (0.0..=LARGEST).contains(&loss);
        match () {
            () if !loss.is_none_or(is_loss) => Err(Refusal::Value("a validation loss")),
            () if !(1..=self.recipe.epochs.max(1)).contains(epoch) => {
                Err(Refusal::Value("the pass of a training"))
            }
            () if told.tokens > self.most_tokens() => {
                Err(Refusal::Value("the number of tokens learned from"))
            }
            () => Ok(()),
        }
    }
}

impl<P> Job<P> for Part {
    fn name(&self) -> &'static str {
        "part"
    }

    fn prompts(&self) -> &[P] {
        &[]
    }

    fn blobs(&self) -> Vec<BlobRef> {
        let told = self.rounds.iter().flat_map(|round| &round.told).map(|told| &told.blob);
        self.train.iter().chain(&self.validation).chain(told).copied().collect()
    }

    /// Only the first machine judges where a round begins, so only it may tell a loss.
    fn check(&self, _: &Asked<'_>, outcome: &Outcome) -> Result<(), Refusal> {
        match (self.place, outcome) {
            (Place::Machine { at, .. }, _) => self.check_told(at, outcome),
            (Place::End, Outcome::Adapter { summary, .. }) => Distil::check_summary(summary),
            (Place::End, _) => Err(Refusal::Kind("part")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DistilLoss, ModelShape, TrainingSummary};

    fn told(name: &str) -> Told {
        Told { blob: BlobRef::to(name.as_bytes()), tokens: 900 }
    }

    fn part(place: Place) -> Part {
        let recipe = DistilRecipe {
            rank: 4,
            alpha: 4.0,
            epochs: 3,
            learning_rate: 1e-3,
            batch_tokens: 512,
            teacher_weight: 0.5,
            seed: 1,
            loss: DistilLoss::HYBRID,
            nf4: false,
        };
        let rounds = vec![Round { machines: 3, told: vec![told("one"), told("three")] }];
        let labels = |name: &[u8]| vec![BlobRef::to(name)];
        let (train, validation) = (labels(b"train"), labels(b"validation"));
        Part { train, validation, recipe, rounds, steps: 30, place }
    }

    fn check(part: &Part, outcome: &Outcome) -> Result<(), Refusal> {
        let shape = ModelShape { layers: vec![] };
        let job: &dyn Job<u32> = part;
        job.check(&Asked { ids: vec![], shape: &shape }, outcome)
    }

    fn adapter(after: f32) -> Outcome {
        let summary = TrainingSummary { steps: 90, before: 3.0, after, best_epoch: 2 };
        Outcome::Adapter { blob: BlobRef::to(b"adapter"), summary }
    }

    fn answer(loss: Option<f32>, epoch: u32, tokens: u64) -> Outcome {
        Outcome::Told { told: Told { tokens, ..told("new") }, loss, epoch, left: 7 }
    }

    const FIRST: Place = Place::Machine { at: 0, of: 3 };
    const SECOND: Place = Place::Machine { at: 1, of: 3 };

    #[test]
    fn it_names_labels_and_what_was_told() {
        let job: &dyn Job<u32> = &part(FIRST);
        let names: [&[u8]; 4] = [b"train", b"validation", b"one", b"three"];
        assert_eq!(job.blobs(), names.map(BlobRef::to));
        assert_eq!(answer(None, 1, 9).blobs(), [BlobRef::to(b"new")]);
        assert!(job.prompts().is_empty() && !job.is_comparable());
    }

    #[test]
    fn each_place_has_its_own_answer() {
        let (first, end) = (part(FIRST), part(Place::End));
        assert_eq!(check(&first, &answer(Some(3.5), 1, 900)), Ok(()));
        assert_eq!(check(&first, &answer(None, 3, 0)), Ok(()), "fewer batches than machines");
        assert_eq!(check(&end, &adapter(2.0)), Ok(()));
        let kind = Err(Refusal::Kind("part"));
        assert_eq!(check(&first, &adapter(2.0)), kind);
        assert_eq!(check(&end, &answer(None, 1, 900)), kind);
        assert_eq!(check(&end, &Outcome::Losses(vec![])), kind);
    }

    #[test]
    fn an_answer_that_cannot_be_is_refused() {
        let refused = |outcome| {
            let refused = check(&part(FIRST), &outcome);
            assert!(matches!(refused, Err(Refusal::Value(_))), "{outcome:?}");
        };
        for loss in [f32::NAN, f32::INFINITY, -1.0, 2.0 * LARGEST] {
            refused(answer(Some(loss), 1, 900));
        }
        refused(answer(None, 0, 900));
        refused(answer(None, 4, 900));
        refused(answer(None, 1, u64::MAX));
        let other = check(&part(SECOND), &answer(Some(3.5), 1, 900));
        assert_eq!(other, Err(Refusal::Value("a validation loss")), "the first machine judges");
        let end = check(&part(Place::End), &adapter(f32::NAN));
        assert_eq!(end, Err(Refusal::Value("a validation loss")));
    }

    #[test]
    fn no_number_of_steps_overflows() {
        let mut part = part(FIRST);
        (part.steps, part.recipe.batch_tokens) = (u32::MAX, u32::MAX);
        assert_eq!(part.most_tokens(), u64::MAX);
    }
}
