//! A queue on the broker: a work-queue stream with one durable consumer, and the messages pulled
//! through it.

use super::ANSWER_WITHIN;
use super::errors::{Meaning, meaning};
use super::link::Link;
use crate::delivery::{Holder, Verdict};
use crate::{BusError, Delivery, Published, QueueSpec};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{self, AckPolicy, Consumer, pull};
use async_nats::jetstream::message::{AckKind, Acker};
use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, stream};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;
use tokio::time::Instant;

/// How long the server may take to confirm an ack before the message is removed in another way.
const ACK_WITHIN: Duration = Duration::from_secs(2);
/// How much later than asked for the server's "nothing came" may arrive.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn ensure(link: &Link, spec: &QueueSpec) -> Result<(), BusError> {
    let name = link.names.stream(&spec.name);
    let config = stream::Config {
        name: name.clone(),
        subjects: vec![link.names.queue_filter(&spec.name)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages: i64::try_from(spec.max_messages).unwrap_or(i64::MAX),
        duplicate_window: spec.dedup_window,
        ..Default::default()
    };
    link.jetstream
        .create_or_update_stream(config)
        .await
        .map_err(|e| link.explain("create stream", &e))?;
    let consumer = pull::Config {
        durable_name: Some(link.names.consumer()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: spec.lease,
        max_deliver: i64::from(spec.max_deliveries),
        max_ack_pending: -1,
        ..Default::default()
    };
    let made = link.jetstream.create_consumer_on_stream(consumer, name).await;
    made.map(drop).map_err(|e| link.explain("create consumer", &e))
}

pub(super) async fn publish(
    link: &Link,
    queue: &str,
    id: &str,
    payload: Bytes,
) -> Result<Published, BusError> {
    let mut headers = HeaderMap::new();
    headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
    let sent = link
        .jetstream
        .publish_with_headers(link.names.message_subject(queue, id), headers, payload)
        .await;
    let answered = match sent {
        Ok(answer) => answer.await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(ack) if ack.duplicate => Ok(Published::Duplicate),
        Ok(_) => Ok(Published::Stored),
        // The server has one code for a full stream and for a disk that fails.
        Err(error) if meaning(&error) == Meaning::NoRoom && is_full(link, queue).await? => {
            Err(BusError::Full { queue: queue.to_owned() })
        }
        Err(error) => Err(link.explain_for(queue, "publish", &error)),
    }
}

async fn is_full(link: &Link, queue: &str) -> Result<bool, BusError> {
    let info = info(link, queue).await?;
    Ok(u64::try_from(info.config.max_messages).is_ok_and(|most| info.state.messages >= most))
}

pub(super) async fn info(link: &Link, queue: &str) -> Result<stream::Info, BusError> {
    let stream = link.jetstream.get_stream(link.names.stream(queue)).await;
    stream.map(|s| s.cached_info().clone()).map_err(|e| link.explain_for(queue, "stream info", &e))
}

pub(super) async fn withdraw(link: &Link, queue: &str, id: &str) -> Result<bool, BusError> {
    let purged =
        link.stream(queue).await?.purge().filter(link.names.message_subject(queue, id)).await;
    purged.map(|p| p.purged > 0).map_err(|e| link.explain_for(queue, "withdraw", &e))
}

/// The queues of this colony among all streams of the account.
pub(super) async fn names(link: &Link) -> Result<Vec<String>, BusError> {
    let streams: Vec<String> = link
        .jetstream
        .stream_names()
        .try_collect()
        .await
        .map_err(|e| link.explain("list streams", &e))?;
    let ours = streams.iter().filter(|stream| **stream != link.names.dead_stream());
    let mut queues: Vec<String> = ours.filter_map(|s| link.names.queue_of_stream(s)).collect();
    queues.sort_unstable();
    Ok(queues)
}

pub(super) async fn remove(link: &Link, queue: &str) -> Result<bool, BusError> {
    match link.jetstream.delete_stream(link.names.stream(queue)).await {
        Ok(_) => Ok(true),
        Err(error) if meaning(&error) == Meaning::Missing => Ok(false),
        Err(error) => Err(link.explain("remove queue", &error)),
    }
}

pub(super) async fn consumer(link: &Link, queue: &str) -> Result<Consumer<pull::Config>, BusError> {
    let found = find_consumer(link, queue).await?;
    // Asked in this order, a sound queue's messages cannot seem older than what its consumer has
    // done with.
    let stream = info(link, queue).await?;
    if !has_lost_count(found.cached_info(), &stream.state) {
        return Ok(found);
    }
    tracing::warn!(
        queue,
        "the server lost count of a queue in a crash: what it holds is delivered anew"
    );
    renew(link, queue, &found.cached_info().config).await?;
    find_consumer(link, queue).await
}

async fn find_consumer(link: &Link, queue: &str) -> Result<Consumer<pull::Config>, BusError> {
    let found = link
        .jetstream
        .get_consumer_from_stream(link.names.consumer(), link.names.stream(queue))
        .await;
    found.map_err(|e| link.explain_for(queue, "find consumer", &e))
}

/// A server that is killed (seen with 2.10.27) may forget how far an empty stream had counted,
/// while the consumer still knows: it would pass over every new message until the stream has
/// counted as far again.
fn has_lost_count(consumer: &consumer::Info, stream: &stream::State) -> bool {
    let behind = stream.last_sequence < consumer.delivered.stream_sequence;
    // What was done with is gone, but for dead letters; those get their deliveries once more.
    let passed_over =
        stream.messages > 0 && stream.first_sequence <= consumer.ack_floor.stream_sequence;
    behind || passed_over
}

/// Makes the consumer again, from the first message on. Whoever holds one keeps it until its lease
/// ends.
async fn renew(link: &Link, queue: &str, config: &consumer::Config) -> Result<(), BusError> {
    let stream = link.names.stream(queue);
    match link.jetstream.delete_consumer_from_stream(link.names.consumer(), &stream).await {
        Ok(_) => {}
        Err(error) if meaning(&error) == Meaning::Missing => {}
        Err(error) => return Err(link.explain_for(queue, "delete consumer", &error)),
    }
    let make = || async {
        let made = link.jetstream.create_consumer_on_stream(config.clone(), &stream).await;
        made.map(drop).map_err(|e| link.explain_for(queue, "create consumer", &e))
    };
    link.retry(make).await
}

/// What one pull came to.
pub(super) enum Pulled {
    Message(Box<jetstream::Message>),
    Nothing,
    /// The server ended the pull: the consumer may be gone.
    Ended,
}

/// Asks for one message. Without idle heartbeats: the pull is short, and its end is bounded here.
pub(super) async fn pull_one(consumer: &Consumer<pull::Config>, wait: Duration) -> Pulled {
    let asked = async {
        let mut batch = if wait.is_zero() {
            consumer.fetch().max_messages(1).messages().await.ok()?
        } else {
            consumer.batch().max_messages(1).expires(wait).messages().await.ok()?
        };
        Some(batch.next().await)
    };
    let bound = if wait.is_zero() { ANSWER_WITHIN } else { wait + GRACE };
    match tokio::time::timeout(bound, asked).await {
        Ok(Some(Some(Ok(message)))) => Pulled::Message(Box::new(message)),
        Ok(Some(None)) | Err(_) => Pulled::Nothing,
        Ok(Some(Some(Err(error)))) => {
            tracing::debug!(%error, "pull ended by the server");
            Pulled::Ended
        }
        Ok(None) => Pulled::Ended,
    }
}

/// Makes a delivery of a pulled message; `None` for one whose origin the server did not state.
pub(super) fn delivery(
    link: &Link,
    queue: &str,
    lease: Duration,
    message: jetstream::Message,
) -> Option<Delivery> {
    let prefix = link.names.message_subject(queue, "");
    let id = message.subject.strip_prefix(prefix.as_str())?.to_owned();
    let deliveries = u32::try_from(message.info().ok()?.delivered).ok()?;
    let (message, acker) = message.split();
    let held = Held { link: link.clone(), acker };
    let holder = HeldMessage { held, queue: queue.to_owned(), id: id.clone() };
    Some(Delivery::new(message.payload, id, deliveries, lease, Box::new(holder)))
}

/// The way to speak of one delivery.
pub(super) struct Held {
    pub link: Link,
    pub acker: Acker,
}

impl Held {
    pub async fn confirmed(&self, kind: AckKind) -> Result<(), BusError> {
        match tokio::time::timeout(ACK_WITHIN, self.acker.double_ack_with(kind)).await {
            Ok(Ok(())) => Ok(()),
            // The only failures are a dead connection and silence.
            Ok(Err(_)) | Err(_) => Err(self.link.no_answer("ack")),
        }
    }
}

/// One delivery's end on the broker.
struct HeldMessage {
    held: Held,
    queue: String,
    id: String,
}

impl HeldMessage {
    /// Settles. A server that was killed may have forgotten that it delivered the message; it then
    /// passes over the ack in silence and would deliver again, so the message is taken out by its
    /// name.
    async fn settle(&self, kind: AckKind) -> Result<(), BusError> {
        match self.held.confirmed(kind).await {
            Err(BusError::TimedOut { .. }) => {
                tracing::debug!(
                    message = self.id,
                    "ack not confirmed: removing the message instead"
                );
                match withdraw(&self.held.link, &self.queue, &self.id).await {
                    Ok(_) | Err(BusError::NoQueue { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            other => other,
        }
    }

    /// Says what must not be said late: it would touch another holder's lease.
    async fn say_now(&self, kind: AckKind) -> Result<(), BusError> {
        self.held.link.connected_by(Instant::now()).await?;
        self.held.confirmed(kind).await
    }
}

#[async_trait]
impl Holder for HeldMessage {
    async fn say(&self, verdict: Verdict) -> Result<(), BusError> {
        match verdict {
            Verdict::Ack => self.held.link.retry(|| self.settle(AckKind::Ack)).await,
            Verdict::Term => self.held.link.retry(|| self.settle(AckKind::Term)).await,
            Verdict::Progress => self.say_now(AckKind::Progress).await,
            Verdict::Nak(delay) => self.say_now(AckKind::Nak(Some(delay))).await,
        }
    }
}
