//! The training loop: prompts in, an SAE out.
//!
//! An epoch takes the prompts in seeded order, a *round* after another: the activations of a
//! round's prompts are held together, mixed, and learned from in steps. Between rounds nothing is
//! held but the SAE, and there a checkpoint can be written.

use crate::checkpoint::{self, At, Identity};
use crate::sae::Sae;
use crate::stream::activations;
use crate::trainer::{Learned, Trainer};
use crate::{Place, Recipe, Result, SaeError};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::path::Path;
use uspx_model::batch::Sequence;
use uspx_model::{LoadedModel, Progress, Readable};

/// What is to be trained on what.
#[derive(Clone)]
pub struct FitRequest<'a> {
    /// The model.
    pub model: &'a LoadedModel,
    /// The prompts that it can run.
    pub prompts: &'a Readable,
    /// Whose activations.
    pub place: Place,
    /// What SAE, and how.
    pub recipe: Recipe,
    /// Tokens that the model runs together.
    pub batch_tokens: usize,
    /// Where to keep the training's state, and how often.
    pub keep: Option<Keep<'a>>,
}

/// Checkpoints of a training.
#[derive(Debug, Clone, Copy)]
pub struct Keep<'a> {
    /// The file.
    pub file: &'a Path,
    /// Steps between two, at least.
    pub every: u64,
    /// Whether to go on from what lies there.
    pub resume: bool,
}

/// A trained SAE.
#[derive(Debug)]
pub struct Fitted {
    /// It.
    pub sae: Sae<f32>,
    /// Steps of the whole training.
    pub steps: u64,
    /// Steps that a checkpoint brought along.
    pub resumed: u64,
    /// Tokens learned from in this run.
    pub tokens: u64,
    /// What the last step found.
    pub last: Learned,
}

/// Trains an SAE. `progress` counts steps.
///
/// # Errors
/// A recipe that cannot be followed, no tokens, a checkpoint that is of another training or damaged,
/// a loss that is no longer a number, or what the model and the progress say.
pub fn fit(request: &FitRequest<'_>, progress: &dyn Progress) -> Result<Fitted> {
    request.recipe.check().map_err(SaeError::recipe)?;
    let rounds = Rounds::new(request);
    let steps = rounds.steps()?;
    let identity = Identity::of(request);
    let (mut at, mut trainer) = match request.keep.filter(|keep| keep.resume) {
        Some(keep) => {
            let (at, trainer) = checkpoint::read(keep.file, &identity)?;
            (at, Some(trainer))
        }
        None => (At::default(), None),
    };
    let resumed = trainer.as_ref().map_or(0, Trainer::step);
    let (mut kept, mut tokens) = (resumed, 0);
    let mut last = Learned { loss: f64::NAN, dead: 0 };
    let width = request.model.transformer.config().hidden;
    while trainer.as_ref().is_none_or(|t| t.step() < steps) {
        let Some(members) = rounds.round(at) else {
            at = At { epoch: at.epoch + 1, round: 0 };
            continue;
        };
        let done = trainer.as_ref().map_or(0, Trainer::step);
        let rows = gather(request, &members, &|| progress.report(done, steps))?;
        let own = match &mut trainer {
            Some(own) => own,
            None => trainer.insert(Trainer::start(request.recipe, &rows, width, steps)?),
        };
        for mut batch in mixed(&rows, width, &request.recipe, at) {
            if own.step() == steps {
                break;
            }
            last = own.learn(&mut batch)?;
            tokens += (batch.len() / width) as u64;
            progress.report(own.step(), steps)?;
        }
        at.round += 1;
        if let Some(keep) = request.keep.filter(|keep| own.step() >= kept + keep.every) {
            checkpoint::write(keep.file, &identity, at, own)?;
            kept = own.step();
        }
    }
    let trainer = trainer.ok_or(SaeError::Empty("to train on"))?;
    Ok(Fitted { sae: trainer.sae(), steps, resumed, tokens, last })
}

fn gather(
    request: &FitRequest<'_>,
    members: &[usize],
    beat: &dyn Fn() -> uspx_model::Result<()>,
) -> Result<Vec<f32>> {
    let all = &request.prompts.sequences;
    let own: Vec<Sequence> = members.iter().filter_map(|i| all.get(*i)).cloned().collect();
    let bounds = (request.batch_tokens, request.recipe.skip);
    Ok(activations(request.model, &own, request.place, bounds, beat)?)
}

/// Which prompts come when.
struct Rounds {
    /// Tokens of each prompt that count.
    rows: Vec<usize>,
    recipe: Recipe,
}

impl Rounds {
    fn new(request: &FitRequest<'_>) -> Self {
        let own = |s: &Sequence| s.ids.len().saturating_sub(request.recipe.skip);
        let rows = request.prompts.sequences.iter().map(own).collect();
        Self { rows, recipe: request.recipe }
    }

    /// Steps of the training.
    fn steps(&self) -> Result<u64> {
        if self.rows.iter().sum::<usize>() == 0 {
            return Err(SaeError::Empty("to train on"));
        }
        let batches = |members: &Vec<usize>| {
            let rows: usize = members.iter().filter_map(|i| self.rows.get(*i)).sum();
            rows.div_ceil(self.recipe.batch) as u64
        };
        let of_epoch = |epoch| self.epoch(epoch).iter().map(batches).sum::<u64>();
        Ok(self.recipe.steps.unwrap_or_else(|| (0..self.recipe.epochs).map(of_epoch).sum()))
    }

    /// The prompts of a round; none after the epoch's last.
    fn round(&self, at: At) -> Option<Vec<usize>> {
        self.epoch(at.epoch).into_iter().nth(at.round as usize)
    }

    /// The prompts of every round of an epoch, each once, in rounds of like size.
    fn epoch(&self, epoch: u32) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.shuffle(&mut random(self.recipe.seed, 1 << 63 | u64::from(epoch)));
        let total: usize = self.rows.iter().sum();
        let target = total.div_ceil(total.div_ceil(self.recipe.buffer).max(1));
        let (mut rounds, mut held) = (Vec::new(), 0);
        for at in order {
            if held == 0 || held >= target {
                rounds.push(Vec::new());
                held = 0;
            }
            rounds.last_mut().into_iter().for_each(|round: &mut Vec<usize>| round.push(at));
            held += self.rows.get(at).copied().unwrap_or(0);
        }
        rounds
    }
}

/// A stream of random numbers of its own.
fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// The rows of a round in random order, in batches of like size.
fn mixed<'a>(
    rows: &'a [f32],
    width: usize,
    recipe: &Recipe,
    at: At,
) -> impl Iterator<Item = Vec<f32>> + use<'a> {
    let count = rows.len() / width;
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut random(recipe.seed, (u64::from(at.epoch) + 1) << 32 | at.round));
    let size = count.div_ceil(count.div_ceil(recipe.batch).max(1)).max(1);
    let batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    let row = move |i: usize| rows.get(i * width..(i + 1) * width).unwrap_or_default();
    batches.into_iter().map(move |batch| batch.into_iter().flat_map(row).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_takes_every_prompt_once_and_every_epoch_another_order() {
        let recipe = Recipe { buffer: 500, batch: 64, epochs: 3, ..Recipe::default() };
        let rounds = Rounds { rows: (0..97).map(|i| 10 + i * 7 % 40).collect(), recipe };
        let epochs: Vec<_> = (0..2).map(|epoch| rounds.epoch(epoch)).collect();
        for epoch in &epochs {
            let mut all: Vec<usize> = epoch.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..97).collect::<Vec<_>>());
            let sizes = epoch.iter().map(|r| r.iter().map(|i| rounds.rows[*i]).sum::<usize>());
            assert!(sizes.clone().all(|size| size < 550), "{:?}", sizes.collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(epochs[0], rounds.epoch(0));
        let nothing = Rounds { rows: vec![0, 0], recipe };
        assert!(matches!(nothing.steps(), Err(SaeError::Empty(_))));
    }

    #[test]
    fn mixing_keeps_every_row_and_steps_are_what_was_counted() {
        let recipe = Recipe { batch: 30, buffer: 100, ..Recipe::default() };
        let rows: Vec<f32> = (0..2 * 95).map(|i| i as f32).collect();
        let batches: Vec<Vec<f32>> = mixed(&rows, 2, &recipe, At::default()).collect();
        assert_eq!(batches.len(), 95usize.div_ceil(30));
        assert!(batches.iter().all(|b| b.len() <= 60 && b.len() > 40));
        let mut all: Vec<f32> = batches.concat();
        assert_ne!(all, rows);
        assert!(all.chunks(2).all(|row| row[1] == row[0] + 1.0));
        all.sort_by(f32::total_cmp);
        assert_eq!(all, rows);
    }
}
