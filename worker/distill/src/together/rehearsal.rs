//! A shared training whose machines all work here, one after another: what the student is worth then, and how
//! much they would have told each other.

use super::course::Stretch;
use super::machine::Machine;
use super::underway::Underway;
use super::{Exchanged, Sharing};
use crate::Result;
use crate::attempt::Attempt;
use crate::learner::Data;
use crate::losses::Loss;
use crate::state::{At, Passed};
use uspx_domain::DistilRecipe;
use uspx_model::{LoadedModel, Progress};

pub(crate) struct Rehearsal<'a, L: Loss> {
    underway: Underway<'a, L>,
    sharing: Sharing,
    machines: Vec<Machine>,
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
        // A machine's steps take its share of a batch: together they take as many as one alone would.
        let batch_tokens = (recipe.batch_tokens / sharing.machines.max(1) as u32).max(1);
        let plan = data.plan(&DistilRecipe { batch_tokens, ..recipe });
        let underway = Underway::new(student, data, (recipe, &sharing), plan)?;
        let new = |_| Machine::new(&underway.learner);
        let machines = (0..sharing.machines).map(new).collect::<Result<_>>()?;
        Ok(Self { underway, sharing, machines })
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
        let before = before.map_or_else(|| self.underway.judge(progress), Ok)?;
        let mut at = At::start(before);
        let mut kept = self.underway.learner.copy()?;
        while let Some(stretch) = self.underway.course.next(self.machines.len()) {
            self.round(&stretch, progress)?;
            if !stretch.ends {
                continue;
            }
            let now = self.underway.judge(progress)?;
            match at.judged(stretch.epoch, now) {
                Passed::Best => kept = self.underway.learner.copy()?,
                Passed::Worse => {}
                Passed::Enough => break,
            }
        }
        at.step = self.underway.course.done();
        let Underway { learner, exchanged, .. } = self.underway;
        Ok((learner.attempt(at.summary(), kept), exchanged))
    }

    fn round(&mut self, stretch: &Stretch, progress: &dyn Progress) -> Result<()> {
        let (mut told, of) = (Vec::new(), self.machines.len());
        let Underway { learner, common, .. } = &mut self.underway;
        for (at, machine) in self.machines.iter_mut().enumerate() {
            let how = (&*common, &self.sharing);
            told.push(machine.round(learner, how, (stretch, (at, of)), progress)?);
        }
        self.underway.take(stretch, &told)
    }
}
