//! A training that several machines share, round by round: what is known of it, and what it needs
//! next. Pure: answers are folded in under their round and machine, so their order cannot matter
//! (invariant 1).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::{BlobRef, Part, Place, Round, Told};

/// Passes in a row that gain nothing before a training ends.
const PATIENCE: u32 = 2;

/// What is known of a recipe's shared training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// The labels that it began with: later ones would deal other batches than its machines had.
    pub train: Vec<BlobRef>,
    /// The labels that it is judged by.
    pub validation: Vec<BlobRef>,
    /// Its rounds, by number from 0.
    pub rounds: BTreeMap<u32, SharedRound>,
    /// Validation losses where a pass over the prompts began, by the pass from 1.
    pub losses: BTreeMap<u32, f32>,
    /// Whether the adapter was asked for.
    pub ended: bool,
}

/// A round of a shared training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRound {
    /// Machines among which its batches were dealt.
    pub machines: u32,
    /// What was told, by the machine's place.
    pub told: BTreeMap<u32, Told>,
    /// Batches of the whole plan that are left after it: the least that was told, so that no single
    /// machine can make a training longer.
    pub left: Option<u32>,
}

/// What a machine says of its part of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub told: Told,
    pub loss: Option<f32>,
    pub epoch: u32,
    pub left: u32,
}

/// What a shared training needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The round of this number.
    Round(u32),
    /// Its adapter.
    End,
    /// Nothing: its adapter was asked for, or a round that nobody answered has ended it.
    Nothing,
}

impl Shared {
    /// A part of it was planned.
    pub(crate) fn open(&mut self, round: u32, part: &Part) {
        match part.place {
            Place::End => self.ended = true,
            Place::Machine { of, .. } => {
                if self.rounds.is_empty() {
                    self.train.clone_from(&part.train);
                    self.validation.clone_from(&part.validation);
                }
                self.rounds.entry(round).or_default().machines = of;
            }
        }
    }

    /// A machine has done its part of a round.
    pub(crate) fn keep(&mut self, (round, at): (u32, u32), said: Said) {
        let Some(round) = self.rounds.get_mut(&round) else { return };
        round.told.insert(at, said.told);
        round.left = Some(round.left.map_or(said.left, |left| left.min(said.left)));
        // One loss a pass: the first machine's where it begins.
        if let Some(loss) = said.loss {
            self.losses.entry(said.epoch).or_insert(loss);
        }
    }

    /// What it needs next, once its last round is closed.
    pub(crate) fn due(&self) -> Due {
        let mut last = self.rounds.iter().rev();
        match last.next() {
            _ if self.ended => Due::Nothing,
            None => Due::Round(0),
            Some((_, SharedRound { left: None, .. })) => Due::Nothing,
            Some((number, SharedRound { left: Some(left), .. })) => {
                let before = last.next().and_then(|(_, round)| round.left);
                // Batches that do not become fewer would never end.
                let falls = before.is_none_or(|before| *left < before);
                let goes_on = *left > 0 && falls && !gains_no_more(self.losses.values().copied());
                if goes_on { Due::Round(number.saturating_add(1)) } else { Due::End }
            }
        }
    }

    /// Its rounds, as the next machines are told of them.
    pub(crate) fn told(&self) -> Vec<Round> {
        let round = |round: &SharedRound| Round {
            machines: round.machines,
            told: round.told.values().copied().collect(),
        };
        self.rounds.values().map(round).collect()
    }
}

/// Whether passes in a row gained nothing. Of the losses where passes begin, in order, the first is
/// the untrained student's and each later one what the pass before it was worth.
fn gains_no_more(losses: impl Iterator<Item = f32>) -> bool {
    let (mut best, mut vain) = (None, 0u32);
    for loss in losses {
        if best.is_none_or(|best| loss < best) {
            (best, vain) = (Some(loss), 0);
        } else {
            vain += 1;
        }
    }
    vain >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::StudentPlan;

    fn part(place: Place, labels: &[u8]) -> Part {
        let recipe = StudentPlan::default().recipes[0];
        let train = vec![BlobRef::to(labels)];
        Part { train, validation: vec![], recipe, rounds: vec![], steps: 30, place }
    }

    fn told(name: &str) -> Told {
        Told { blob: BlobRef::to(name.as_bytes()), tokens: 9 }
    }

    /// A round whose machines say these to be the batches left, each at its place.
    fn round(shared: &mut Shared, number: u32, left: &[Option<u32>]) {
        let of = left.len() as u32;
        shared.open(number, &part(Place::Machine { at: 0, of }, b"first"));
        for (at, left) in (0..).zip(left) {
            if let Some(left) = *left {
                let told = told(&format!("{number} {at}"));
                shared.keep((number, at), Said { told, loss: None, epoch: 1, left });
            }
        }
    }

    fn gained(losses: &[f32]) -> bool {
        !gains_no_more(losses.iter().copied())
    }

    #[test]
    fn two_passes_in_a_row_that_gain_nothing_end_it() {
        assert!(gained(&[]) && gained(&[3.0]) && gained(&[3.0, 2.0, 1.0]));
        assert!(gained(&[3.0, 2.0, 2.5]), "one may be worse");
        assert!(gained(&[3.0, 2.0, 2.5, 1.9, 2.0]), "and again after one that gained");
        assert!(!gained(&[3.0, 2.0, 2.5, 2.1]), "better than the last, not than the best");
        assert!(!gained(&[3.0, 3.0, 3.0]), "as good as before is no gain");
    }

    #[test]
    fn it_goes_round_by_round_until_no_batch_is_left() {
        let mut shared = Shared::default();
        assert_eq!(shared.due(), Due::Round(0));
        round(&mut shared, 0, &[Some(60), None, Some(60)]);
        assert_eq!(shared.due(), Due::Round(1), "a part that is lost costs its share");
        round(&mut shared, 1, &[Some(0)]);
        assert_eq!(shared.due(), Due::End);
        let rounds = shared.told();
        let names = |round: &Round| round.told.iter().map(|t| t.blob).collect::<Vec<_>>();
        assert_eq!((rounds[0].machines, rounds[1].machines), (3, 1));
        assert_eq!(names(&rounds[0]), ["0 0", "0 2"].map(|n| BlobRef::to(n.as_bytes())));
        shared.open(0, &part(Place::End, b"first"));
        assert_eq!(shared.due(), Due::Nothing);
        assert_eq!(shared.rounds.len(), 2, "the end is no round");
    }

    #[test]
    fn a_round_that_nobody_answers_ends_it_without_an_adapter() {
        let mut shared = Shared::default();
        round(&mut shared, 0, &[Some(60), Some(60)]);
        round(&mut shared, 1, &[None, None]);
        assert_eq!(shared.due(), Due::Nothing);
    }

    #[test]
    fn no_word_makes_a_training_longer() {
        let mut shared = Shared::default();
        round(&mut shared, 0, &[Some(60), Some(u32::MAX)]);
        assert_eq!(shared.rounds[&0].left, Some(60), "the least counts");
        round(&mut shared, 1, &[Some(60)]);
        assert_eq!(shared.due(), Due::End, "no batch was taken");
    }

    #[test]
    fn it_keeps_the_labels_and_the_losses_that_it_began_with() {
        let mut shared = Shared::default();
        let said = |loss| Said { told: told("t"), loss: Some(loss), epoch: 1, left: 9 };
        shared.open(0, &part(Place::Machine { at: 0, of: 1 }, b"first"));
        shared.keep((0, 0), said(3.0));
        shared.open(1, &part(Place::Machine { at: 0, of: 1 }, b"later"));
        shared.keep((1, 0), said(1.0));
        assert_eq!(shared.train, [BlobRef::to(b"first")]);
        assert_eq!(shared.losses, [(1, 3.0)].into(), "a pass begins once");
        shared.keep((7, 0), said(1.0));
        assert_eq!(shared.rounds.len(), 2, "a round that was never opened is none");
    }
}
