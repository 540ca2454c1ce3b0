//! Off the bus: pulls answers, heartbeats and dead letters, decodes them, and hands them to the
//! service in one channel.

use crate::ServiceError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uspx_artifact::{ArtifactError, Store, silent};
use uspx_bus::{Bus, BusError, DeadLetter, Delivery};
use uspx_domain::Answer;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{HEARTBEAT, RESULTS};
use uspx_wire::{Content, HeartbeatMessage, MAX_BLOB, decode, unpack_answer};

/// How long one pull waits: a shutdown is noticed between two.
const WAIT: Duration = Duration::from_millis(500);
/// The pause after a failure that may pass.
const PAUSE: Duration = Duration::from_millis(500);

/// What comes in.
pub(crate) enum Incoming {
    /// An answer, with the delivery to acknowledge once it is durable.
    Answer(Box<Answer>, Delivery),
    /// A sign of life.
    Heartbeat(HeartbeatMessage),
    /// A message that ran out of deliveries.
    Dead(DeadLetter),
    /// The bus failed for good.
    Broken(ServiceError),
}

/// Starts the three readers. They end with `shutdown` or when `out` closes.
pub(crate) async fn start(
    bus: &Arc<dyn Bus>,
    store: &Store,
    out: &mpsc::Sender<Incoming>,
    shutdown: &Shutdown,
) -> Result<(), BusError> {
    let mut heartbeats = bus.listen(HEARTBEAT).await?;
    let (sender, stop) = (out.clone(), shutdown.clone());
    tokio::spawn(async move {
        loop {
            let payload =
                tokio::select! { p = heartbeats.next() => p, () = stop.cancelled() => None };
            let Some(payload) = payload else { break };
            match decode::<HeartbeatMessage>(&payload) {
                Ok(heartbeat) => {
                    if sender.send(Incoming::Heartbeat(heartbeat)).await.is_err() {
                        break;
                    }
                }
                Err(error) => tracing::warn!(%error, "a heartbeat that cannot be read"),
            }
        }
    });
    tokio::spawn(answers(bus.clone(), store.clone(), out.clone(), shutdown.clone()));
    tokio::spawn(dead_letters(bus.clone(), out.clone(), shutdown.clone()));
    Ok(())
}

async fn answers(bus: Arc<dyn Bus>, store: Store, out: mpsc::Sender<Incoming>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let incoming = match bus.pull(RESULTS, WAIT).await {
            Ok(None) => continue,
            Ok(Some(delivery)) => match read(&store, &delivery).await {
                Ok(answer) => Incoming::Answer(Box::new(answer), delivery),
                Err(refusal) => {
                    refusal.settle(&delivery).await;
                    continue;
                }
            },
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "answers cannot be pulled just now");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => Incoming::Broken(error.into()),
        };
        if out.send(incoming).await.is_err() {
            break;
        }
    }
}

/// Why an answer message was not taken.
enum Unreadable {
    /// It may be readable later.
    Later(String),
    /// Never.
    Never(String),
}

impl Unreadable {
    fn of(error: &ArtifactError) -> Self {
        if error.is_retryable() {
            Self::Later(error.to_string())
        } else {
            Self::Never(error.to_string())
        }
    }

    async fn settle(&self, delivery: &Delivery) {
        let done = match self {
            Self::Later(reason) => {
                tracing::warn!(reason, "an answer cannot be read just now");
                delivery.nak(PAUSE).await.map(|_| ())
            }
            Self::Never(reason) => delivery.term(reason).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "an unreadable answer will come again");
        }
    }
}

async fn read(store: &Store, delivery: &Delivery) -> Result<Answer, Unreadable> {
    let message = decode(&delivery.payload).map_err(|e| Unreadable::Never(e.to_string()))?;
    let answer: Answer = match message {
        Content::Inline(answer) => answer,
        Content::Stored(blob) => {
            let bytes = store
                .get_blob(&blob, MAX_BLOB as u64, &silent)
                .await
                .map_err(|e| Unreadable::of(&e))?;
            unpack_answer(&blob, &bytes).map_err(|e| Unreadable::Never(e.to_string()))?
        }
    };
    // An answer that names a blob nobody can fetch is not an answer: the task goes out again when
    // its lease runs out.
    for blob in answer.outcome.blobs() {
        if !store.has_blob(&blob).await.map_err(|e| Unreadable::of(&e))? {
            return Err(Unreadable::Later(format!("its blob {} is not in the store", blob.digest)));
        }
    }
    Ok(answer)
}

async fn dead_letters(bus: Arc<dyn Bus>, out: mpsc::Sender<Incoming>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        match bus.dead_letters(WAIT).await {
            Ok(None) => {}
            Ok(Some(letter)) => {
                if out.send(Incoming::Dead(letter)).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "dead letters cannot be read just now");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
