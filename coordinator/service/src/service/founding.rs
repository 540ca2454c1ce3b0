//! Which models the campaign is about, once workers hold them.

use super::Coordinator;
use crate::ServiceError;
use std::collections::BTreeMap;
use uspx_colony::Ending;
use uspx_domain::{Fingerprint, ModelShape, UnitKind};

/// What was found for a part of the campaign.
enum Found {
    One(Fingerprint, ModelShape),
    None,
    /// Several could be it. Nobody's heartbeat may end a colony, so this is waited out.
    Several,
}

impl Coordinator {
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
