//! Off the bus: pulls answers, heartbeats and dead letters, decodes them, and hands them to the
//! service. Answers and heartbeats do not share a queue: a flood of one never holds up the other.

use crate::ServiceError;
use crate::owner::Owner;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use uspx_artifact::{ArtifactError, Store, silent};
use uspx_bus::{Bus, BusError, DeadLetter, Delivery, Listener};
use uspx_domain::{Answer, FailureReason, Outcome, TaskId, WorkerId};
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{HEARTBEAT, RESULTS, parse_answer_message_id};
use uspx_wire::{Content, HeartbeatMessage, MAX_BLOB, decode, unpack_answer};

/// How long one pull waits: a shutdown is noticed between two.
const WAIT: Duration = Duration::from_millis(500);
/// The pause after a failure that may pass.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause before an answer that cannot be read just now is delivered again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Answers and dead letters that wait for the service.
const WAITING: usize = 64;
/// Heartbeats that wait; further ones are passed over, for they are said again soon.
const HEARD: usize = 512;
/// Deliveries after which a blob that an answer names counts as missing.
const LOOKS: u32 = 3;

/// What comes in, heartbeats apart.
pub(crate) enum Incoming {
    /// An answer, with the delivery to acknowledge once it is durable.
    Answer(Box<Answer>, Delivery),
    /// An answer that nobody can ever read, with what its id says of it.
    Garbled(TaskId, WorkerId, Delivery),
    /// A message that ran out of deliveries.
    Dead(DeadLetter),
    /// The bus failed for good.
    Broken(ServiceError),
}

/// The readers' other ends.
pub(crate) struct Readers {
    pub answers: mpsc::Receiver<Incoming>,
    pub heartbeats: mpsc::Receiver<HeartbeatMessage>,
    /// The readers themselves: one that ends before the service does takes it down.
    pub tasks: JoinSet<()>,
}

/// Starts the three readers. They end with `shutdown` or when their channel closes.
pub(crate) async fn start(
    bus: &Arc<dyn Bus>,
    store: &Store,
    shutdown: &Shutdown,
    owner: &Arc<Owner>,
) -> Result<Readers, BusError> {
    let listener = bus.listen(HEARTBEAT).await?;
    let (out, answers_in) = mpsc::channel(WAITING);
    let (heard, heartbeats_in) = mpsc::channel(HEARD);
    let source = Source { bus: bus.clone(), store: store.clone(), owner: owner.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeats(listener, heard, shutdown.clone()));
    tasks.spawn(answers(source, out.clone(), shutdown.clone()));
    tasks.spawn(dead_letters(bus.clone(), out, shutdown.clone()));
    Ok(Readers { answers: answers_in, heartbeats: heartbeats_in, tasks })
}

/// The error of a reader that ended while the service runs. A panic's words may quote a prompt:
/// they are not repeated here.
pub(crate) fn ended(how: Result<(), JoinError>) -> ServiceError {
    let panicked = how.is_err_and(|e| e.is_panic());
    ServiceError::Reader { how: if panicked { "panicked" } else { "ended by itself" } }
}

async fn heartbeats(mut listener: Listener, out: mpsc::Sender<HeartbeatMessage>, stop: Shutdown) {
    loop {
        let payload = tokio::select! { p = listener.next() => p, () = stop.cancelled() => None };
        let Some(payload) = payload else { break };
        match decode::<HeartbeatMessage>(&payload) {
            Ok(heartbeat) => match out.try_send(heartbeat) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => break,
            },
            Err(error) => tracing::warn!(%error, "a heartbeat that cannot be read"),
        }
    }
}

/// Where answers come from, and who may settle them.
struct Source {
    bus: Arc<dyn Bus>,
    store: Store,
    owner: Arc<Owner>,
}

async fn answers(source: Source, out: mpsc::Sender<Incoming>, stop: Shutdown) {
    while !stop.is_cancelled() {
        let incoming = match source.bus.pull(RESULTS, WAIT).await {
            Ok(None) => continue,
            Ok(Some(delivery)) => match taken(&source, delivery).await {
                Some(incoming) => incoming,
                None => continue,
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

/// What a delivery holds; none where it is given back, or nothing can be made of it.
async fn taken(source: &Source, delivery: Delivery) -> Option<Incoming> {
    match read(&source.store, &delivery).await {
        Ok(answer) => Some(Incoming::Answer(Box::new(answer), delivery)),
        Err(Unreadable::Later(reason)) => {
            let pause = pause(delivery.deliveries);
            tracing::warn!(reason, ?pause, "an answer cannot be read just now");
            said(delivery.nak(pause).await.map(|_| ()));
            None
        }
        Err(Unreadable::Never(reason)) => {
            tracing::warn!(message = delivery.message_id, reason, "an answer cannot be read");
            match parse_answer_message_id(&delivery.message_id) {
                Some((task, worker)) => Some(Incoming::Garbled(task, worker, delivery)),
                None => match source.owner.confirm().await {
                    Ok(()) => {
                        said(delivery.term(&reason).await);
                        None
                    }
                    Err(error @ ServiceError::Replaced { .. }) => Some(Incoming::Broken(error)),
                    // It comes again after its lease.
                    Err(_) => None,
                },
            }
        }
    }
}

fn said(done: Result<(), BusError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "an unreadable answer will come again");
    }
}

/// The store may be away for an hour without an answer running out of deliveries.
fn pause(deliveries: u32) -> Duration {
    let times = 1u32.checked_shl(deliveries.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE.saturating_mul(times).min(LONGEST_PAUSE)
}

/// Why an answer message was not taken.
enum Unreadable {
    /// It may be readable later: whatever ails the store, the answer is not to blame.
    Later(String),
    /// Never.
    Never(String),
}

/// What a store's error says of an answer: only bytes that are there and wrong are the answer's.
fn unreadable(error: &ArtifactError) -> Unreadable {
    match error {
        ArtifactError::Corrupt { .. }
        | ArtifactError::NotFound { .. }
        | ArtifactError::TooLarge { .. } => Unreadable::Never(error.to_string()),
        _ => Unreadable::Later(error.to_string()),
    }
}

async fn read(store: &Store, delivery: &Delivery) -> Result<Answer, Unreadable> {
    let message = decode(&delivery.payload).map_err(|e| Unreadable::Never(e.to_string()))?;
    let answer: Answer = match message {
        Content::Inline(answer) => answer,
        Content::Stored(blob) => {
            let bytes = store.get_blob(&blob, MAX_BLOB as u64, &silent).await;
            let bytes = bytes.map_err(|e| unreadable(&e))?;
            unpack_answer(&blob, &bytes).map_err(|e| Unreadable::Never(e.to_string()))?
        }
    };
    with_its_blobs(store, answer, delivery.deliveries).await
}

/// The answer, where the store has what it names. A worker that stores elsewhere has not answered:
/// its machine has failed, which is no fault of the task.
async fn with_its_blobs(store: &Store, answer: Answer, look: u32) -> Result<Answer, Unreadable> {
    for blob in answer.outcome.blobs() {
        match store.has_blob(&blob).await {
            Ok(true) => {}
            Ok(false) if look < LOOKS => {
                let reason = format!("its blob {} is not in the store", blob.digest);
                return Err(Unreadable::Later(reason));
            }
            Ok(false) => {
                let outcome = Outcome::Failed(FailureReason::StoreLacks.into());
                return Ok(Answer { outcome, skipped: Vec::new(), seams: 0, ..answer });
            }
            Err(error) => return Err(Unreadable::Later(error.to_string())),
        }
    }
    Ok(answer)
}

async fn dead_letters(bus: Arc<dyn Bus>, out: mpsc::Sender<Incoming>, stop: Shutdown) {
    while !stop.is_cancelled() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_outlives_an_hour_without_the_store() {
        let waited: Duration = (1..100).map(pause).sum();
        assert!(waited > Duration::from_secs(3600), "{waited:?}");
        assert_eq!(pause(1), PAUSE);
    }

    #[tokio::test]
    async fn a_reader_that_panics_or_ends_is_told_and_its_words_are_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("a secret prompt") });
        let error = ended(tasks.join_next().await.unwrap()).to_string();
        assert!(error.contains("panicked") && !error.contains("secret"), "{error}");
        tasks.spawn(async {});
        let error = ended(tasks.join_next().await.unwrap()).to_string();
        assert!(error.contains("ended by itself"), "{error}");
    }
}
