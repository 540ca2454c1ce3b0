//! Releases: published beside the service, which hears of their end.

use super::{Coordinator, TICK};
use crate::{ServiceError, release};
use uspx_colony::{Ending, Event, ReleaseOrder};
use uspx_domain::ReleaseNumber;

/// What became of publishing.
pub(super) struct Released {
    wanted: ReleaseNumber,
    outcome: Result<ReleaseNumber, ServiceError>,
}

impl Coordinator {
    /// Publishing can take minutes: it runs beside the service, which hears of its end.
    pub(super) fn publish(&self, order: ReleaseOrder) {
        let Some(figures) = release::figures(self.colony.state()) else { return };
        let (store, colony) = (self.store.clone(), self.settings.colony.clone());
        let (scratch, done) = (self.settings.state.join("scratch"), self.releases.0.clone());
        tokio::spawn(async move {
            let outcome = release::publish(&store, &colony, &scratch, &order, &figures).await;
            // A closed channel means that the service has ended; the next start publishes again.
            let _ = done.send(Released { wanted: order.release, outcome }).await;
        });
    }

    pub(super) async fn released(
        &mut self,
        released: Released,
    ) -> Result<Option<Ending>, ServiceError> {
        match released.outcome {
            Ok(release) => {
                tracing::info!(release, "published");
                self.event(Event::ReleasePublished { release: released.wanted }).await
            }
            Err(ServiceError::Artifact(error)) if error.is_retryable() => {
                tracing::warn!(%error, "publishing failed; trying again");
                let order = self.colony.state().order().cloned();
                tokio::time::sleep(TICK).await;
                order.into_iter().for_each(|order| self.publish(order));
                Ok(None)
            }
            Err(error) => {
                let reason = error.to_string();
                self.event(Event::ReleaseFailed { release: released.wanted, reason }).await
            }
        }
    }
}
