//! What comes next: a pure function of the state, of which workers are there and of what they say of
//! their speed. These decide how work is cut up: how large tasks are, and how many machines share a
//! round of a training. It is asked only when no epoch is open.
//!
//! Proposers, one a file, offer what they would have measured or made next; the allocator chooses
//! among their offers. Today it takes the first that has any work, in the order of a campaign; what
//! an offer gains and costs comes in here.

mod distil;
mod explore;
mod export;
mod forecast;
mod judge_masks;
mod judge_students;
mod label;
mod led;
mod patch;
mod sae;
mod shared;
mod sizes;
mod trace;
mod view;

pub use forecast::{Forecast, Sample, forecast};
pub use label::label_mask;
pub(crate) use sizes::Able;
pub use sizes::{Measured, Speeds};

use crate::state::Stage;
use crate::{Ending, PlannedTask, State};
use view::{Piece, View, batches};

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
    /// Nothing is to be planned: an epoch is open, the campaign has ended, waits for its release or for what keeps its
    /// student back, or there is none.
    Wait,
}

/// What a proposer offers.
enum Offer {
    /// Nothing: what it could ask for is asked for.
    Nothing,
    /// This batch of work.
    Work(Vec<Piece>),
    /// It cannot begin, and nothing after it can: what is missing, and why.
    Blocked(String),
}

impl From<Vec<Piece>> for Offer {
    fn from(pieces: Vec<Piece>) -> Self {
        if pieces.is_empty() { Self::Nothing } else { Self::Work(pieces) }
    }
}

/// A source of work.
trait Proposer: Sync {
    /// What its work is for.
    fn stage(&self) -> Stage;

    /// What it would have done next.
    fn offer(&self, view: &View<'_>) -> Offer;
}

/// Every proposer, in the order of a campaign.
const PROPOSERS: [&dyn Proposer; 9] = [
    &trace::Trace,
    &patch::Patch,
    &explore::Explore,
    &judge_masks::JudgeMasks,
    &sae::Sae,
    &label::Label,
    &distil::Distil,
    &export::Export,
    &judge_students::JudgeStudents,
];

/// The next batch.
pub fn plan(state: &State, speeds: &Speeds<'_>) -> Next {
    let Some(campaign) = state.campaign.as_ref().filter(|_| !state.open && state.ending.is_none())
    else {
        return Next::Wait;
    };
    let view = View { campaign, state, speeds };
    match (&state.ended_before, &state.gate) {
        (Some(ending), _) => beside(&view, ending),
        (None, None) => allocate(&view),
        (None, Some(_)) => Next::Wait,
    }
}

/// What was asked for beside a campaign that was over; then it ends as it did.
fn beside(view: &View<'_>, ending: &Ending) -> Next {
    match sae::Sae.offer(view) {
        Offer::Work(pieces) => Next::Open { stage: Stage::Sae, tasks: view.number(pieces) },
        Offer::Nothing | Offer::Blocked(_) => Next::End(ending.clone()),
    }
}

/// Whether all is measured, and a student's work would be next but is kept back. One that was judged is decided about:
/// that takes no machine.
fn is_kept_back(view: &View<'_>) -> bool {
    let is_measured = view.was_opened(Stage::JudgeMasks)
        && matches!(sae::Sae.offer(view), Offer::Nothing)
        && view.state.still_lacks().is_none();
    is_measured && !view.was_opened(Stage::JudgeStudents) && view.state.kept_back().is_some()
}

/// Chooses among the offers: the first that has work. Where none has, the students are judged as
/// far as they ever will be.
fn allocate(view: &View<'_>) -> Next {
    if is_kept_back(view) {
        return Next::Wait;
    }
    for proposer in PROPOSERS {
        let is_too_early = view.campaign.student.is_none() || view.state.still_lacks().is_some();
        if proposer.stage().needs_student() && is_too_early {
            return Next::End(Ending::Measured);
        }
        match proposer.offer(view) {
            Offer::Nothing => {}
            Offer::Work(pieces) => {
                return Next::Open { stage: proposer.stage(), tasks: view.number(pieces) };
            }
            Offer::Blocked(why) => return Next::End(Ending::Failed(why)),
        }
    }
    match judge_students::lacks_judgement(view) {
        Some(missing) => Next::End(Ending::Failed(missing)),
        None => Next::Gate,
    }
}
