//! Signs of life: who this worker is, what it holds and speaks, and how far its task is.

use crate::agent::Current;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use uspx_bus::Bus;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::HEARTBEAT;
use uspx_wire::{CurrentTask, HeartbeatMessage, encode};

/// Says it every so often, until `stop`.
pub(crate) async fn send(
    bus: Arc<dyn Bus>,
    heartbeat: HeartbeatMessage,
    current: Current,
    every: Duration,
    stop: Shutdown,
) {
    let mut clock = tokio::time::interval(every);
    loop {
        tokio::select! { _ = clock.tick() => {}, () = stop.cancelled() => return }
        let at_work = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let current = at_work.map(|(task, progress)| {
            let (done, total) = progress.steps();
            CurrentTask { task, done, total }
        });
        match encode(&HeartbeatMessage { current, ..heartbeat.clone() }) {
            Ok(message) => {
                if let Err(error) = bus.broadcast(HEARTBEAT, message).await {
                    tracing::debug!(%error, "a heartbeat was not sent");
                }
            }
            Err(error) => tracing::error!(%error, "a heartbeat cannot be encoded"),
        }
    }
}
