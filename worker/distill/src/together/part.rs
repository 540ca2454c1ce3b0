//! A machine's part of a shared training where every round is a task: the rounds before it are made again of what
//! was told in them, so that whoever gets the task can do it.

use super::course::Stretch;
use super::underway::Underway;
use super::{Sharing, Told, memory};
use crate::labels::Labels;
use crate::learner::Data;
use crate::losses::Loss;
use crate::state::{At, Passed};
use crate::train::{Distilled, by_loss, data};
use crate::{DistilRequest, DistillError, Result, recipe, save_adapter};
use std::path::Path;
use uspx_domain::DistilRecipe;
use uspx_model::{LoadedModel, Progress};

/// A shared training, and how far it is.
#[derive(Clone, Copy)]
pub struct PartRequest<'a> {
    /// What to learn.
    pub train: &'a [Labels],
    /// What the passes are chosen by.
    pub validation: &'a [Labels],
    /// How.
    pub recipe: &'a DistilRecipe,
    /// How it is shared. The number of machines is each round's own.
    pub sharing: Sharing,
    /// The rounds before: among how many machines, and what they told, in their order.
    pub rounds: &'a [(usize, Vec<Told>)],
}

/// What a machine says of its part.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Where its steps led.
    pub told: Told,
    /// The validation loss of the round's start, where a pass begins with it and the machine is its first, nats per
    /// response token.
    pub loss: Option<f32>,
    /// The round's pass, from 1.
    pub epoch: u32,
    /// Batches of the training that are left after the round.
    pub left: u32,
}

/// Takes part in the next round, as machine `place.0` (from 0) of `place.1`. What it keeps for the round after
/// is in `file`, if there is one.
///
/// # Errors
/// As [`crate::distil`]; a training that is over; words that are none.
pub fn take_part(
    student: &mut LoadedModel,
    request: &PartRequest<'_>,
    (place, file): ((usize, usize), Option<&Path>),
    progress: &dyn Progress,
) -> Result<Said> {
    let row = by_loss(request.recipe)?;
    (row.take_part)(student, request, (place, file), progress)
}

/// Ends the training: the adapter of its best pass. What the rounds were worth is judged here once more.
///
/// # Errors
/// As [`take_part`].
pub fn end(
    student: &mut LoadedModel,
    request: &PartRequest<'_>,
    progress: &dyn Progress,
) -> Result<Distilled> {
    let row = by_loss(request.recipe)?;
    (row.end)(student, request, progress)
}

/// The training as it begins.
fn begun<'a, L: Loss>(
    student: &'a mut LoadedModel,
    data: &'a Data<L>,
    request: &PartRequest<'_>,
) -> Result<Underway<'a, L>> {
    let recipe = recipe::resolved(request.recipe, student.transformer.config().hidden);
    Underway::new(student, data, (recipe, &request.sharing), data.plan(&recipe))
}

/// Makes a round before once more.
fn follow<L: Loss>(
    underway: &mut Underway<'_, L>,
    (machines, told): &(usize, Vec<Told>),
) -> Result<Stretch> {
    let stretch = underway.course.next(*machines).ok_or_else(over)?;
    underway.take(&stretch, told)?;
    Ok(stretch)
}

fn over() -> DistillError {
    DistillError::Recipe("the training is over: it has no batch for another round".into())
}

pub(crate) fn take_part_by<L: Loss>(
    student: &mut LoadedModel,
    request: &PartRequest<'_>,
    (place, file): ((usize, usize), Option<&Path>),
    progress: &dyn Progress,
) -> Result<Said> {
    let data = data::<L>(student, &of(request), progress)?;
    let mut underway = begun(student, &data, request)?;
    for round in request.rounds {
        follow(&mut underway, round)?;
    }
    let stretch = underway.course.next(place.1).ok_or_else(over)?;
    let loss = (stretch.begins && place.0 == 0).then(|| underway.judge(progress)).transpose()?;
    let Underway { mut learner, common, .. } = underway;
    let mut machine = memory::read(file, &learner)?;
    let how = (&common, &request.sharing);
    let told = machine.round(&mut learner, how, (&stretch, place), progress)?;
    if let Some(file) = file {
        memory::write(file, &machine);
    }
    Ok(Said { told, loss, epoch: stretch.epoch, left: stretch.left })
}

pub(crate) fn end_by<L: Loss>(
    student: &mut LoadedModel,
    request: &PartRequest<'_>,
    progress: &dyn Progress,
) -> Result<Distilled> {
    let data = data::<L>(student, &of(request), progress)?;
    let mut underway = begun(student, &data, request)?;
    let mut at = At::start(underway.judge(progress)?);
    let mut kept = underway.learner.copy()?;
    for (count, round) in (1..).zip(request.rounds) {
        let stretch = follow(&mut underway, round)?;
        let is_judged = stretch.ends || count == request.rounds.len();
        if is_judged && at.judged(stretch.epoch, underway.judge(progress)?) == Passed::Best {
            kept = underway.learner.copy()?;
        }
    }
    at.step = underway.course.done();
    let Underway { learner, exchanged, .. } = underway;
    let best = learner.attempt(at.summary(), kept);
    best.attach()?;
    let adapter = save_adapter(student, best.recipe.rank, best.recipe.alpha)?;
    Ok(Distilled { adapter, summary: best.summary, resumed: 0, pace: best.pace, exchanged })
}

/// The same as one machine is asked it.
fn of<'a>(request: &PartRequest<'a>) -> DistilRequest<'a> {
    DistilRequest::new(request.train, request.validation, request.recipe)
}
