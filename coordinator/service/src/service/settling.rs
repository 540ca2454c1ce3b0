//! Settling messages: only the colony's owner does, and only what its ledger issued.

use crate::ServiceError;
use crate::owner::Owner;
use std::time::Duration;
use uspx_bus::{BusError, Delivery, Lease};
use uspx_colony::Ending;
use uspx_domain::{TaskId, WorkerId};

/// The pause before an answer to what this ledger never issued is delivered again.
const NOT_OURS: Duration = Duration::from_secs(60);

/// Settles a message if the colony still is ours. The outer error ends the service, the inner one
/// passes.
pub(super) async fn settle(
    owner: &Owner,
    settling: impl Future<Output = Result<(), BusError>>,
) -> Result<Result<(), ServiceError>, ServiceError> {
    match owner.confirm().await {
        Ok(()) => Ok(settling.await.map_err(ServiceError::from)),
        Err(error @ ServiceError::Replaced { .. }) => Err(error),
        Err(error) => Ok(Err(error)),
    }
}

/// An answer to what this ledger never issued is another coordinator's, or nobody's: never
/// acknowledged. Given back with a long pause it comes up to the queue's most deliveries (100), then
/// it is a dead letter, whose settling is logged as a warning.
pub(super) async fn not_ours(
    task: TaskId,
    worker: &WorkerId,
    delivery: &Delivery,
) -> Result<Option<Ending>, ServiceError> {
    let deliveries = delivery.deliveries;
    tracing::warn!(%task, %worker, deliveries, "an answer to a task that this ledger never issued goes back");
    match delivery.nak(NOT_OURS).await {
        Ok(Lease::Held | Lease::Lost) => {}
        Err(error) => tracing::debug!(%error, "it comes again after its lease"),
    }
    Ok(None)
}
