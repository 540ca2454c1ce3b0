//! Invariant 5, first half: an answer is believed only if it fits its task. What an outcome must
//! hold is the job's own check ([`uspx_domain::Job::check`]).

use crate::{CampaignConfig, PlannedTask, Ticket};
use uspx_domain::{Answer, Asked, Outcome, Refusal, Skipped};

/// Checks an answer against the ticket of its task.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(
    campaign: &CampaignConfig,
    ticket: Option<&Ticket>,
    answer: &Answer,
) -> Result<(), Refusal> {
    let ticket = ticket.ok_or(Refusal::UnknownTask)?;
    if !ticket.was_asked(&answer.worker) {
        return Err(Refusal::NotAsked);
    }
    if let Outcome::Failed(_) = &answer.outcome {
        return Ok(());
    }
    let task = &ticket.task;
    skipped(campaign, task, &answer.skipped)?;
    let measured = task.measured(campaign, &answer.skipped);
    if answer.seams as usize > measured.len() {
        return Err(Refusal::Seams(answer.seams, measured.len()));
    }
    let ids = measured.iter().filter_map(|at| campaign.id(*at)).collect();
    task.work.job().check(&Asked { ids, shape: &campaign.shape }, &answer.outcome)
}

/// The skipped prompts are some of the task's, in its order, none of them twice.
fn skipped(
    campaign: &CampaignConfig,
    task: &PlannedTask,
    skipped: &[Skipped],
) -> Result<(), Refusal> {
    let mut asked = task.work.prompts().iter().map(|at| campaign.id(*at));
    let mut follows = |s: &Skipped| asked.any(|id| id == Some(s.id.as_str()));
    if skipped.iter().all(&mut follows) { Ok(()) } else { Err(Refusal::Prompts) }
}
