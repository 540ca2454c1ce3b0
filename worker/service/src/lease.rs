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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use uspx_bus::{Bus, EmbeddedBus, QueueSpec};

    const LEASE: Duration = Duration::from_secs(60);

    async fn leased() -> (Arc<dyn Bus>, Delivery) {
        let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
        bus.ensure(&QueueSpec { lease: LEASE, ..QueueSpec::new("q") }).await.unwrap();
        bus.publish("q", "m", "task".into()).await.unwrap();
        let delivery = bus.pull("q", LEASE).await.unwrap().unwrap();
        (bus, delivery)
    }

    /// A transfer of twenty minutes at a lease of one, and no step of the job done.
    #[tokio::test(start_paused = true)]
    async fn bytes_that_move_keep_the_lease() {
        let (bus, delivery) = leased().await;
        let progress = JobProgress::default();
        let transfer = async {
            for _ in 0..120 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                progress.moved();
            }
        };
        keep_lease(transfer, &delivery, &progress, &Shutdown::new()).await;
        assert!(delivery.is_held());
        assert!(bus.pull("q", Duration::from_secs(1)).await.unwrap().is_none(), "it came again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_hangs_loses_it() {
        let (bus, delivery) = leased().await;
        let progress = JobProgress::default();
        let stuck = tokio::time::sleep(LEASE * 3);
        keep_lease(stuck, &delivery, &progress, &Shutdown::new()).await;
        assert!(!delivery.is_held());
        assert!(bus.pull("q", Duration::from_secs(1)).await.unwrap().is_some());
    }
}
