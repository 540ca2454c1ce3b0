//! What comes next: a pure function of the state. It is asked only when no epoch is open.

mod judge;
mod probe;
mod student;

pub use judge::label_mask;

use crate::reasons::because;
use crate::state::Stage;
use crate::{CampaignConfig, Ending, PlannedTask, Purpose, Split, State};
use uspx_domain::{Digest, Fingerprint, Work};

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// A batch of work.
    Open {
        /// What for.
        stage: Stage,
        /// The whole batch.
        tasks: Vec<PlannedTask>,
    },
    /// All is judged: the release gate decides.
    Gate,
    /// It cannot go on.
    End(Ending),
    /// Nothing is to be planned: an epoch is open, the campaign has ended or waits for its release, or there is none.
    Wait,
}

/// The next batch.
pub fn plan(state: &State) -> Next {
    match &state.campaign {
        Some(campaign) if !state.open && state.ending.is_none() && state.gate.is_none() => next(campaign, state),
        _ => Next::Wait,
    }
}

fn next(campaign: &CampaignConfig, state: &State) -> Next {
    let planner = Planner { campaign, state };
    let mut stage = following(campaign, state);
    // A stage may have nothing to do (no prompts for patching, say); the one after it is next then.
    while let Some(now) = stage {
        if let Some(missing) = planner.missing(now) {
            return Next::End(Ending::Failed(missing));
        }
        let works = planner.works(now);
        if !works.is_empty() {
            return Next::Open { stage: now, tasks: planner.number(works) };
        }
        stage = after(now);
    }
    match planner.lacks_judgement() {
        Some(missing) => Next::End(Ending::Failed(missing)),
        None => Next::Gate,
    }
}

fn following(campaign: &CampaignConfig, state: &State) -> Option<Stage> {
    match state.stage {
        None => Some(Stage::Trace),
        Some(Stage::Patch | Stage::Explore) if !explored_enough(campaign, state) => Some(Stage::Explore),
        Some(Stage::Patch | Stage::Explore) => Some(Stage::JudgeMasks),
        Some(stage) => after(stage),
    }
}

fn after(stage: Stage) -> Option<Stage> {
    match stage {
        Stage::Trace => Some(Stage::Patch),
        Stage::Patch => Some(Stage::Explore),
        Stage::Explore => Some(Stage::JudgeMasks),
        Stage::JudgeMasks => Some(Stage::Label),
        Stage::Label => Some(Stage::Distil),
        Stage::Distil => Some(Stage::Export),
        Stage::Export => Some(Stage::JudgeStudents),
        Stage::JudgeStudents => None,
    }
}

/// Whether the exact budget is spent, or the mask is stable after the least that must be spent.
fn explored_enough(campaign: &CampaignConfig, state: &State) -> bool {
    let spent = state.explored.pairs;
    let stable = state.stable_versions >= campaign.mask.stable_versions;
    spent >= campaign.probe.exact_pairs || (stable && spent >= campaign.probe.exact_least)
}

/// A piece of work, the model that it is about, and what its answer is for.
type Piece = (Fingerprint, Purpose, Work<u32>);

/// The planner's view.
struct Planner<'a> {
    campaign: &'a CampaignConfig,
    state: &'a State,
}

impl Planner<'_> {
    fn works(&self, stage: Stage) -> Vec<Piece> {
        match stage {
            Stage::Trace => self.trace(),
            Stage::Patch => self.patch(),
            Stage::Explore if explored_enough(self.campaign, self.state) => Vec::new(),
            Stage::Explore => self.explore(),
            Stage::JudgeMasks => self.judge_masks(),
            Stage::Label => self.label(),
            Stage::Distil => self.distil(),
            Stage::Export => self.export(),
            Stage::JudgeStudents => self.judge_students(),
        }
    }

    /// What a stage cannot begin without, and why it is not there.
    fn missing(&self, stage: Stage) -> Option<String> {
        let results = &self.state.results;
        let labels = |split| results.labels.get(&split).is_none_or(|l| l.is_empty());
        let (what, work) = match stage {
            Stage::Patch if self.state.trails.is_empty() => (self.untraced(), "trace"),
            Stage::JudgeMasks if self.state.mask.is_none() => ("there is no evidence to draw a mask from", "ablate"),
            Stage::Distil if labels(Split::Train) => ("no train prompt was labelled", "label"),
            Stage::Distil if labels(Split::Validation) => ("no validation prompt was labelled", "label"),
            Stage::Export if results.adapters.is_empty() => ("no training succeeded", "distil"),
            Stage::JudgeStudents if !results.exports.contains_key(&crate::Contender::Gptq) => {
                ("the GPTQ export was given up, and the gate judges no other", "export")
            }
            _ => return None,
        };
        Some(because(self.state, what, work))
    }

    fn untraced(&self) -> &'static str {
        let given_up = self.state.tickets.values().any(|t| !t.is_answered() && t.task.work.name() == "trace");
        if given_up { "no trace task was answered" } else { "no train prompt could be traced" }
    }

    fn lacks_judgement(&self) -> Option<String> {
        let missing = |who| self.state.judged(who).is_none_or(|rows| rows.is_empty());
        let what = match () {
            () if missing(crate::Contender::Gptq) => "the GPTQ student was not judged",
            () if missing(self.rival()) => "what the student is to beat was not judged",
            () => return None,
        };
        Some(because(self.state, what, "judge"))
    }

    /// A split's prompts, but for those that the teacher is known to be unable to run.
    fn measurable(&self, split: Split) -> Vec<u32> {
        let teacher = self.campaign.teacher;
        self.campaign.split(split).into_iter().filter(|at| !self.state.is_skipped(teacher, *at)).collect()
    }

    fn number(&self, works: Vec<Piece>) -> Vec<PlannedTask> {
        let epoch = self.state.epoch + 1;
        let identity = self.state.identity.unwrap_or(Digest([0; 32]));
        let task = |(index, piece)| PlannedTask::new(identity, (epoch, index), piece);
        (0..).zip(works).map(task).collect()
    }

    fn teacher(&self, purpose: Purpose, work: Work<u32>) -> Piece {
        (self.campaign.teacher, purpose, work)
    }

    fn student(&self, purpose: Purpose, work: Work<u32>) -> Piece {
        (self.campaign.student, purpose, work)
    }
}

/// Batches of at most `size`, all but equal in length.
fn batches<T: Clone>(items: &[T], size: u32) -> Vec<Vec<T>> {
    let parts = items.len().div_ceil(size.max(1) as usize).max(1);
    items.chunks(items.len().div_ceil(parts).max(1)).map(<[T]>::to_vec).collect()
}
