//! A shared training under way: the student, the common start, and where both are in the data.

use super::common::{Common, Told};
use super::course::{Course, Stretch};
use super::{Exchanged, Sharing};
use crate::Result;
use crate::learner::{Data, Learner};
use crate::losses::Loss;
use uspx_domain::DistilRecipe;
use uspx_model::cuts::CutTaps;
use uspx_model::{LoadedModel, Progress};

pub(crate) struct Underway<'a, L: Loss> {
    pub learner: Learner<'a, L>,
    pub common: Common,
    pub course: Course,
    pub exchanged: Exchanged,
}

impl<'a, L: Loss> Underway<'a, L> {
    /// Hangs new adapters on the student, for the batches of these passes.
    ///
    /// # Errors
    /// Nobody to share with, no steps, or those of the model.
    pub fn new(
        student: &'a mut LoadedModel,
        data: &'a Data<L>,
        (recipe, sharing): (DistilRecipe, &Sharing),
        plan: Vec<Vec<Vec<usize>>>,
    ) -> Result<Self> {
        sharing.check()?;
        let learner = Learner::of_b(student, data, recipe)?;
        let common = Common::new(&learner.copy()?, sharing)?;
        let course = Course::new(plan, sharing.steps);
        Ok(Self { learner, common, course, exchanged: Exchanged::default() })
    }

    /// Makes the next start of what was told in the round of that stretch.
    pub fn take(&mut self, stretch: &Stretch, told: &[Told]) -> Result<()> {
        self.common.take(told)?;
        let numbers = stretch.batches.len() * self.common.len();
        let bytes = told.iter().map(|t| t.bytes.len() as u64).sum();
        let round = Exchanged { rounds: 1, bytes, per_step: 4 * numbers as u64 };
        self.exchanged = self.exchanged.and(round);
        Ok(())
    }

    /// What the common start is worth.
    pub fn judge(&self, progress: &dyn Progress) -> Result<f32> {
        let (done, all) = (u64::from(self.course.done()), u64::from(self.course.all));
        self.learner.set(&self.common.tensors(&self.learner)?)?;
        self.learner.judge(&CutTaps::default(), || Ok(progress.report(done, all)?))
    }
}
