//! The colony itself, from its founding to the mask that it stands by: it plans and decides as it does in use, and
//! what it asks is looked up, or asked of the model.

use crate::answers::Answers;
use crate::crowd::Crowd;
use crate::failed;
use crate::matrix::Matrix;
use std::collections::BTreeMap;
use uspx_bench_engine::error::Result;
use uspx_colony::{
    CampaignConfig, Colony, Command, Dice, Event, PlannedTask, PromptEntry, Purpose, Share, Split,
};
use uspx_domain::{
    Ablate, Answer, Column, Cut, Deposit, Digest, Estimator, LossRow, Mask, Outcome, Prompt,
    PromptTokens, Speaks, Unit, Work, WorkerId,
};

/// Losses under whole masks, of each prompt that was tried.
pub type Tried = BTreeMap<(Digest, usize), f32>;

/// What a campaign is to find.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The recorded prompts that it has.
    pub order: &'a [usize],
    /// Exact runs that it may ask for.
    pub pairs: usize,
    /// The share of the units that it keeps.
    pub keep: f64,
    /// Its seed.
    pub seed: u64,
}

/// What answers campaigns on some of the recorded prompts.
pub struct Explored<'a> {
    /// The model, for whole masks.
    pub answers: &'a mut Answers,
    /// What is recorded.
    pub matrix: &'a Matrix,
    /// The recorded prompts.
    pub prompts: &'a [Prompt],
    /// Their places by id ([`places`]).
    pub places: &'a BTreeMap<&'a str, usize>,
    /// Whole masks that were tried before.
    pub tried: &'a mut Tried,
    /// Who answers.
    pub crowd: &'a Crowd,
}

/// Where each of the recorded prompts stands.
pub fn places(prompts: &[Prompt]) -> BTreeMap<&str, usize> {
    prompts.iter().enumerate().map(|(at, prompt)| (prompt.id.as_str(), at)).collect()
}

/// A colony, and the masks that it drew one after another.
#[derive(Clone, Default)]
pub struct Drawn {
    colony: Colony,
    /// The masks.
    pub versions: Vec<Mask>,
}

impl Drawn {
    /// The mask of the day.
    ///
    /// # Errors
    /// There is none.
    pub fn mask(&self) -> Result<Mask> {
        self.versions.last().cloned().ok_or_else(|| failed("the colony found no mask"))
    }

    /// Whether a worker is in quarantine.
    pub fn is_out(&self, worker: &WorkerId) -> bool {
        self.colony.state().accounts().get(worker).is_some_and(|a| a.quarantined.is_some())
    }

    /// Tasks that were planned, and those of them that went out twice.
    pub fn issued(&self) -> [u64; 2] {
        self.colony.state().issued()
    }

    /// Exact runs that were asked for.
    pub fn pairs(&self) -> u64 {
        self.colony.state().explored().pairs
    }
}

impl Explored<'_> {
    /// Runs a campaign to its end, or lets the one there is go on with other prompts.
    ///
    /// # Errors
    /// A colony that is stuck, or those of the model.
    pub fn run(&mut self, drawn: &mut Drawn, wanted: Wanted<'_>) -> Result<()> {
        let config = self.config(wanted)?;
        let mut queue: Vec<(WorkerId, PlannedTask)> = Vec::new();
        let (_, step) = drawn.colony.want(config.clone(), [7; 16]).map_err(failed)?;
        drawn.take(&mut queue, step.commands);
        for worker in self.crowd.workers.keys() {
            let (speaks, holds) = (Speaks::here(), vec![config.teacher]);
            let seen = Event::WorkerSeen { worker: worker.clone(), speaks, holds };
            let commands = drawn.colony.step(seen).commands;
            drawn.take(&mut queue, commands);
        }
        let mut dice = Dice::new(wanted.seed, "who is next", 0);
        while drawn.colony.state().ending().is_none() {
            if queue.is_empty() {
                let state = drawn.colony.state();
                let (stage, progress) = (state.stage(), state.progress());
                return Err(failed(format!(
                    "the colony waits for nothing: {stage:?} {progress:?}"
                )));
            }
            let next =
                if self.crowd.workers.len() > 1 { dice.below(queue.len() as u32) } else { 0 };
            let (worker, task) = queue.remove(next as usize);
            let outcome = self.outcome(&task, &drawn.colony)?;
            let outcome = self.crowd.says(&worker, &task.id.to_string(), outcome);
            let answer = Answer {
                task: task.id,
                worker: worker.clone(),
                outcome,
                millis: 1,
                skipped: vec![],
                seams: 0,
            };
            let arrived = Event::AnswerArrived { worker, answer: Box::new(answer) };
            let commands = drawn.colony.step(arrived).commands;
            drawn.take(&mut queue, commands);
        }
        Ok(())
    }

    fn config(&self, wanted: Wanted<'_>) -> Result<CampaignConfig> {
        let of = |split| move |prompt: &Prompt| PromptEntry::of(prompt, split);
        let own = wanted.order.iter().filter_map(|at| self.prompts.get(*at));
        let train = own.map(of(Split::Train));
        let made_up =
            |name: &str| Prompt { id: name.into(), prompt: name.into(), ..Prompt::default() };
        let others = [
            PromptEntry::of(&made_up("validation"), Split::Validation),
            PromptEntry::of(&made_up("gate"), Split::Gate),
        ];
        let model = (self.answers.model, self.answers.shape.clone());
        let mut config = CampaignConfig::new("bench", model, None, train.chain(others).collect());
        config.seed = wanted.seed;
        config.mask.keep = Share::nearest(wanted.keep);
        config.trust.duplicates = Share::percent(self.crowd.twice);
        config.probe.trace_batch = self.crowd.batch;
        config.probe.patch_batch = self.crowd.batch;
        config.probe.units_per_task = self.crowd.batch;
        config.judge.random_masks = 0;
        config.judge.curve.clear();
        let probe = &mut config.probe;
        (probe.exact_pairs, probe.exact_least) = (wanted.pairs as u64, wanted.pairs as u64);
        config.check().map_err(failed)?;
        Ok(config)
    }

    fn outcome(&mut self, task: &PlannedTask, colony: &Colony) -> Result<Outcome> {
        // The campaign has places of its own for what is recorded.
        let id = |at: &u32| colony.state().campaign().and_then(|c| c.id(*at));
        let ids: Vec<&str> = task.work.prompts().iter().filter_map(id).collect();
        let Some(places) =
            ids.iter().map(|id| self.places.get(*id).copied()).collect::<Option<Vec<usize>>>()
        else {
            return made_up(task, &ids);
        };
        match (&task.work, &task.purpose) {
            (Work::Estimate(job), Purpose::Evidence) => {
                let recorded = if job.estimator == Estimator::TRACE { 0 } else { 1 };
                let columns = self.matrix.cheap.get(recorded).into_iter().flatten();
                let column = |(statistic, unit, values): &(_, Unit, Vec<f32>)| Column {
                    unit: *unit,
                    statistic: *statistic,
                    values: places.iter().filter_map(|p| values.get(*p)).copied().collect(),
                };
                Ok(Outcome::Scores(Deposit {
                    prompts: self.named(&places),
                    columns: columns.map(column).collect(),
                    moments: vec![],
                }))
            }
            (Work::Ablate(Ablate { cuts, .. }), _) => {
                let whole =
                    places.iter().filter_map(|p| self.matrix.clean.get(*p)).copied().collect();
                let mut rows = vec![self.row(&places, whole)];
                for cut in cuts {
                    let nats = match cut {
                        Cut::Unit(unit) => self.without(unit, &places),
                        Cut::Mask(mask) => self.under(mask, &places)?,
                    };
                    rows.push(self.row(&places, nats));
                }
                Ok(Outcome::Losses(rows))
            }
            (work, purpose) => {
                Err(failed(format!("{} for {purpose:?} is not explored", work.name())))
            }
        }
    }

    fn named(&self, places: &[usize]) -> Vec<PromptTokens> {
        let one = |at: &usize| {
            let id = self.prompts.get(*at)?.id.clone();
            Some(PromptTokens { id, tokens: self.matrix.tokens.get(*at).copied()? })
        };
        places.iter().filter_map(one).collect()
    }

    fn row(&self, places: &[usize], nats: Vec<f32>) -> LossRow {
        let bytes = places.iter().filter_map(|at| self.matrix.bytes.get(*at)).copied().collect();
        LossRow { prompts: self.named(places), nats, bytes, ..LossRow::default() }
    }

    fn without(&self, unit: &Unit, places: &[usize]) -> Vec<f32> {
        let row = self.matrix.cut.get(unit);
        places.iter().filter_map(|at| row.and_then(|r| r.get(*at))).copied().collect()
    }

    /// Losses under a mask, of the prompts that it was not tried on yet asked of the model.
    fn under(&mut self, mask: &Mask, places: &[usize]) -> Result<Vec<f32>> {
        let named = Digest::of(&rmp_serde::to_vec_named(&mask.keep).map_err(failed)?);
        let new: Vec<usize> =
            places.iter().filter(|at| !self.tried.contains_key(&(named, **at))).copied().collect();
        if !new.is_empty() {
            let prompts: Vec<Prompt> =
                new.iter().filter_map(|at| self.prompts.get(*at)).cloned().collect();
            let rows = self.answers.under(&prompts, vec![Cut::Mask(mask.clone())])?;
            let nats = rows.last().map(|row| row.nats.clone()).unwrap_or_default();
            self.tried.extend(new.into_iter().map(|at| (named, at)).zip(nats));
        }
        Ok(places.iter().filter_map(|at| self.tried.get(&(named, *at))).copied().collect())
    }
}

/// Nobody asks what masks cost on the prompts that only stand for their split.
fn made_up(task: &PlannedTask, ids: &[&str]) -> Result<Outcome> {
    let Work::Ablate(Ablate { cuts, .. }) = &task.work else {
        return Err(failed(format!("{} is not explored", task.work.name())));
    };
    let prompts: Vec<PromptTokens> =
        ids.iter().map(|id| PromptTokens { id: (*id).to_owned(), tokens: 1 }).collect();
    let (nats, bytes) = (vec![1.0; prompts.len()], vec![1; prompts.len()]);
    let row = LossRow { prompts, nats, bytes, ..LossRow::default() };
    Ok(Outcome::Losses(vec![row; cuts.len() + 1]))
}

impl Drawn {
    fn take(&mut self, queue: &mut Vec<(WorkerId, PlannedTask)>, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Issue { task, worker, .. } => {
                    let item = (worker, *task);
                    if !queue.iter().any(|known| known.0 == item.0 && known.1.id == item.1.id) {
                        queue.push(item);
                    }
                }
                Command::Withdraw { task, worker } => {
                    queue.retain(|known| known.0 != worker || known.1.id != task);
                }
                Command::PublishMask(version) => self.versions.push(version.mask),
                _ => {}
            }
        }
    }
}
