//! The colony itself, from its founding to the mask that it stands by: it plans and decides as it does in use, and
//! what it asks is looked up, or asked of the model.

use crate::answers::Answers;
use crate::failed;
use crate::matrix::Matrix;
use std::collections::BTreeMap;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_colony::{
    CampaignConfig, Colony, Command, Event, PlannedTask, PromptEntry, Purpose, Share, Split, Stage,
};
use uspx_domain::{
    Ablate, Answer, Column, Cut, Deposit, Digest, Estimator, LossRow, Mask, Outcome, Prompt,
    PromptTokens, Speaks, Unit, Work, WorkerId,
};

/// Losses under whole masks, of each prompt that was tried.
pub type Tried = BTreeMap<(Digest, usize), f32>;

/// A campaign on some of the recorded prompts.
pub struct Explored<'a> {
    /// The model, for whole masks.
    pub answers: &'a mut Answers,
    /// What is recorded.
    pub matrix: &'a Matrix,
    /// The recorded prompts.
    pub prompts: &'a [Prompt],
    /// Whole masks that were tried before.
    pub tried: &'a mut Tried,
}

impl Explored<'_> {
    /// The mask at the end.
    ///
    /// # Errors
    /// A colony that is stuck, or those of the model.
    pub fn mask(&mut self, order: &[usize], pairs: usize, keep: f64, seed: u64) -> Result<Mask> {
        let config = self.config(order, pairs, keep, seed)?;
        let worker: WorkerId = "bench".parse().map_err(failed)?;
        let mut colony = Colony::default();
        let (_, founded) = colony.want(config.clone(), [7; 16]).map_err(failed)?;
        let seen = Event::WorkerSeen {
            worker: worker.clone(),
            speaks: Speaks::here(),
            holds: vec![config.teacher],
        };
        let mut queue: Vec<PlannedTask> = Vec::new();
        take(&mut queue, founded.commands);
        take(&mut queue, colony.step(seen).commands);
        while matches!(colony.state().stage(), Some(Stage::Trace | Stage::Patch | Stage::Explore)) {
            if queue.is_empty() {
                return Err(BenchError::Unequal("the colony waits for nothing".into()));
            }
            let task = queue.remove(0);
            let outcome = self.outcome(&task, order)?;
            let answer = Answer {
                task: task.id,
                worker: worker.clone(),
                outcome,
                millis: 1,
                skipped: vec![],
                seams: 0,
            };
            let arrived = Event::AnswerArrived { worker: worker.clone(), answer: Box::new(answer) };
            take(&mut queue, colony.step(arrived).commands);
        }
        let state = colony.state();
        let version =
            state.mask().ok_or_else(|| BenchError::Unequal("the colony found no mask".into()))?;
        Ok(version.mask.clone())
    }

    fn config(
        &self,
        order: &[usize],
        pairs: usize,
        keep: f64,
        seed: u64,
    ) -> Result<CampaignConfig> {
        let of = |split| move |prompt: &Prompt| PromptEntry::of(prompt, split);
        let train = order.iter().filter_map(|at| self.prompts.get(*at)).map(of(Split::Train));
        let made_up =
            |name: &str| Prompt { id: name.into(), prompt: name.into(), ..Prompt::default() };
        let others = [
            PromptEntry::of(&made_up("validation"), Split::Validation),
            PromptEntry::of(&made_up("gate"), Split::Gate),
        ];
        let model = (self.answers.model, self.answers.shape.clone());
        let mut config = CampaignConfig::new("bench", model, None, train.chain(others).collect());
        config.seed = seed;
        config.mask.keep = Share::nearest(keep);
        config.trust.duplicates = Share::percent(0);
        let probe = &mut config.probe;
        (probe.exact_pairs, probe.exact_least) = (pairs as u64, pairs as u64);
        config.check().map_err(failed)?;
        Ok(config)
    }

    fn outcome(&mut self, task: &PlannedTask, order: &[usize]) -> Result<Outcome> {
        // The campaign's places are those of `order`; what is recorded has its own.
        let places: Vec<usize> =
            task.work.prompts().iter().filter_map(|at| order.get(*at as usize)).copied().collect();
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
                Err(BenchError::Unequal(format!("{} for {purpose:?} is not explored", work.name())))
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

fn take(queue: &mut Vec<PlannedTask>, commands: Vec<Command>) {
    for command in commands {
        if let Command::Issue { task, .. } = command
            && !queue.iter().any(|known| known.id == task.id)
        {
            queue.push(*task);
        }
    }
}
