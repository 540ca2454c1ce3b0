//! What proposers look at, and what they make pieces of work with.

use super::Speeds;
use crate::reasons::because;
use crate::state::Stage;
use crate::{CampaignConfig, PlannedTask, Purpose, Split, State};
use uspx_domain::{Digest, Estimate, Estimator, Fingerprint, Work};

/// A piece of work, the model that it is about, and what its answer is for.
pub(super) type Piece = (Fingerprint, Purpose, Work<u32>);

/// The campaign and what is known.
pub(super) struct View<'a> {
    pub(super) campaign: &'a CampaignConfig,
    pub(super) state: &'a State,
    pub(super) speeds: &'a Speeds<'a>,
}

impl View<'_> {
    /// Whether a stage was opened since the campaign began or was continued.
    pub(super) fn was_opened(&self, stage: Stage) -> bool {
        self.state.opened.contains(&stage)
    }

    /// `prompts` without those that a stage has asked for already.
    pub(super) fn unasked(&self, stage: Stage, prompts: Vec<u32>) -> Vec<u32> {
        let asked = self.state.asked.get(&stage);
        prompts.into_iter().filter(|at| asked.is_none_or(|asked| !asked.contains(at))).collect()
    }

    /// `what` is missing, and why: as the answers to these kinds of work tell.
    pub(super) fn because(&self, what: &str, work: &[&str]) -> String {
        because(self.state, what, work)
    }

    /// A split's prompts, but for those that the teacher is known to be unable to run.
    pub(super) fn measurable(&self, split: Split) -> Vec<u32> {
        let runs = |at: &u32| !self.state.is_skipped(self.campaign.teacher, *at);
        self.campaign.split(split).into_iter().filter(runs).collect()
    }

    /// All units that the estimator measures, with the campaign's baseline where it takes that. An
    /// exact effect is that of a cut, as masks make it.
    pub(super) fn estimate(&self, estimator: Estimator, prompts: Vec<u32>) -> Piece {
        let wanted = self.campaign.probe.baseline;
        let row = estimator.row();
        let takes = !row.is_exact && row.baselines.contains(&wanted);
        let baseline = if takes { wanted } else { estimator.usual_baseline() };
        let kinds = estimator.usual_kinds_of(&self.campaign.shape);
        let work = Work::Estimate(Estimate { prompts, estimator, kinds, baseline });
        self.teacher(Purpose::Evidence, work)
    }

    /// Work on the teacher.
    pub(super) fn teacher(&self, purpose: Purpose, work: Work<u32>) -> Piece {
        (self.campaign.teacher, purpose, work)
    }

    /// Work on the student, where one is wanted.
    pub(super) fn student(&self, purpose: Purpose, work: Work<u32>) -> Option<Piece> {
        Some((self.campaign.student?, purpose, work))
    }

    /// Names and places a batch.
    pub(super) fn number(&self, pieces: Vec<Piece>) -> Vec<PlannedTask> {
        let epoch = self.state.epoch + 1;
        let identity = self.state.identity.unwrap_or(Digest([0; 32]));
        let task = |(index, piece)| PlannedTask::new(identity, (epoch, index), piece);
        (0..).zip(pieces).map(task).collect()
    }
}

/// Batches of at most `size`, all but equal in length; none of nothing.
pub(super) fn batches<T: Clone>(items: &[T], size: u32) -> Vec<Vec<T>> {
    let parts = items.len().div_ceil(size.max(1) as usize).max(1);
    items.chunks(items.len().div_ceil(parts).max(1)).map(<[T]>::to_vec).collect()
}
