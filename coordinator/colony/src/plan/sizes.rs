//! How large tasks are: what a person set; else about as much as takes a worker so many seconds,
//! as far as workers have said how fast they are; else the usual.
//!
//! What workers say of their speed is not in the ledger. It has no part in what is measured, only in
//! how that is cut up, and the record of an epoch holds its tasks: a replay needs no speeds. A
//! worker is not believed here either: whatever it says, sizes stay within bounds.

use crate::campaign::usual;
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Answers, Estimator, Fingerprint, Speaks, Speed, Work};

/// Seconds that a task should take: short enough to lose little, long enough to cost no overhead.
const SECONDS: f64 = 40.0;
/// Tasks that a worker gets of a batch of work before they become larger than usual: who is quicker
/// than thought takes over from the others.
const TASKS_EACH: usize = 4;
/// No task is more than so many times as large as usual.
const MOST_TIMES: u32 = 8;
/// The smallest part of the usual size.
const LEAST_PART: u32 = 16;

/// What a worker has said of its speed, by model and kind of work.
pub type Measured = BTreeMap<(Fingerprint, String), Speed>;

/// The workers that may be asked.
#[derive(Debug, Clone, Default)]
pub struct Speeds<'a>(pub(crate) Vec<Able<'a>>);

/// A worker that may be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Able<'a> {
    /// What it may be asked for.
    pub speaks: &'a Speaks,
    /// The models that it holds.
    pub holds: &'a BTreeSet<Fingerprint>,
    /// Whether it gets no task just now, since its machine failed.
    pub rests: bool,
    /// What it measured.
    pub measured: Option<&'a Measured>,
}

/// Work to be cut into tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load<'a> {
    /// The model it is about.
    pub model: Fingerprint,
    /// The kind of work, by name.
    pub work: &'a str,
    /// What a task is made of, and how often a prompt runs for each.
    pub item: Item,
    /// How many of these there are.
    pub items: usize,
    /// How many make a task where nothing else is known.
    pub usual: u32,
}

/// What a task holds some of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    /// Prompts, each of which runs so many times.
    Prompt(usize),
    /// Units, each of which is cut on so many prompts. Batches are filled by the prompts.
    Unit(usize),
}

impl Item {
    fn runs(self) -> f64 {
        let (Self::Prompt(runs) | Self::Unit(runs)) = self;
        runs.max(1) as f64
    }
}

/// A worker at some work.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Seconds of a prompt each time it runs.
    seconds: f64,
    /// Prompts that must come together so that the model's file is read once for all of them.
    batch: f64,
}

impl Speeds<'_> {
    /// How many workers could begin this work on this model now.
    pub(super) fn able(&self, model: Fingerprint, work: &Work<u32>) -> usize {
        let able = |w: &&Able<'_>| !w.rests && w.holds.contains(&model) && w.speaks.knows(work);
        self.0.iter().filter(able).count()
    }

    /// Items of a task.
    pub(super) fn size(&self, load: &Load<'_>) -> u32 {
        let able = self.0.iter().filter(|worker| worker.holds.contains(&load.model));
        let workers = able.clone().count().max(1);
        let share = |parts: usize| u32::try_from(load.items.div_ceil(parts)).unwrap_or(u32::MAX);
        let Some(pace) = median(able.filter_map(|worker| pace(worker.measured?, load)).collect())
        else {
            return load.usual.min(share(workers)).max(1);
        };
        let in_time = (SECONDS / (pace.seconds * load.item.runs())) as u32;
        let size = in_time.min(load.usual.max(share(TASKS_EACH * workers)));
        let full = if let Item::Prompt(_) = load.item { up(pace.batch) } else { 1 };
        let (least, most) =
            (load.usual.div_ceil(LEAST_PART), load.usual.saturating_mul(MOST_TIMES));
        size.max(full).clamp(least, most).min(share(workers)).max(1)
    }
}

/// The whole number that is not below `x`.
fn up(x: f64) -> u32 {
    let whole = x as u32;
    if f64::from(whole) < x { whole.saturating_add(1) } else { whole }
}

/// The one in the middle, of two the slower.
fn median(mut paces: Vec<Pace>) -> Option<Pace> {
    paces.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    paces.get(paces.len() / 2).copied()
}

/// What a worker's speeds say of its pace at this work: as it was measured, or as that of other work
/// on the same model lets expect.
fn pace(measured: &Measured, load: &Load<'_>) -> Option<Pace> {
    let of = |speed: &Speed, times: f64| Pace {
        seconds: speed.seconds_per_prompt() * times,
        batch: if speed.streamed { speed.prompts_per_batch() / times } else { 1.0 },
    };
    if let Some(speed) = measured.get(&(load.model, load.work.to_owned())) {
        return Some(of(speed, 1.0));
    }
    let mut like = measured.iter().filter(|((model, _), _)| *model == load.model);
    like.find_map(|((_, work), speed)| {
        let cost = |work| cost(work, speed.streamed);
        Some(of(speed, cost(load.work)? / cost(work)?))
    })
}

/// What a prompt costs each time it runs, in forward passes; none where that says nothing (answers
/// are made token by token), or goes with the model's depth. A model that is read from its file gives
/// no answers: its losses are all that is judged.
fn cost(work: &str, streamed: bool) -> Option<f64> {
    match work {
        "ablate" | "judge" => Some(1.0),
        "answer" => streamed.then_some(1.0),
        _ => {
            let passes = Estimator::named(work)?.row().passes?;
            let (shallow, deep) = (passes(1.0), passes(2.0));
            (shallow == deep).then_some(shallow)
        }
    }
}

/// Sizes that a person set, or else what the speeds make of the usual ones.
impl super::view::View<'_> {
    /// Prompts of a trace task.
    pub(super) fn trace_batch(&self, items: usize) -> u32 {
        let load =
            self.on_teacher(Estimator::TRACE.name(), Item::Prompt(1), (items, usual::TRACE_BATCH));
        self.sized(self.campaign.probe.trace_batch, &load)
    }

    /// Prompts of a patch task.
    pub(super) fn patch_batch(&self, items: usize) -> u32 {
        let load =
            self.on_teacher(Estimator::ATP.name(), Item::Prompt(1), (items, usual::PATCH_BATCH));
        self.sized(self.campaign.probe.patch_batch, &load)
    }

    /// Units of an exact task on so many prompts.
    pub(super) fn units_per_task(&self, prompts: usize, items: usize) -> u32 {
        let load = self.on_teacher("ablate", Item::Unit(prompts), (items, usual::UNITS_PER_TASK));
        self.sized(self.campaign.probe.units_per_task, &load)
    }

    /// Prompts of a task that judges so many masks.
    pub(super) fn mask_batch(&self, masks: usize, items: usize) -> u32 {
        let load =
            self.on_teacher("ablate", Item::Prompt(masks + 1), (items, usual::JUDGE_MASKS_BATCH));
        self.sized(self.campaign.judge.batch, &load)
    }

    /// Prompts of a label task.
    pub(super) fn label_batch(&self, items: usize) -> u32 {
        let load = self.on_teacher("label", Item::Prompt(1), (items, usual::LABEL_BATCH));
        self.sized(self.campaign.distil.label_batch, &load)
    }

    /// Prompts of a task that judges `model`, or a student of it, with these answers.
    pub(super) fn judge_batch(
        &self,
        (model, answers): (Fingerprint, Answers),
        items: usize,
    ) -> u32 {
        let (work, usual) = match answers.is_none() {
            true => ("judge", usual::JUDGE_BATCH),
            false => ("answer", usual::ANSWER_BATCH),
        };
        let load = Load { model, work, item: Item::Prompt(1), items, usual };
        self.sized(self.campaign.distil.judge_batch, &load)
    }

    /// So many items of work on the teacher, and how many are usual.
    fn on_teacher<'a>(&self, work: &'a str, item: Item, (items, usual): (usize, u32)) -> Load<'a> {
        Load { model: self.campaign.teacher, work, item, items, usual }
    }

    fn sized(&self, set: Option<u32>, load: &Load<'_>) -> u32 {
        set.unwrap_or_else(|| self.speeds.size(load))
    }
}

#[cfg(test)]
mod tests;
