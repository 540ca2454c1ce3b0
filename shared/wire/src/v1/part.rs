//! A part of a training that several machines share, and what a machine tells of it.

use super::jobs::Recipe;
use super::{all, try_all};
use crate::Unread;
use serde::{Deserialize, Serialize};
use uspx_domain::{self as domain, BlobRef};

#[derive(Serialize, Deserialize)]
pub(crate) struct Part {
    train: Vec<BlobRef>,
    validation: Vec<BlobRef>,
    recipe: Recipe,
    rounds: Vec<Round>,
    steps: u32,
    place: Place,
}

#[derive(Serialize, Deserialize)]
struct Round {
    machines: u32,
    told: Vec<Of>,
}

/// What one machine told in a round.
#[derive(Serialize, Deserialize)]
struct Of {
    blob: BlobRef,
    tokens: u64,
}

one_of! {
    /// What is to be done of a shared training.
    Place { Machine(Machine) = "machine", End(End) = "end", }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Machine {
    at: u32,
    of: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct End {}

/// An answer to a machine's part.
#[derive(Serialize, Deserialize)]
pub(crate) struct Told {
    blob: BlobRef,
    tokens: u64,
    /// Unsaid where the machine does not judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<f32>,
    epoch: u32,
    left: u32,
}

impl From<&domain::Part> for Part {
    fn from(job: &domain::Part) -> Self {
        let domain::Part { train, validation, recipe, rounds, steps, place } = job;
        Self {
            train: train.clone(),
            validation: validation.clone(),
            recipe: (*recipe).into(),
            rounds: all(rounds),
            steps: *steps,
            place: (*place).into(),
        }
    }
}

impl TryFrom<Part> for domain::Part {
    type Error = Unread;
    fn try_from(job: Part) -> Result<Self, Unread> {
        let Part { train, validation, recipe, rounds, steps, place } = job;
        let (recipe, rounds) = (recipe.try_into()?, try_all(rounds)?);
        Ok(Self { train, validation, recipe, rounds, steps, place: place.try_into()? })
    }
}

impl From<&domain::Round> for Round {
    fn from(round: &domain::Round) -> Self {
        let of = |told: &domain::Told| Of { blob: told.blob, tokens: told.tokens };
        Self { machines: round.machines, told: round.told.iter().map(of).collect() }
    }
}

impl TryFrom<Round> for domain::Round {
    type Error = Unread;
    fn try_from(round: Round) -> Result<Self, Unread> {
        let told = |of: Of| domain::Told { blob: of.blob, tokens: of.tokens };
        let Round { machines, told: all } = round;
        Ok(Self { machines, told: all.into_iter().map(told).collect() })
    }
}

impl From<domain::Place> for Place {
    fn from(place: domain::Place) -> Self {
        match place {
            domain::Place::Machine { at, of } => Self::Machine(Machine { at, of }),
            domain::Place::End => Self::End(End {}),
        }
    }
}

impl TryFrom<Place> for domain::Place {
    type Error = Unread;
    fn try_from(place: Place) -> Result<Self, Unread> {
        match place {
            Place::Machine(Machine { at, of }) => Ok(Self::Machine { at, of }),
            Place::End(_) => Ok(Self::End),
            Place::Unknown => Err(Unread::Unknown("a part of a training")),
        }
    }
}

impl Told {
    pub(crate) fn new(told: domain::Told, loss: Option<f32>, (epoch, left): (u32, u32)) -> Self {
        Self { blob: told.blob, tokens: told.tokens, loss, epoch, left }
    }
}

impl From<Told> for domain::Outcome {
    fn from(answer: Told) -> Self {
        let Told { blob, tokens, loss, epoch, left } = answer;
        Self::Told { told: domain::Told { blob, tokens }, loss, epoch, left }
    }
}
