//! From labels to the best adapter: what the student is to learn, and attempts at it.

use crate::attempt::Pace;
use crate::fade::{Fade, Fading};
use crate::labels::{Labels, vocabulary};
use crate::learner::Data;
use crate::losses::{Alm, Gold, Hybrid, Lesson, Loss, lesson, text_lesson};
use crate::state::{Keep, Keeper, Past, Turn};
use crate::together::part::{self, PartRequest, Said};
use crate::together::rehearsal::Rehearsal;
use crate::together::{Exchanged, Sharing};
use crate::training::Training;
use crate::{DistillError, Result, recipe, save_adapter};
use std::path::Path;
use uspx_domain::{DistilLoss, DistilRecipe, TrainingSummary};
use uspx_model::{LoadedModel, Progress};

/// What is to be learned, and how.
#[derive(Clone, Copy)]
pub struct DistilRequest<'a> {
    /// What to learn.
    pub train: &'a [Labels],
    /// What the passes are chosen by.
    pub validation: &'a [Labels],
    /// How.
    pub recipe: &'a DistilRecipe,
    /// Where the training's state is kept; none keeps nothing.
    pub keep: Option<Keep<'a>>,
    /// How it is shared; none is one machine's. A shared one keeps no state.
    pub sharing: Option<Sharing>,
    /// The student's own mask; none leaves it whole. It is judged by it, and a shared training has none.
    pub fading: Option<Fading<'a>>,
}

impl<'a> DistilRequest<'a> {
    /// One that keeps no state, of a whole student.
    pub fn new(train: &'a [Labels], validation: &'a [Labels], recipe: &'a DistilRecipe) -> Self {
        Self { train, validation, recipe, keep: None, sharing: None, fading: None }
    }
}

/// A trained adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Distilled {
    /// Its file, as [`save_adapter`] makes it.
    pub adapter: Vec<u8>,
    /// How it was trained.
    pub summary: TrainingSummary,
    /// Steps that a kept state brought along.
    pub resumed: u32,
    /// How fast the others were.
    pub pace: Pace,
    /// What the machines of a shared training told each other.
    pub exchanged: Exchanged,
}

/// What is done by one loss.
pub(crate) struct Row {
    loss: DistilLoss,
    distil: fn(&mut LoadedModel, &DistilRequest<'_>, &dyn Progress) -> Result<Distilled>,
    /// See [`part::take_part`].
    pub take_part: TakePart,
    /// See [`part::end`].
    pub end: fn(&mut LoadedModel, &PartRequest<'_>, &dyn Progress) -> Result<Distilled>,
}

type TakePart = fn(
    &mut LoadedModel,
    &PartRequest<'_>,
    ((usize, usize), Option<&Path>),
    &dyn Progress,
) -> Result<Said>;

const fn row<L: Loss>(loss: DistilLoss) -> Row {
    let (take_part, end) = (part::take_part_by::<L>, part::end_by::<L>);
    Row { loss, distil: by::<L>, take_part, end }
}

/// Every loss there is.
const ALL: &[Row] = &[
    row::<Hybrid>(DistilLoss::HYBRID),
    row::<Alm>(DistilLoss::ALM),
    row::<Gold>(DistilLoss::GOLD),
];

/// What the recipe's loss does, where the recipe can be followed.
pub(crate) fn by_loss(recipe: &DistilRecipe) -> Result<&'static Row> {
    recipe::check(recipe)?;
    let why = || format!("this uspx cannot train by {}: upgrade", recipe.loss);
    ALL.iter().find(|row| row.loss == recipe.loss).ok_or_else(|| DistillError::Recipe(why()))
}

/// Trains an adapter for `student` and leaves the best one attached.
///
/// Only response tokens count in the loss. After every epoch the student's own cross-entropy on the
/// validation answers decides whether its adapter is kept; two epochs without a better one end the
/// training. Where passes beyond the best one were made, it is trained anew: with a third of the rate,
/// where the recipe leaves that open; then with as many passes as gained anything. The best of the
/// adapters is kept. `progress` counts the steps of each. A student with a mask is judged without what it cuts.
///
/// # Errors
/// A recipe that cannot be followed, labels without an answer, a loss that is no longer a number, a kept
/// state of another training, or what the model and the progress say.
pub fn distil(
    student: &mut LoadedModel,
    request: &DistilRequest<'_>,
    progress: &dyn Progress,
) -> Result<Distilled> {
    if request.sharing.is_some() && request.keep.is_some() {
        let why = "a training that is shared keeps no state: leave out one of the two";
        return Err(DistillError::Recipe(why.into()));
    }
    if request.sharing.is_some() && request.fading.is_some() {
        let why = "a training that is shared has a whole student: leave out its mask";
        return Err(DistillError::Recipe(why.into()));
    }
    (by_loss(request.recipe)?.distil)(student, request, progress)
}

fn by<L: Loss>(
    student: &mut LoadedModel,
    request: &DistilRequest<'_>,
    progress: &dyn Progress,
) -> Result<Distilled> {
    let recipe = recipe::resolved(request.recipe, student.transformer.config().hidden);
    let fade = Fade::of(student, request.fading)?;
    let mut keeper = Keeper::new(request, student.fingerprint)?;
    let mut found = keeper.interrupted(student, &recipe)?;
    let data = data::<L>(student, request, progress)?;
    let mut best = found.as_mut().and_then(|found| found.best.take());
    let before = best.as_ref().map_or(0, |best| best.summary.steps);
    let resumed = found.as_ref().map_or(0, |found| before + found.at.step);
    let mut exchanged = Exchanged::default();
    let mut next = Some((Turn::First, recipe));
    if let Some(found) = &found {
        next = Some((found.turn, found.recipe));
    }
    while let Some((turn, attempted)) = next {
        let before = best.as_ref().map(|best| best.summary.before);
        let attempt = match (request.sharing, found.take()) {
            (Some(sharing), _) => {
                let rehearsal = Rehearsal::new(student, &data, (attempted, sharing))?;
                let (attempt, told) = rehearsal.run(before, progress)?;
                exchanged = exchanged.and(told);
                attempt
            }
            (None, found) => {
                let training = match found {
                    Some(found) => Training::resume(student, (&data, &fade), found)?,
                    None => {
                        Training::start(student, (&data, &fade), (attempted, before), progress)?
                    }
                };
                let past = Past { turn, best: best.as_ref() };
                training.run(past, &mut keeper, progress)?
            }
        };
        let all = match best.take() {
            Some(best) => best.or(attempt),
            None => attempt,
        };
        next = turn.next(&all, request.recipe.learning_rate == 0.0);
        best = Some(all);
    }
    let Some(best) = best else { return Err(DistillError::Empty("training")) };
    best.attach()?;
    let adapter = save_adapter(student, recipe.rank, recipe.alpha)?;
    Ok(Distilled { adapter, summary: best.summary, resumed, pace: best.pace, exchanged })
}

/// What both kinds of labels are to the student.
pub(crate) fn data<L: Loss>(
    student: &LoadedModel,
    request: &DistilRequest<'_>,
    progress: &dyn Progress,
) -> Result<Data<L>> {
    let validation = lessons::<L>(student, request.validation, (None, "validation"), progress)?;
    let validation = validation.into_iter().map(|l| l.sequence).collect();
    let loss = L::new(request.train, &student.chat);
    // Alignment is dear; who learns from text alone does without.
    let heard = (request.recipe.teacher_weight > 0.0).then_some(&loss);
    let lessons = lessons(student, request.train, (heard, "training"), progress)?;
    Ok(Data { loss, lessons, validation })
}

/// Prompts aligned between two beats.
const PER_BEAT: usize = 32;

/// Every prompt of `labels` as the student learns it: by a loss that hears the teacher, or from its
/// text. `what` they are for.
pub(crate) fn lessons<L: Loss>(
    student: &LoadedModel,
    labels: &[Labels],
    (loss, what): (Option<&L>, &'static str),
    progress: &dyn Progress,
) -> Result<Vec<Lesson<L::Said>>> {
    let own = vocabulary(&student.chat);
    let mut lessons = Vec::new();
    for labels in labels {
        for prompt in &labels.prompts {
            lessons.push(match loss {
                Some(loss) => lesson(loss, labels, prompt, &student.chat, own)?,
                None => text_lesson(prompt, &student.chat)?,
            });
            if lessons.len() % PER_BEAT == 0 {
                // No step is done yet, nor their number known.
                progress.report(0, 1)?;
            }
        }
    }
    lessons.retain(|l| l.sequence.response_len() > 0);
    if lessons.is_empty() { Err(DistillError::Empty(what)) } else { Ok(lessons) }
}
