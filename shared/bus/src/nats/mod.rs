//! The bus over a NATS server with JetStream.
//!
//! Each queue is a work-queue stream of its own with one durable consumer: backpressure and the
//! dedup window then act per queue (on a shared stream, a task issued again to another worker would
//! be a duplicate of itself). Each message has a subject of its own, so that it can be withdrawn by
//! name.
//!
//! What is durable is as durable as the server makes it: run it with `sync_interval: always`, as
//! [`crate::server`] does. A program that also links object_store's AWS support must install
//! rustls' *ring* provider before it connects to a `tls://` server.

mod connect;
mod dead;
mod errors;
mod keys;
mod link;
mod queue;
mod watch;

pub use connect::NatsOptions;

use crate::api::{MAX_PAYLOAD, check_size};
use crate::{
    Bus, BusError, DeadLetter, Delivery, Listener, Published, QueueSpec, Revision, Swapped,
};
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::kv;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use link::Link;
use queue::Pulled;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uspx_wire::subjects::{check_path, check_token};

/// How long a request may go unanswered.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a queue's consumer, and with it its lease, is taken as known.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// What headers and subject of a message may add to its payload.
const OVERHEAD: usize = 1024;

/// A bus over one NATS connection, which is kept up for as long as it lives.
pub struct NatsBus {
    link: Link,
    consumers: Mutex<HashMap<String, Known>>,
    dead: OnceCell<Consumer<pull::Config>>,
    state: OnceCell<kv::Store>,
}

/// A queue's consumer, as it was found over one connection.
struct Known {
    since: Instant,
    connects: u64,
    consumer: Consumer<pull::Config>,
}

impl NatsBus {
    /// Connects.
    ///
    /// # Errors
    /// [`BusError::Unreachable`], [`BusError::ServerTooOld`], [`BusError::NoJetStream`].
    pub async fn connect(options: &NatsOptions) -> Result<Self, BusError> {
        let link = Link::open(options).await?;
        Ok(Self {
            link,
            consumers: Mutex::default(),
            dead: OnceCell::new(),
            state: OnceCell::new(),
        })
    }

    fn check_size(&self, payload: &Bytes) -> Result<(), BusError> {
        check_size(
            payload,
            MAX_PAYLOAD.min(self.link.client.max_payload().saturating_sub(OVERHEAD)),
        )
    }

    async fn consumer(&self, queue: &str) -> Result<Consumer<pull::Config>, BusError> {
        if let Some(known) = self.known(queue) {
            return Ok(known);
        }
        let (since, connects) = (Instant::now(), self.connects());
        let consumer = queue::consumer(&self.link, queue).await?;
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.insert(queue.to_owned(), Known { since, connects, consumer: consumer.clone() });
        Ok(consumer)
    }

    /// After a new connection the server may be another one, or back from a crash: nothing is taken
    /// as known then.
    fn known(&self, queue: &str) -> Option<Consumer<pull::Config>> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |k: &&Known| k.since.elapsed() < KNOWN_FOR && k.connects == self.connects();
        consumers.get(queue).filter(fresh).map(|k| k.consumer.clone())
    }

    fn connects(&self) -> u64 {
        *self.link.connects.borrow()
    }

    fn forget(&self, queue: &str) {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    async fn dead(&self) -> Result<&Consumer<pull::Config>, BusError> {
        self.dead.get_or_try_init(|| dead::ensure(&self.link)).await
    }

    async fn state(&self) -> Result<&kv::Store, BusError> {
        self.state.get_or_try_init(|| keys::open(&self.link)).await
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn ensure(&self, spec: &QueueSpec) -> Result<(), BusError> {
        spec.check()?;
        self.dead().await?;
        self.forget(&spec.name);
        self.link.retry(|| queue::ensure(&self.link, spec)).await
    }

    async fn publish(
        &self,
        queue: &str,
        message_id: &str,
        payload: Bytes,
    ) -> Result<Published, BusError> {
        check_path(queue)?;
        check_token(message_id)?;
        self.check_size(&payload)?;
        self.link.retry(|| queue::publish(&self.link, queue, message_id, payload.clone())).await
    }

    async fn pull(&self, queue: &str, wait: Duration) -> Result<Option<Delivery>, BusError> {
        check_path(queue)?;
        let deadline = Instant::now() + wait;
        self.link.connected_by(deadline).await?;
        let consumer = self.consumer(queue).await?;
        let lease = consumer.cached_info().config.ack_wait;
        match queue::pull_one(&consumer, deadline.saturating_duration_since(Instant::now())).await {
            Pulled::Message(message) => Ok(queue::delivery(&self.link, queue, lease, *message)),
            Pulled::Nothing => Ok(None),
            Pulled::Ended => {
                // Gone, or the server is going down: says so if the consumer cannot be found
                // either.
                self.forget(queue);
                self.consumer(queue).await.map(|_| None)
            }
        }
    }

    async fn dead_letters(&self, wait: Duration) -> Result<Option<DeadLetter>, BusError> {
        self.link.connected_by(Instant::now() + wait).await?;
        dead::next(&self.link, self.dead().await?, wait).await
    }

    async fn withdraw(&self, queue: &str, message_id: &str) -> Result<bool, BusError> {
        check_path(queue)?;
        check_token(message_id)?;
        queue::withdraw(&self.link, queue, message_id).await
    }

    async fn depth(&self, queue: &str) -> Result<u64, BusError> {
        check_path(queue)?;
        Ok(queue::info(&self.link, queue).await?.state.messages)
    }

    async fn queues(&self) -> Result<Vec<String>, BusError> {
        queue::names(&self.link).await
    }

    async fn remove(&self, queue: &str) -> Result<bool, BusError> {
        check_path(queue)?;
        self.forget(queue);
        queue::remove(&self.link, queue).await
    }

    async fn broadcast(&self, topic: &str, payload: Bytes) -> Result<(), BusError> {
        check_path(topic)?;
        self.check_size(&payload)?;
        self.link
            .client
            .publish(self.link.names.topic(topic), payload)
            .await
            .map_err(|_| BusError::Closed)
    }

    async fn listen(&self, topic: &str) -> Result<Listener, BusError> {
        check_path(topic)?;
        let subscribed = self.link.client.subscribe(self.link.names.topic(topic)).await;
        let subscriber = subscribed.map_err(|_| BusError::Closed)?;
        // So that what is broadcast from now on, over any connection, is heard.
        self.link.ping().await?;
        let heard = subscriber.map(|message| message.payload);
        Ok(Listener::new(heard.take_until(self.link.clone().closed()).boxed()))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), BusError> {
        check_path(key)?;
        self.check_size(&value)?;
        keys::put(&self.link, self.state().await?, key, value).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, BusError> {
        Ok(self.get_revision(key).await?.map(|(value, _)| value))
    }

    async fn get_revision(&self, key: &str) -> Result<Option<(Bytes, Revision)>, BusError> {
        check_path(key)?;
        keys::get(&self.link, self.state().await?, key).await
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Swapped, BusError> {
        check_path(key)?;
        self.check_size(&value)?;
        keys::swap(&self.link, self.state().await?, key, expected, value).await
    }

    async fn watch(&self, key: &str) -> Result<Listener, BusError> {
        check_path(key)?;
        watch::watch(&self.link, self.state().await?, key).await
    }

    fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.link.ping().await
    }
}
