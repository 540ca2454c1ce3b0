//! Who is here, and which models the campaign is about, once workers hold them.

use super::Coordinator;
use crate::ServiceError;
use crate::changes::changes;
use crate::registry::{Heard, holdings};
use std::collections::BTreeMap;
use uspx_colony::{Amending, CampaignConfig, Ending, Event};
use uspx_domain::{Fingerprint, ModelShape, Speaks, UnitKind};
use uspx_runtime::telemetry::TOLD;
use uspx_wire::HeartbeatMessage;

/// What was found for a part of the campaign.
enum Found {
    One(Fingerprint, ModelShape),
    None,
    /// Several could be it. Nobody's heartbeat may end a colony, so this is waited out.
    Several,
}

impl Coordinator {
    /// Lets a worker in, with what it speaks and holds.
    pub(super) async fn heard(
        &mut self,
        heartbeat: HeartbeatMessage,
    ) -> Result<Option<Ending>, ServiceError> {
        let (worker, holds, speaks) =
            (heartbeat.worker.clone(), holdings(&heartbeat), self.may_ask(&heartbeat));
        let version = heartbeat.uspx_version.clone();
        match self.registry.hear(heartbeat) {
            Heard::News => {}
            Heard::Measured => return self.measured(worker).await,
            Heard::Known => return Ok(None),
            Heard::NoRoom => {
                tracing::warn!(%worker, "it is not let in: the colony has all the workers it takes");
                return Ok(None);
            }
        }
        tracing::info!(target: TOLD, models = holds.len(), "worker {worker} is here");
        if speaks.jobs.is_empty() {
            tracing::warn!(%worker, version, "it does not read this coordinator's tasks and gets none: upgrade uspx on it");
        }
        if let Err(error) = self.dispatch.open_queue(&worker).await {
            if !error.is_retryable() {
                return Err(error.into());
            }
            tracing::warn!(%error, %worker, "its queue is made when its first task is sent");
        }
        // First: whoever is let in may be the one that a batch of work waits for.
        if let Some(ending) = self.measured(worker.clone()).await? {
            return Ok(Some(ending));
        }
        let ended = self.event(Event::WorkerSeen { worker, speaks, holds }).await?;
        match self.decided {
            true => Ok(ended),
            false => self.bring_about().await,
        }
    }

    /// What the worker may be asked for, of the person's prompts.
    fn may_ask(&self, heartbeat: &HeartbeatMessage) -> Speaks {
        heartbeat.may_be_asked(self.book.has_conversations())
    }

    /// Founds the campaign that the settings ask for, or lets the one there is go on under them, as
    /// soon as it is clear which models it is about.
    pub(super) async fn bring_about(&mut self) -> Result<Option<Ending>, ServiceError> {
        let Some(wanted) = self.wanted() else { return Ok(None) };
        self.decided = true;
        let old = self.colony.state().campaign().cloned();
        let changed = old.map(|old| changes(&old, &wanted)).unwrap_or_default();
        let (amending, step) = self.colony.want(wanted, *uuid::Uuid::new_v4().as_bytes())?;
        match amending {
            Amending::Same => {}
            Amending::GoesOn => tracing::warn!(
                "the configuration has changed, and the campaign goes on under it: {}",
                changed.join("; ")
            ),
            Amending::Anew if changed.is_empty() => tracing::info!("a campaign begins"),
            Amending::Anew => {
                tracing::warn!("another campaign begins: {}", changed.join("; "));
            }
        }
        self.commit(step).await
    }

    /// The campaign that the settings ask for; none while a model of it is not known. What they
    /// leave open is as it was, or found among the workers' models.
    fn wanted(&self) -> Option<CampaignConfig> {
        let models: BTreeMap<Fingerprint, ModelShape> =
            self.registry.models().into_iter().map(|(id, (_, shape))| (id, shape)).collect();
        let (plan, old) = (&self.settings.plan, self.colony.state().campaign());
        let has_experts = |shape: &ModelShape| shape.count(UnitKind::Expert) > 0;
        let teacher = match old.filter(|c| plan.teacher.is_none_or(|id| id == c.teacher)) {
            Some(old) => Found::One(old.teacher, old.shape.clone()),
            None => choose(&models, plan.teacher, has_experts),
        };
        let Found::One(teacher, shape) = teacher else {
            say("teacher", &teacher);
            return None;
        };
        let student = match plan.student.or(old.and_then(|c| c.student)) {
            _ if plan.stop_at_mask => None,
            Some(student) => Some(student),
            None => match choose(&models, None, |shape| !has_experts(shape)) {
                Found::One(student, _) => Some(student),
                unclear => {
                    say("student", &unclear);
                    return None;
                }
            },
        };
        Some(plan.config((teacher, shape), student, &self.book))
    }
}

fn choose(
    models: &BTreeMap<Fingerprint, ModelShape>,
    wanted: Option<Fingerprint>,
    fits: impl Fn(&ModelShape) -> bool,
) -> Found {
    let mut fitting = models.iter().filter(|(id, shape)| match wanted {
        Some(wanted) => **id == wanted,
        None => fits(shape),
    });
    match (fitting.next(), fitting.next()) {
        (None, _) => Found::None,
        (Some((id, shape)), None) => Found::One(*id, shape.clone()),
        (Some(_), Some(_)) => Found::Several,
    }
}

fn say(which: &str, found: &Found) {
    match found {
        Found::One(..) => {}
        Found::None => tracing::info!(target: TOLD, "waiting for a worker that holds the {which}"),
        Found::Several => tracing::warn!(
            "workers hold several models that could be the {which}: name one by its fingerprint \
             in the configuration (campaign.{which})"
        ),
    }
}
