//! One pass of the student over what the teacher says of its own answers.

use crate::attempt::Pace;
use crate::labels::Labels;
use crate::learner::{Data, Learner};
use crate::losses::ReverseKl;
use crate::train::lessons;
use crate::{Result, recipe, save_adapter, schedule};
use std::slice::from_ref;
use uspx_domain::DistilRecipe;
use uspx_model::cuts::CutTaps;
use uspx_model::{LoadedModel, Progress};

/// Steps in which a round's rate rises: the optimiser knows nothing of the gradients yet.
const WARM_UP: u32 = 4;

/// What is learned in a round, and how.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    /// The student's own answers, labelled by the teacher.
    pub own: &'a Labels,
    /// What rounds are chosen by.
    pub validation: &'a [Labels],
    /// The recipe that the adapter was trained by: rank, alpha and the tokens of a step.
    pub recipe: &'a DistilRecipe,
    /// The peak of the learning rate.
    pub rate: f64,
    /// Which round it is, from 0, of how many: the rate falls over all of them.
    pub place: (u32, u32),
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The adapter's file.
    pub adapter: Vec<u8>,
    /// The student's cross-entropy on the validation answers, nats per response token.
    pub loss: f32,
    /// Steps that it took.
    pub steps: u32,
    /// How fast.
    pub pace: Pace,
}

/// Goes on with the adapter that hangs on the student: one pass over its answers, by [`ReverseKl`].
///
/// The optimiser's moments begin anew in every round, and what they need is in labels and adapter alone:
/// any machine can make the next one. `progress` counts steps.
///
/// # Errors
/// A recipe that cannot be followed, a student without that recipe's adapters, labels without an answer, a
/// loss that is no longer a number, or what the model and the progress say.
pub fn learn(
    student: &mut LoadedModel,
    round: &Round<'_>,
    progress: &dyn Progress,
) -> Result<Learned> {
    recipe::check(round.recipe)?;
    let recipe = pass(round, student.transformer.config().hidden);
    let data = data(student, round, progress)?;
    let plan = data.plan(&recipe);
    let batches: Vec<&Vec<usize>> = plan.iter().flatten().collect();
    let (count, (number, rounds)) = (batches.len() as u32, round.place);
    let whole = CutTaps::default();
    let mut learner = Learner::going_on(student, &data, recipe)?;
    for (step, members) in (0..).zip(&batches) {
        let planned = schedule::rate(round.rate, number * count + step, rounds * count);
        let rising = f64::from(step + 1) / f64::from(WARM_UP);
        learner.step(members, (step + 1, planned * rising.min(1.0)), &whole)?;
        progress.report(u64::from(step + 1), count.into())?;
    }
    let loss = learner.judge(&whole, || Ok(progress.report(count.into(), count.into())?))?;
    let pace = learner.pace;
    let adapter = save_adapter(student, recipe.rank, recipe.alpha)?;
    Ok(Learned { adapter, loss, steps: count, pace })
}

/// The recipe of a round: one pass, in an order of its own, the teacher's word alone.
fn pass(round: &Round<'_>, hidden: usize) -> DistilRecipe {
    let resolved = recipe::resolved(round.recipe, hidden);
    let seed = resolved.seed.wrapping_add(round.place.0.into());
    DistilRecipe {
        epochs: 1,
        teacher_weight: 1.0,
        seed,
        learning_rate: round.rate as f32,
        ..resolved
    }
}

/// The round's answers as the student learns them.
fn data(
    student: &LoadedModel,
    round: &Round<'_>,
    progress: &dyn Progress,
) -> Result<Data<ReverseKl>> {
    let (loss, own) = (ReverseKl, from_ref(round.own));
    let to_judge = (None, "validation");
    let validation = lessons::<ReverseKl>(student, round.validation, to_judge, progress)?;
    let validation = validation.into_iter().map(|lesson| lesson.sequence).collect();
    let lessons = lessons(student, own, (Some(&loss), "training"), progress)?;
    Ok(Data { loss, lessons, validation })
}
