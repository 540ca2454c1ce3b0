//! Which models the campaign is about, once workers hold them.

use super::Coordinator;
use crate::ServiceError;
use uspx_colony::Ending;
use uspx_domain::{Fingerprint, ModelShape, UnitKind};

impl Coordinator {
    /// Begins the campaign as soon as it is clear which models it is about.
    pub(super) async fn found(&mut self) -> Result<Option<Ending>, ServiceError> {
        let models = self.registry.models();
        let held = |wanted: Option<Fingerprint>,
                    is_teacher: bool|
         -> Result<Option<(Fingerprint, ModelShape)>, ServiceError> {
            let fits = models.iter().filter(|(id, (_, shape))| match wanted {
                Some(wanted) => **id == wanted,
                None => (shape.count(UnitKind::Expert) > 0) == is_teacher,
            });
            let mut fits = fits.map(|(id, (_, shape))| (*id, shape.clone()));
            match (fits.next(), fits.next()) {
                (Some(_), Some(_)) => {
                    let which = if is_teacher { "teacher" } else { "student" };
                    Err(ServiceError::Models(format!(
                        "workers hold several models that could be the {which}: name one by its fingerprint"
                    )))
                }
                (found, _) => Ok(found),
            }
        };
        let (Some(teacher), Some(student)) =
            (held(self.settings.plan.teacher, true)?, held(self.settings.plan.student, false)?)
        else {
            tracing::info!("waiting for workers that hold the teacher and the student");
            return Ok(None);
        };
        let config = self.settings.plan.config(teacher, student.0, &self.book);
        let step = self.colony.found(config, *uuid::Uuid::new_v4().as_bytes())?;
        self.commit(step).await
    }
}
