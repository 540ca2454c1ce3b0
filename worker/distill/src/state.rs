//! A training's state in a file: where it is, adapters and moments, and the best of what was before. One
//! that goes on from it makes the same bits, on a machine of the same kind, as one that was never
//! interrupted.

mod identity;

use crate::adapter_file::matrix;
use crate::attempt::{Attempt, Pace};
use crate::{DistilRequest, DistillError, Result, lora};
use candle_core::{Device, Tensor, Var};
use identity::Identity;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};
use uspx_domain::{DistilRecipe, Fingerprint, TrainingSummary};
use uspx_model::LoadedModel;
use uspx_model::whole_file::{self, Named, floats};

/// The header's key.
const KEY: &str = "uspx_training";
/// The format's version.
const VERSION: u32 = 1;
/// What is held of every variable while a training is under way.
const LISTS: [&str; 4] = ["var", "first", "second", "kept"];
/// What is held of the best attempt before it.
const BEST: &str = "best";
/// Epochs without a better validation loss after which a training ends.
pub(crate) const PATIENCE: u32 = 2;
/// The most that a header has.
const HEADER: u64 = 1 << 20;

/// Where a training's state is kept, for when it is interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Keep<'a> {
    /// The file. One that lies there is gone on from.
    pub file: &'a Path,
    /// Time between two states, at least.
    pub every: Duration,
}

/// Which attempt of a training it is; `attempt.rs` says what follows what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turn {
    First,
    Slower,
    Shorter,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct At {
    /// Epochs done and judged.
    pub epochs: u32,
    /// Batches done of the next.
    pub batches: u32,
    /// Steps taken.
    pub step: u32,
    /// Validation loss at the start.
    pub before: f32,
    /// The least since.
    pub best: f32,
    /// The epoch that it is of; 0 is the start.
    pub best_epoch: u32,
}

/// What a pass was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Its values are the best so far.
    Best,
    /// They are not.
    Worse,
    /// Nor were those of the passes before: no more of it.
    Enough,
}

impl At {
    /// Before the first pass, where that is the loss.
    pub fn start(before: f32) -> Self {
        Self { before, best: before, ..Self::default() }
    }

    /// Takes up the loss after a pass.
    pub fn judged(&mut self, epoch: u32, now: f32) -> Passed {
        tracing::debug!(epoch, validation = now, "epoch done");
        (self.epochs, self.batches) = (epoch, 0);
        if now < self.best {
            (self.best, self.best_epoch) = (now, epoch);
            Passed::Best
        } else if epoch >= self.best_epoch + PATIENCE {
            Passed::Enough
        } else {
            Passed::Worse
        }
    }

    /// What came of it.
    pub fn summary(&self) -> TrainingSummary {
        let Self { step: steps, before, best: after, best_epoch, .. } = *self;
        TrainingSummary { steps, before, after, best_epoch }
    }
}

/// What was before an attempt.
#[derive(Clone, Copy)]
pub(crate) struct Past<'a> {
    pub turn: Turn,
    /// The best attempt.
    pub best: Option<&'a Attempt>,
}

/// All of a training under way, to be written.
pub(crate) struct Held<'a> {
    pub past: Past<'a>,
    pub recipe: DistilRecipe,
    pub at: At,
    pub vars: &'a [Var],
    pub first: &'a [Tensor],
    pub second: &'a [Tensor],
    pub kept: &'a [Tensor],
}

/// The same, read.
pub(crate) struct Interrupted {
    pub turn: Turn,
    /// The best attempt before; nothing hangs on the student yet.
    pub best: Option<Attempt>,
    pub recipe: DistilRecipe,
    pub at: At,
    pub values: Values,
}

/// Adapters, moments and the best values, variable by variable.
pub(crate) struct Values {
    pub vars: Vec<Tensor>,
    pub first: Vec<Tensor>,
    pub second: Vec<Tensor>,
    pub kept: Vec<Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    identity: Identity,
    turn: Turn,
    recipe: DistilRecipe,
    at: At,
    best: Option<(DistilRecipe, TrainingSummary)>,
}

/// Keeps a training's states where that is asked for.
pub(crate) struct Keeper<'a>(Option<Keeping<'a>>);

struct Keeping<'a> {
    keep: Keep<'a>,
    identity: Identity,
    last: Instant,
}

impl<'a> Keeper<'a> {
    /// For a training of this student.
    pub fn new(request: &DistilRequest<'a>, student: Fingerprint) -> Result<Self> {
        let Some(keep) = request.keep else { return Ok(Self(None)) };
        let identity = Identity::of(request, student)?;
        Ok(Self(Some(Keeping { keep, identity, last: Instant::now() })))
    }

    /// Whether it is time for the next.
    pub fn is_due(&self) -> bool {
        self.0.as_ref().is_some_and(|k| k.last.elapsed() >= k.keep.every)
    }

    /// Keeps a state. Where it cannot be written the training goes on without: that costs something
    /// only where it is interrupted.
    pub fn keep(&mut self, held: Held<'_>) {
        let Some(keeping) = &mut self.0 else { return };
        if let Err(error) = keeping.write(&held) {
            tracing::warn!(%error, "the training's state is not kept");
        }
        keeping.last = Instant::now();
    }

    /// What lies in the file, if there is one.
    ///
    /// # Errors
    /// [`DistillError::State`] for another training's, or a damaged one.
    pub fn interrupted(
        &self,
        student: &LoadedModel,
        recipe: &DistilRecipe,
    ) -> Result<Option<Interrupted>> {
        match &self.0 {
            Some(keeping) if keeping.keep.file.exists() => {
                let shapes = lora::shapes(student, recipe.rank as usize)?;
                let on = student.transformer.device();
                keeping.read((&shapes, on), recipe).map(Some).map_err(|reason| {
                    let file = keeping.keep.file.to_owned();
                    DistillError::State { file, reason }
                })
            }
            _ => Ok(None),
        }
    }
}

impl Keeping<'_> {
    fn write(&self, held: &Held<'_>) -> Result<()> {
        let Held { past, recipe, at, vars, first, second, kept } = held;
        let vars: Vec<Tensor> = vars.iter().map(|v| v.as_detached_tensor()).collect();
        let mut all = Vec::new();
        for (name, list) in LISTS.into_iter().zip([&vars, *first, *second, *kept]) {
            all.extend(named(name, list)?);
        }
        let best = match past.best {
            Some(attempt) => {
                all.extend(named(BEST, &attempt.values)?);
                Some((attempt.recipe, attempt.summary))
            }
            None => None,
        };
        let identity = self.identity.clone();
        let (turn, recipe, at) = (past.turn, *recipe, *at);
        let header = Header { version: VERSION, identity, turn, recipe, at, best };
        let failed = |e: std::io::Error| DistillError::State {
            file: self.keep.file.to_owned(),
            reason: e.to_string(),
        };
        let header = serde_json::to_string(&header).map_err(|e| failed(e.into()))?;
        whole_file::tensors(self.keep.file, &all, Some((KEY, header))).map_err(failed)
    }

    /// Why it cannot is for people.
    fn read(
        &self,
        (shapes, on): (&[(usize, usize)], &Device),
        recipe: &DistilRecipe,
    ) -> std::result::Result<Interrupted, String> {
        let numbers: u64 = shapes.iter().map(|(rows, columns)| (rows * columns) as u64).sum();
        let length = std::fs::metadata(self.keep.file).map_err(|e| e.to_string())?.len();
        if length > numbers * 4 * (LISTS.len() as u64 + 1) + HEADER {
            return Err(format!("it has {length} bytes, more than this student's"));
        }
        let bytes = std::fs::read(self.keep.file).map_err(|e| e.to_string())?;
        let header = header(&bytes)?;
        self.check(&header, recipe)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
        let list = |name: &str| -> std::result::Result<Vec<Tensor>, String> {
            let one = |(at, shape): (usize, &(usize, usize))| {
                matrix(&file, &format!("{name}.{at}"), *shape, on).map_err(|e| e.to_string())
            };
            shapes.iter().enumerate().map(one).collect()
        };
        let [vars, first, second, kept] = LISTS;
        let values = Values {
            vars: list(vars)?,
            first: list(first)?,
            second: list(second)?,
            kept: list(kept)?,
        };
        let best = match header.best {
            Some((recipe, summary)) => {
                let (vars, pace) = (Vec::new(), Pace::default());
                Some(Attempt { vars, values: list(BEST)?, summary, pace, recipe })
            }
            None => None,
        };
        Ok(Interrupted { turn: header.turn, best, recipe: header.recipe, at: header.at, values })
    }

    /// Refuses the state of another training, naming what differs.
    fn check(&self, header: &Header, recipe: &DistilRecipe) -> std::result::Result<(), String> {
        self.identity.check(&header.identity)?;
        let DistilRecipe { learning_rate, epochs, .. } = header.recipe;
        let fits = DistilRecipe { learning_rate, epochs, ..*recipe } == header.recipe;
        if fits && epochs <= recipe.epochs { Ok(()) } else { Err("its recipe is damaged".into()) }
    }
}

fn header(bytes: &[u8]) -> std::result::Result<Header, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let header = header.ok_or("its header names no training")?;
    let header: Header = serde_json::from_str(header).map_err(|e| e.to_string())?;
    match header.version {
        VERSION => Ok(header),
        other => Err(format!("format version {other} is not known here ({VERSION} is)")),
    }
}

/// A list of matrices on its way to the file.
pub(crate) fn named(name: &str, list: &[Tensor]) -> Result<Vec<Named>> {
    let one = |(at, tensor): (usize, &Tensor)| {
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        Ok(floats(format!("{name}.{at}"), tensor.dims(), &values))
    };
    list.iter().enumerate().map(one).collect()
}
