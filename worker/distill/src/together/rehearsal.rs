//! A shared training whose machines all work here, one after another: what the student is worth then, and how
//! much they would have told each other.

use super::common::Common;
use super::course::{Course, Stretch};
use super::machine::{Machine, Steps};
use super::{Exchanged, Sharing};
use crate::Result;
use crate::attempt::Attempt;
use crate::learner::{Data, Learner};
use crate::losses::Loss;
use crate::state::{At, Passed};
use uspx_domain::DistilRecipe;
use uspx_model::{LoadedModel, Progress};

pub(crate) struct Rehearsal<'a, L: Loss> {
    learner: Learner<'a, L>,
    sharing: Sharing,
    machines: Vec<Machine>,
    common: Common,
    course: Course,
    at: At,
    exchanged: Exchanged,
}

impl<'a, L: Loss> Rehearsal<'a, L> {
    /// Hangs new adapters on the student.
    ///
    /// # Errors
    /// Nobody to share with, no steps, or those of the model.
    pub fn new(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        (recipe, sharing): (DistilRecipe, Sharing),
    ) -> Result<Self> {
        sharing.check()?;
        let learner = Learner::of_b(student, data, recipe)?;
        let common = Common::new(&learner.copy()?, &sharing)?;
        let new = |_| Machine::new(&learner);
        let machines = (0..sharing.machines).map(new).collect::<Result<_>>()?;
        // A machine's steps take its share of a batch: together they take as many as one alone would.
        let batch_tokens = (recipe.batch_tokens / sharing.machines as u32).max(1);
        let plan = data.plan(&DistilRecipe { batch_tokens, ..recipe });
        let course = Course::new(plan, sharing.steps);
        let (at, exchanged) = (At::default(), Exchanged::default());
        Ok(Self { learner, sharing, machines, common, course, at, exchanged })
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// Those of the model, and what the progress says.
    pub fn run(
        mut self,
        before: Option<f32>,
        progress: &dyn Progress,
    ) -> Result<(Attempt, Exchanged)> {
        let before = before.map_or_else(|| self.judge(progress), Ok)?;
        self.at = At::start(before);
        let mut kept = self.learner.copy()?;
        while let Some(stretch) = self.course.next(self.machines.len()) {
            self.round(&stretch, progress)?;
            if !stretch.ends {
                continue;
            }
            let now = self.judge(progress)?;
            match self.at.judged(stretch.epoch, now) {
                Passed::Best => kept = self.common.tensors(&self.learner)?,
                Passed::Worse => {}
                Passed::Enough => break,
            }
        }
        Ok((self.learner.attempt(self.at.summary(), kept), self.exchanged))
    }

    fn round(&mut self, stretch: &Stretch, progress: &dyn Progress) -> Result<()> {
        let (mut told, of, all) = (Vec::new(), self.machines.len(), self.course.all);
        let beat = || Ok(progress.report(u64::from(stretch.first), u64::from(all))?);
        for (at, machine) in self.machines.iter_mut().enumerate() {
            let steps = Steps { stretch, place: (at, of), all };
            let how = (&self.common, &self.sharing);
            told.push(machine.round(&mut self.learner, how, (&steps, &beat))?);
        }
        self.exchanged.bytes += told.iter().map(|t| t.bytes.len() as u64).sum::<u64>();
        let numbers = (stretch.batches.len() * self.common.len()) as u64;
        self.exchanged.per_step += 4 * numbers;
        self.common.take(&told)?;
        self.exchanged.rounds += 1;
        self.at.step = self.course.done();
        Ok(())
    }

    /// What the common start is worth.
    fn judge(&self, progress: &dyn Progress) -> Result<f32> {
        let (step, all) = (u64::from(self.at.step), u64::from(self.course.all));
        self.common.judge(&self.learner, || Ok(progress.report(step, all)?))
    }
}
