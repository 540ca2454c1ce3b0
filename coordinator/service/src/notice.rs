//! What a person should hear of a step: failed attempts, tasks given up, prompts left out, labels that cover too little.
//! Ids and reasons only: no prompt's text is known here.

use uspx_colony::{Record, Stage, State};
use uspx_domain::{Answer, SkipGroup, TaskId};

/// Says it in the log. `state` has the records in it already.
pub(crate) fn tell(records: &[Record], state: &State) {
    for record in records {
        match record {
            Record::Lost { task, worker, cause } if cause.counts() => {
                tracing::warn!(%task, work = work(state, task), %worker, reason = %cause, "an attempt failed");
            }
            Record::GivenUp { task, reason } => {
                tracing::warn!(%task, work = work(state, task), reason, "a task is given up");
            }
            Record::Quarantined { worker, reason } => {
                tracing::warn!(%worker, reason, "a worker is quarantined: it gets no more tasks");
            }
            Record::Accepted { answer } => left_out(answer, state),
            Record::EpochClosed { .. } if state.stage() == Some(Stage::Label) => coverage(state),
            _ => {}
        }
    }
}

fn work(state: &State, task: &TaskId) -> &'static str {
    state.tickets().get(task).map_or("unknown", |t| t.task.work.name())
}

fn left_out(answer: &Answer, state: &State) {
    for group in SkipGroup::of(&answer.skipped) {
        let (task, work) = (answer.task, work(state, &answer.task));
        tracing::warn!(%task, work, worker = %answer.worker, reason = group.reason.name(), "{group}");
    }
}

fn coverage(state: &State) {
    match state.coverage() {
        Some(coverage) if coverage.is_low() => tracing::warn!("labels: {coverage}"),
        Some(coverage) => tracing::info!("labels: {coverage}"),
        None => {}
    }
}
