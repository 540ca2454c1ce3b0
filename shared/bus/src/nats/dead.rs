//! Dead letters: the server says once, to whoever listens, that a message ran out of deliveries. A
//! stream of its own keeps those advisories, so that none is lost while the coordinator is away;
//! the message itself stays in its queue.

use super::errors::{Meaning, meaning};
use super::link::Link;
use super::queue::{Held, Pulled, pull_one};
use crate::delivery::{Holder, Verdict};
use crate::embedded::DEAD_LETTER_LEASE;
use crate::{BusError, DeadLetter};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::message::{AckKind, Acker};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// Advisories kept at most; the oldest go first.
const MOST_NOTICES: i64 = 100_000;

/// What the server says of it (`io.nats.jetstream.advisory.v1.max_deliver`).
#[derive(Deserialize)]
struct Advisory {
    stream: String,
    stream_seq: u64,
    deliveries: u32,
}

/// Makes the stream of advisories.
pub(super) async fn ensure(link: &Link) -> Result<Consumer<pull::Config>, BusError> {
    let name = link.names.dead_stream();
    let config = stream::Config {
        name: name.clone(),
        subjects: vec![link.names.dead_filter()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_messages: MOST_NOTICES,
        ..Default::default()
    };
    link.jetstream
        .create_or_update_stream(config)
        .await
        .map_err(|e| link.explain("create stream", &e))?;
    let consumer = pull::Config {
        // Not the queues' consumer's name: advisories about this one would be advisories too.
        durable_name: Some(name.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: DEAD_LETTER_LEASE,
        max_ack_pending: -1,
        ..Default::default()
    };
    let made = link.jetstream.create_consumer_on_stream(consumer, name).await;
    made.map_err(|e| link.explain("create consumer", &e))
}

/// Takes the next advisory whose message is still there.
pub(super) async fn next(
    link: &Link,
    consumer: &Consumer<pull::Config>,
    wait: Duration,
) -> Result<Option<DeadLetter>, BusError> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Pulled::Message(message) = pull_one(consumer, left).await else { return Ok(None) };
        let (message, acker) = message.split();
        match letter(link, &message.payload).await? {
            Some(found) => return Ok(Some(found.with(link, acker))),
            // Settled, withdrawn or acked meanwhile.
            None => Held { link: link.clone(), acker }.confirmed(AckKind::Ack).await?,
        }
    }
}

struct Found {
    queue: String,
    id: String,
    payload: Bytes,
    advisory: Advisory,
}

async fn letter(link: &Link, advisory: &[u8]) -> Result<Option<Found>, BusError> {
    let Ok(advisory) = serde_json::from_slice::<Advisory>(advisory) else { return Ok(None) };
    let Some(queue) = link.names.queue_of_stream(&advisory.stream) else { return Ok(None) };
    match link.stream(&queue).await?.get_raw_message(advisory.stream_seq).await {
        Ok(raw) => {
            let prefix = link.names.message_subject(&queue, "");
            let id = raw.subject.strip_prefix(prefix.as_str()).map(str::to_owned);
            Ok(id.map(|id| Found { queue, id, payload: raw.payload, advisory }))
        }
        Err(error) if meaning(&error) == Meaning::Missing => Ok(None),
        Err(error) => Err(link.explain("read dead letter", &error)),
    }
}

impl Found {
    fn with(self, link: &Link, acker: Acker) -> DeadLetter {
        let held = Held { link: link.clone(), acker };
        DeadLetter {
            holder: Box::new(HeldDead {
                held,
                queue: self.queue.clone(),
                sequence: self.advisory.stream_seq,
            }),
            queue: self.queue,
            message_id: self.id,
            payload: self.payload,
            deliveries: self.advisory.deliveries,
        }
    }
}

/// Settles by deleting the message first and the advisory then: stopped in between, the advisory
/// leads to nothing.
struct HeldDead {
    held: Held,
    queue: String,
    sequence: u64,
}

impl HeldDead {
    async fn delete(&self) -> Result<(), BusError> {
        let link = &self.held.link;
        match link.stream(&self.queue).await?.delete_message(self.sequence).await {
            Ok(_) => Ok(()),
            Err(error) if meaning(&error) == Meaning::Missing => Ok(()),
            Err(error) => Err(link.explain("delete dead letter", &error)),
        }
    }
}

#[async_trait]
impl Holder for HeldDead {
    /// A dead letter is only ever settled.
    async fn say(&self, _: Verdict) -> Result<(), BusError> {
        self.held.link.retry(|| self.delete()).await?;
        // A advisory that outlives its message leads to nothing and is dropped when it comes again.
        let _ = self.held.confirmed(AckKind::Ack).await;
        Ok(())
    }
}
