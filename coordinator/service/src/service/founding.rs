//! Who is here, and which models the campaign is about, once workers hold them.

use super::Coordinator;
use crate::ServiceError;
use crate::registry::{Heard, holdings};
use std::collections::BTreeMap;
use uspx_colony::{Ending, Event};
use uspx_domain::{Fingerprint, ModelShape, UnitKind};
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
            (heartbeat.worker.clone(), holdings(&heartbeat), heartbeat.may_be_asked());
        let version = heartbeat.uspx_version.clone();
        match self.registry.hear(heartbeat) {
            Heard::News => {}
            Heard::Known => return Ok(None),
            Heard::NoRoom => {
                tracing::warn!(%worker, "it is not let in: the colony has all the workers it takes");
                return Ok(None);
            }
        }
        tracing::info!(%worker, models = holds.len(), version, "a worker is here");
        if speaks.jobs.is_empty() {
            tracing::warn!(%worker, version, "it does not read this coordinator's tasks and gets none: upgrade uspx on it");
        }
        if let Err(error) = self.dispatch.open_queue(&worker).await {
            if !error.is_retryable() {
                return Err(error.into());
            }
            tracing::warn!(%error, %worker, "its queue is made when its first task is sent");
        }
        let ended = self.event(Event::WorkerSeen { worker, speaks, holds }).await?;
        if self.colony.state().campaign().is_none() {
            return self.found().await;
        }
        Ok(ended)
    }

    /// Begins the campaign as soon as it is clear which models it is about.
    pub(super) async fn found(&mut self) -> Result<Option<Ending>, ServiceError> {
        let models: BTreeMap<Fingerprint, ModelShape> =
            self.registry.models().into_iter().map(|(id, (_, shape))| (id, shape)).collect();
        let plan = &self.settings.plan;
        let has_experts = |shape: &ModelShape| shape.count(UnitKind::Expert) > 0;
        let teacher = choose(&models, plan.teacher, has_experts);
        let student = choose(&models, plan.student, |shape| !has_experts(shape));
        let (Found::One(teacher, shape), Found::One(student, _)) = (&teacher, &student) else {
            say("teacher", &teacher);
            say("student", &student);
            return Ok(None);
        };
        let config = plan.config((*teacher, shape.clone()), *student, &self.book);
        let step = self.colony.found(config, *uuid::Uuid::new_v4().as_bytes())?;
        self.commit(step).await
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
        Found::None => tracing::info!("waiting for a worker that holds the {which}"),
        Found::Several => tracing::warn!(
            "workers hold several models that could be the {which}: name one by its fingerprint \
             in the configuration (campaign.{which})"
        ),
    }
}
