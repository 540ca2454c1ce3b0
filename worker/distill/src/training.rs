//! One training: steps over batches in seeded order, judged after every epoch, the best values kept.

use crate::attempt::Attempt;
use crate::fade::Fade;
use crate::learner::{Data, Learner};
use crate::losses::Loss;
use crate::state::{At, Held, Interrupted, Keeper, PATIENCE, Passed, Past};
use crate::{Result, schedule};
use candle_core::Tensor;
use uspx_domain::DistilRecipe;
use uspx_model::{LoadedModel, Progress};

pub(crate) struct Training<'a, L: Loss> {
    learner: Learner<'a, L>,
    /// What the student is to do without.
    fade: &'a Fade,
    /// Batches of every epoch.
    plan: Vec<Vec<Vec<usize>>>,
    /// Steps of the whole plan.
    steps: u32,
    at: At,
    /// The best values so far.
    kept: Vec<Tensor>,
}

impl<'a, L: Loss> Training<'a, L> {
    /// Hangs new adapters on the student, and judges it as it is, unless that is known.
    pub fn start(
        student: &'a mut LoadedModel,
        of: (&'a Data<L>, &'a Fade),
        (recipe, before): (DistilRecipe, Option<f32>),
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut this = Self::new(student, of, recipe)?;
        let before = before.map_or_else(|| this.judge(progress), Ok)?;
        this.at = At::start(before);
        this.kept = this.learner.copy()?;
        Ok(this)
    }

    /// Goes on with one that was interrupted.
    pub fn resume(
        student: &'a mut LoadedModel,
        of: (&'a Data<L>, &'a Fade),
        found: Interrupted,
    ) -> Result<Self> {
        let Interrupted { recipe, at, values, .. } = found;
        let mut this = Self::new(student, of, recipe)?;
        this.learner.optimiser.restore(&values.vars, values.first, values.second)?;
        (this.at, this.kept) = (at, values.kept);
        Ok(this)
    }

    fn new(
        student: &'a mut LoadedModel,
        (data, fade): (&'a Data<L>, &'a Fade),
        recipe: DistilRecipe,
    ) -> Result<Self> {
        let learner = Learner::new(student, data, recipe)?;
        let plan = data.plan(&recipe);
        let steps = plan.iter().map(|e| e.len() as u32).sum();
        Ok(Self { learner, fade, plan, steps, at: At::default(), kept: Vec::new() })
    }

    /// Trains to the end. The state is kept every so often, and where the end is asked for before.
    pub fn run(
        mut self,
        past: Past<'_>,
        keeper: &mut Keeper<'_>,
        progress: &dyn Progress,
    ) -> Result<Attempt> {
        match self.epochs(past, keeper, progress) {
            Err(error) if error.is_stopped() => {
                keeper.keep(self.held(past));
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(self.learner.attempt(self.at.summary(), self.kept)),
        }
    }

    fn epochs(
        &mut self,
        past: Past<'_>,
        keeper: &mut Keeper<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let plan = std::mem::take(&mut self.plan);
        let patient = self.fade.passes(plan.len() as u32) + PATIENCE;
        for (epoch, batches) in (1..).zip(&plan).skip(self.at.epochs as usize) {
            for members in batches.iter().skip(self.at.batches as usize) {
                self.learn(members)?;
                if keeper.is_due() {
                    keeper.keep(self.held(past));
                }
                progress.report(u64::from(self.at.step), u64::from(self.steps))?;
            }
            let now = self.judge(progress)?;
            match self.at.judged(epoch, now) {
                Passed::Best => self.kept = self.learner.copy()?,
                Passed::Enough if epoch >= patient => break,
                Passed::Worse | Passed::Enough => {}
            }
        }
        Ok(())
    }

    /// All that it would need to go on.
    fn held<'s>(&'s self, past: Past<'s>) -> Held<'s> {
        let Learner { optimiser, recipe, .. } = &self.learner;
        let (vars, (first, second)) = (optimiser.vars(), optimiser.moments());
        Held { past, recipe: *recipe, at: self.at, vars, first, second, kept: &self.kept }
    }

    /// One step on one batch.
    fn learn(&mut self, members: &[usize]) -> Result<()> {
        let peak = f64::from(self.learner.recipe.learning_rate);
        let rate = schedule::rate(peak, self.at.step, self.steps);
        let cut = self.fade.at(self.at.step, self.steps)?;
        self.learner.step(members, (self.at.step + 1, rate), &cut)?;
        (self.at.step, self.at.batches) = (self.at.step + 1, self.at.batches + 1);
        Ok(())
    }

    fn judge(&self, progress: &dyn Progress) -> Result<f32> {
        let (step, steps) = (u64::from(self.at.step), u64::from(self.steps));
        self.learner.judge(self.fade.whole(), || Ok(progress.report(step, steps)?))
    }
}
