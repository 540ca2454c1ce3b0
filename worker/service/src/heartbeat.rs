//! Signs of life: who this worker is, what it holds and speaks, and how far its task is.

use crate::agent::AtWork;
use std::sync::Arc;
use std::time::Duration;
use uspx_bus::Bus;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::HEARTBEAT;
use uspx_wire::{CurrentTask, HeartbeatMessage, encode};

/// Says it every so often, until `stop`.
pub(crate) async fn send(
    bus: Arc<dyn Bus>,
    heartbeat: HeartbeatMessage,
    at_work: Arc<AtWork>,
    every: Duration,
    stop: Shutdown,
) {
    let mut clock = tokio::time::interval(every);
    loop {
        tokio::select! { _ = clock.tick() => {}, () = stop.cancelled() => return }
        match encode(&now(&heartbeat, &at_work)) {
            Ok(message) => {
                if let Err(error) = bus.broadcast(HEARTBEAT, message).await {
                    tracing::debug!(%error, "a heartbeat was not sent");
                }
            }
            Err(error) => tracing::error!(%error, "a heartbeat cannot be encoded"),
        }
    }
}

/// The heartbeat with how the work stands now.
fn now(heartbeat: &HeartbeatMessage, at_work: &AtWork) -> HeartbeatMessage {
    let current = at_work.current();
    let beats = current.as_ref().map(|(_, progress)| progress.reports());
    let current = current.map(|(task, progress)| {
        let (done, total) = progress.steps();
        CurrentTask { task, done, total }
    });
    HeartbeatMessage { current, beats, speed: at_work.speed(), ..heartbeat.clone() }
}
