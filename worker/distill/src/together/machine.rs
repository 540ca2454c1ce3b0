//! A machine's part of a round.

use super::Sharing;
use super::common::{Common, Told};
use super::course::Stretch;
use super::sparse::Feedback;
use crate::adam_w::zeros;
use crate::learner::Learner;
use crate::losses::Loss;
use crate::{Result, schedule};
use candle_core::Tensor;
use uspx_model::Progress;
use uspx_model::cuts::CutTaps;

/// How much of what was left unsaid is still worth saying a round later (SparseLoCo's error feedback).
pub(super) const DECAY: f32 = 0.95;

/// B alone takes a larger rate than A and B together, which each move the product (measured best at 128).
const B_ALONE: f64 = 2.0;

/// What a machine keeps from round to round.
pub(crate) struct Machine {
    /// Its own moments of the adapters.
    pub first: Vec<Tensor>,
    pub second: Vec<Tensor>,
    /// What it left unsaid.
    pub feedback: Feedback,
    /// Steps that it took.
    pub steps: u32,
}

impl Machine {
    /// One that has not taken part yet.
    pub fn new<L: Loss>(learner: &Learner<'_, L>) -> Result<Self> {
        let vars = learner.optimiser.vars();
        let count = vars.iter().map(|v| v.elem_count()).sum();
        let feedback = Feedback::new(count, DECAY)?;
        Ok(Self { first: zeros(vars)?, second: zeros(vars)?, feedback, steps: 0 })
    }

    /// Takes its steps from the common start, as machine `place.0` of `place.1`, and says where they led: as much
    /// of it as is usual. Where the round has no batch for it there is nothing to say. `progress` is told of
    /// every step.
    pub fn round<L: Loss>(
        &mut self,
        learner: &mut Learner<'_, L>,
        (common, sharing): (&Common, &Sharing),
        (stretch, place): (&Stretch, (usize, usize)),
        progress: &dyn Progress,
    ) -> Result<Told> {
        let peak = f64::from(learner.recipe.learning_rate) * B_ALONE;
        let [first, second] = [&mut self.first, &mut self.second].map(std::mem::take);
        learner.optimiser.restore(&common.tensors(learner)?, first, second)?;
        let (before, taken) = (learner.pace.tokens, self.steps);
        let (first_batch, all) = (u64::from(stretch.first), stretch.all());
        let whole = CutTaps::default();
        for (at, batch) in stretch.part(place) {
            self.steps += 1;
            learner.step(batch, (self.steps, schedule::rate(peak, at, all)), &whole)?;
            progress.report(first_batch, u64::from(all))?;
        }
        let (first, second) = learner.optimiser.moments();
        (self.first, self.second) = (first.to_vec(), second.to_vec());
        let tokens = learner.pace.tokens - before;
        if tokens == 0 {
            return Ok(Told::default());
        }
        let share = sharing.share((self.steps - taken) as usize);
        let bytes = self.feedback.send(&common.way_to(&learner.copy()?)?, share)?;
        Ok(Told { bytes, tokens })
    }
}
