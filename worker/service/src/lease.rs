//! A task's lease, prolonged only while the work moves: steps done, or bytes on their way
//! (invariant 4).

use crate::compute::JobProgress;
use std::pin::pin;
use uspx_bus::{Delivery, Lease};
use uspx_runtime::Shutdown;

/// Waits for `work`, and tells the bus of progress meanwhile. Where the end is asked for, the work
/// is told to stop, and still waited for.
pub(crate) async fn keep_lease<T>(
    work: impl Future<Output = T>,
    delivery: &Delivery,
    progress: &JobProgress,
    shutdown: &Shutdown,
) -> T {
    let mut work = pin!(work);
    let mut clock = tokio::time::interval(delivery.lease() / 4);
    let mut told = progress.reports();
    let mut cancelled = false;
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = shutdown.cancelled(), if !cancelled => {
                cancelled = true;
                progress.stop();
            }
            _ = clock.tick() => {
                let reports = progress.reports();
                if reports > told {
                    told = reports;
                    prolong(delivery).await;
                }
            }
        }
    }
}

async fn prolong(delivery: &Delivery) {
    match delivery.progress().await {
        Ok(Lease::Held) => {}
        Ok(Lease::Lost) => {
            tracing::warn!(message = delivery.message_id, "the lease ran out; going on");
        }
        Err(error) => tracing::debug!(%error, "progress was not told"),
    }
}
