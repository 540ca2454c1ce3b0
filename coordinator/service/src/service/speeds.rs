//! What workers say of their speed goes to the colony, which sizes its next tasks by it.

use super::Coordinator;
use crate::ServiceError;
use uspx_colony::{Ending, Event};
use uspx_domain::WorkerId;

impl Coordinator {
    /// A worker has said how fast it was, if it has.
    pub(super) async fn measured(
        &mut self,
        worker: WorkerId,
    ) -> Result<Option<Ending>, ServiceError> {
        match self.registry.speed(&worker) {
            Some(speed) => self.event(Event::WorkerMeasured { worker, speed }).await,
            None => Ok(None),
        }
    }
}
