//! The lessons of some prompts, from the teacher's answers to their labels: what a label task of the colony does.

use crate::Result;
use crate::answers::{Answers, Asking, answers};
use crate::keeping::Keeping;
use crate::labels::Labels;
use crate::quality::{Sieve, of_prompts};
use crate::stages::Stage;
use crate::teach::label;
use std::collections::HashMap;
use uspx_domain::{Answering, Mask, Prompt, Skipped};
use uspx_model::chat::Bounds;
use uspx_model::{LoadedModel, Progress};

/// The labels of the answers to `prompts` that are learned as `how` says, by the teacher, masked where `mask` is
/// given: `keeping` of what it says at each place; samples are drawn by `seed`; and the prompts that have none, in their order. At most
/// `room` tokens run together. `progress` counts prompts, once for each thing that is done with them.
///
/// # Errors
/// As [`answers`] and [`label`].
pub fn lessons(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    (how, seed, keeping): (&Answering, u64, Keeping),
    (bounds, room): (Bounds, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    keeping.check()?;
    let (sieve, asking) = (Sieve::of(how), Asking::of(how, seed, (bounds, room)));
    let asks = how.samples > 0 || prompts.iter().any(|p| how.target.asks(p));
    let parts = 1 + u64::from(asks);
    let stage = |before| Stage { all: progress, before, parts };
    let (all, mut skipped) = answers(teacher, prompts, mask, &asking, &stage(0))?;
    let (all, doubted) = sieve.answers(all);
    let lessons = all.into_iter().flat_map(Answers::lessons).collect();
    let (mut labels, unread) = label(teacher, lessons, mask, (keeping, room), &stage(parts - 1))?;
    skipped.extend(doubted.into_iter().chain(unread));
    skipped.extend(sieve.labels(&mut labels));
    let mut skipped = of_prompts(prompts, skipped);
    let places: HashMap<&str, usize> = prompts.iter().map(|p| p.id.as_str()).zip(0..).collect();
    skipped.sort_by_key(|s| places.get(s.id.as_str()));
    skipped.dedup_by(|a, b| a.id == b.id);
    Ok((labels, skipped))
}

/// Labels `prompts` by the teacher, masked where `mask` is given: `keeping` of what it says at each
/// place.
///
/// The answer to learn is the prompt's reference, or else the teacher's greedy answer within
/// `bounds`. Prompts to which it answers nothing, whose reasoning met its bound before an answer,
/// or that it cannot run are left out: they are the second part of the result. At most `room`
/// tokens run together. `progress` counts prompts.
///
/// # Errors
/// As [`label`].
pub fn make_labels(
    teacher: &LoadedModel,
    prompts: &[Prompt],
    mask: Option<&Mask>,
    keeping: Keeping,
    together: (Bounds, usize),
    progress: &dyn Progress,
) -> Result<(Labels, Vec<Skipped>)> {
    let how = (&Answering::default(), 0, keeping);
    lessons(teacher, prompts, mask, how, together, progress)
}
