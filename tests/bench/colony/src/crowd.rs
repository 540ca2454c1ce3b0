//! Who answers a campaign: one honest worker, or many, some of whom lie and some of whom run on other hardware.

use crate::failed;
use std::collections::BTreeMap;
use uspx_bench_engine::error::Result;
use uspx_colony::Dice;
use uspx_domain::{Outcome, WorkerId};

/// How a worker's numbers differ from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not at all.
    Honest,
    /// As those of other hardware: all a little, few of them more (a router's tie falls the other way).
    Elsewhere,
    /// Three times what they are.
    Scaled,
    /// The other way round.
    Flipped,
    /// All alike.
    Constant,
    /// Drawn.
    Random,
    /// Drawn, and alike at all that are of this kind.
    Colluding,
}

/// What other hardware differs by: all numbers by this share of them ...
const NOISE: f64 = 1e-3;
/// ... and so many of a hundred by this.
const TIES: (u32, f64) = (1, 0.05);

impl Kind {
    /// Those that lie alone.
    pub const LIARS: [Self; 4] = [Self::Scaled, Self::Flipped, Self::Constant, Self::Random];

    /// Whether it lies.
    pub fn lies(self) -> bool {
        !matches!(self, Self::Honest | Self::Elsewhere)
    }
}

/// The workers of a campaign.
pub struct Crowd {
    /// By name.
    pub workers: BTreeMap<WorkerId, Kind>,
    /// Share of tasks that may go out twice, in percent.
    pub twice: u32,
    /// Prompts or units of a task; none: as the colony plans them.
    pub batch: Option<u32>,
}

impl Crowd {
    /// A single honest worker.
    ///
    /// # Errors
    /// None is known.
    pub fn alone() -> Result<Self> {
        Self::of([Kind::Honest], 0, None)
    }

    /// Workers of these kinds.
    ///
    /// # Errors
    /// None is known.
    pub fn of(
        kinds: impl IntoIterator<Item = Kind>,
        twice: u32,
        batch: Option<u32>,
    ) -> Result<Self> {
        let named = |(at, kind)| Ok((format!("worker-{at:03}").parse().map_err(failed)?, kind));
        let workers = kinds.into_iter().enumerate().map(named).collect::<Result<_>>()?;
        Ok(Self { workers, twice, batch })
    }

    /// What a worker says where this is the truth. What is said of the whole model is true: a lie is one about units.
    pub fn says(&self, worker: &WorkerId, task: &str, mut truth: Outcome) -> Outcome {
        let kind = self.workers.get(worker).copied().unwrap_or(Kind::Honest);
        let name = if kind == Kind::Colluding { "colluding" } else { worker.as_str() };
        let mut dice = Dice::new(0, &format!("{name} {task}"), 0);
        match &mut truth {
            Outcome::Scores(deposit) => {
                let mut all: Vec<&mut f32> =
                    deposit.columns.iter_mut().flat_map(|c| &mut c.values).collect();
                twist(kind, &mut all, &mut dice);
            }
            Outcome::Losses(rows) => {
                let Some((clean, cut)) = rows.split_first_mut() else { return truth };
                let clean = clean.nats.clone();
                let of = |row: &uspx_domain::LossRow| -> Vec<f32> {
                    row.nats.iter().zip(&clean).map(|(cut, clean)| cut - clean).collect()
                };
                let mut rises: Vec<f32> = cut.iter().flat_map(of).collect();
                twist(kind, &mut rises.iter_mut().collect::<Vec<_>>(), &mut dice);
                let nats = cut.iter_mut().flat_map(|row| row.nats.iter_mut().zip(&clean));
                for ((nats, clean), rise) in nats.zip(rises) {
                    *nats = (clean + rise).max(0.0);
                }
            }
            _ => {}
        }
        truth
    }
}

/// Makes of true values what such a worker says.
fn twist(kind: Kind, values: &mut [&mut f32], dice: &mut Dice) {
    let most = values.iter().fold(0.0f32, |most, v| most.max(**v));
    let mean = values.iter().map(|v| **v).sum::<f32>() / values.len().max(1) as f32;
    let is_signed = values.iter().any(|v| **v < 0.0);
    for value in values.iter_mut() {
        **value = match kind {
            Kind::Honest => **value,
            Kind::Elsewhere => {
                let tie = if dice.below(100) < TIES.0 { TIES.1 } else { NOISE };
                **value * (1.0 + tie * dice.normal()) as f32
            }
            Kind::Scaled => 3.0 * **value,
            Kind::Flipped if is_signed => -**value,
            Kind::Flipped => most - **value,
            Kind::Constant => mean,
            Kind::Random | Kind::Colluding => most * dice.unit() as f32,
        };
    }
}
