//! The start: the bus is waited for, the readers begin, and the campaign goes on where its ledger
//! ends.

use super::Coordinator;
use crate::ServiceError;
use crate::intake::{self, Readers};
use crate::owner::Owner;
use std::sync::Arc;
use std::time::Duration;
use uspx_bus::QueueSpec;
use uspx_colony::{Ending, Event};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::RESULTS;

/// The pause between two looks at a bus that is away or full.
const AGAIN: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Makes the queue of answers and starts the readers, waiting while the bus is away or has no
    /// room; none where the end was asked for meanwhile.
    pub(super) async fn begin(
        &self,
        shutdown: &Shutdown,
        readers: &Shutdown,
        owner: &Arc<Owner>,
    ) -> Result<Option<Readers>, ServiceError> {
        let results = QueueSpec {
            lease: self.settings.lease,
            max_deliveries: 100,
            ..QueueSpec::new(RESULTS)
        };
        loop {
            let begun = match self.bus.ensure(&results).await {
                Ok(()) => intake::start(&self.bus, &self.store, readers, owner).await,
                Err(error) => Err(error),
            };
            match begun {
                Err(error) if error.is_retryable() => tracing::warn!(%error, "waiting for the bus"),
                begun => return Ok(Some(begun?)),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Goes on where the ledger ends, under the settings of today. A campaign that has ended ends
    /// the service only once it is clear that the settings ask for no other.
    pub(super) async fn start(&mut self) -> Result<Option<Ending>, ServiceError> {
        self.bring_about().await?;
        let ended = self.event(Event::Started).await?;
        Ok(ended.filter(|_| self.decided))
    }
}
