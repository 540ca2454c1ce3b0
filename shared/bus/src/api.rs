//! The trait that coordinator and workers code against.

use crate::{BusError, DeadLetter, Delivery};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::time::Duration;

/// The largest payload that any backend takes, in bytes. (Large content is a blob; this bounds what
/// a bug can send.)
pub const MAX_PAYLOAD: usize = 8 << 20;

/// A work queue and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name, from `uspx_wire::subjects`.
    pub name: String,
    /// How long a holder has a message before it is delivered again.
    pub lease: Duration,
    /// How often a message is delivered before it is a dead letter; at least 1.
    pub max_deliveries: u32,
    /// How many messages it holds, leased and dead ones included, before it refuses more; at least
    /// 1.
    pub max_messages: u64,
    /// How long message ids are remembered, at least 100 ms.
    pub dedup_window: Duration,
}

impl QueueSpec {
    /// A queue with the usual rules: lease 60 s, 3 deliveries, 10,000 messages, ids remembered for
    /// 10 minutes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease: Duration::from_secs(60),
            max_deliveries: 3,
            max_messages: 10_000,
            dedup_window: Duration::from_secs(600),
        }
    }

    pub(crate) fn check(&self) -> Result<(), BusError> {
        uspx_wire::subjects::check_path(&self.name)?;
        let bad = |why| Err(BusError::BadSpec { queue: self.name.clone(), why });
        match self {
            Self { max_deliveries: 0, .. } => bad("max_deliveries must be at least 1"),
            Self { max_messages: 0, .. } => bad("max_messages must be at least 1"),
            Self { lease, .. } if lease.is_zero() => bad("the lease must be longer than nothing"),
            Self { dedup_window, .. } if *dedup_window < Duration::from_millis(100) => {
                bad("dedup_window must be at least 100 ms")
            }
            _ => Ok(()),
        }
    }
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is in the queue.
    Stored,
    /// Its id was seen within the dedup window, perhaps from an earlier try of the same call whose
    /// answer was lost.
    Duplicate,
}

/// A version of a key's value, as [`Bus::get_revision`] found it or [`Bus::swap`] made it. Every
/// write of a key gives it another one, that of the same value again too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(pub(crate) u64);

/// What became of a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a lost race is no error"]
pub enum Swapped {
    /// The value is stored, under this revision.
    Done(Revision),
    /// The key was not at the revision that was expected: nothing is changed.
    Lost,
}

/// A stream of payloads: what is broadcast on a topic, or the values of a key as they change.
pub struct Listener(BoxStream<'static, Bytes>);

impl Listener {
    pub(crate) fn new(stream: BoxStream<'static, Bytes>) -> Self {
        Self(stream)
    }

    /// The next payload; `None` when the bus is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.next().await
    }
}

/// A bus. Object safe: hold it as `Arc<dyn Bus>`. The contract stands in the crate's documentation.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Makes the queue, or changes its rules to these. Idempotent.
    ///
    /// # Errors
    /// [`BusError::BadSpec`], [`BusError::Name`], or trouble with the broker.
    async fn ensure(&self, queue: &QueueSpec) -> Result<(), BusError>;

    /// Puts a message into a queue; durable when `Ok`. Tries again over connection trouble, with
    /// the same id.
    ///
    /// # Errors
    /// [`BusError::Full`], [`BusError::NoQueue`], [`BusError::TooLarge`], [`BusError::Name`], or
    /// trouble with the broker.
    async fn publish(
        &self,
        queue: &str,
        message_id: &str,
        payload: Bytes,
    ) -> Result<Published, BusError>;

    /// Takes the next message, waiting for one at most `wait`; `None` when none came.
    ///
    /// Dropping the future early may cost one delivery of a message that was already on its way: it
    /// comes again after its lease. Wait in short pulls rather than cancelling long ones.
    ///
    /// # Errors
    /// [`BusError::NoQueue`] (retryable: the coordinator makes a worker's queue on its first
    /// heartbeat), or trouble with the broker.
    async fn pull(&self, queue: &str, wait: Duration) -> Result<Option<Delivery>, BusError>;

    /// Takes the next message that ran out of deliveries, of any queue. It comes again until it is
    /// settled.
    ///
    /// # Errors
    /// Trouble with the broker.
    async fn dead_letters(&self, wait: Duration) -> Result<Option<DeadLetter>, BusError>;

    /// Takes a message back out of a queue, leased or not. `false` where it was not there (any
    /// more). A holder that is at work on it is not interrupted; its ack will be `Ok` and change
    /// nothing.
    ///
    /// # Errors
    /// [`BusError::NoQueue`], or trouble with the broker.
    async fn withdraw(&self, queue: &str, message_id: &str) -> Result<bool, BusError>;

    /// How many messages the queue holds: waiting, leased and dead.
    ///
    /// # Errors
    /// [`BusError::NoQueue`], or trouble with the broker.
    async fn depth(&self, queue: &str) -> Result<u64, BusError>;

    /// The names of all queues of this colony, in order.
    ///
    /// # Errors
    /// Trouble with the broker.
    async fn queues(&self) -> Result<Vec<String>, BusError>;

    /// Deletes a queue and all in it, leased messages and dead letters too. `false` where there was
    /// none. Whoever holds one of its messages is not interrupted; what it says of it is `Ok`. (On
    /// NATS a holder that outlives a removal can settle the message in the same place of a new
    /// queue of that name: remove the queues of those who are gone.)
    ///
    /// # Errors
    /// Trouble with the broker.
    async fn remove(&self, queue: &str) -> Result<bool, BusError>;

    /// Tells whoever listens just now. Not stored, not confirmed: for what is said again soon
    /// anyway.
    ///
    /// # Errors
    /// [`BusError::TooLarge`], [`BusError::Name`], or the connection is closed for good.
    async fn broadcast(&self, topic: &str, payload: Bytes) -> Result<(), BusError>;

    /// Listens to a topic from now on. A listener that falls far behind misses some.
    ///
    /// # Errors
    /// [`BusError::Name`], or trouble with the broker.
    async fn listen(&self, topic: &str) -> Result<Listener, BusError>;

    /// Stores the value of a key.
    ///
    /// # Errors
    /// [`BusError::TooLarge`], [`BusError::Name`], or trouble with the broker.
    async fn put(&self, key: &str, value: Bytes) -> Result<(), BusError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`BusError::Name`], or trouble with the broker.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BusError>;

    /// The value of a key, and the revision to give to [`Bus::swap`].
    ///
    /// # Errors
    /// [`BusError::Name`], or trouble with the broker.
    async fn get_revision(&self, key: &str) -> Result<Option<(Bytes, Revision)>, BusError>;

    /// Stores the value of a key only where the key still is at `expected`; `None`: only where it
    /// has no value. Of many who expect the same, one wins. Tries again over connection trouble; an
    /// answer that was lost is made up for by reading back, which takes the same bytes for our own:
    /// a value for which others race names its writer.
    ///
    /// # Errors
    /// [`BusError::TooLarge`], [`BusError::Name`], or trouble with the broker; after
    /// [`BusError::TimedOut`] and [`BusError::Disconnected`] it is not known whether the value is
    /// stored.
    async fn swap(
        &self,
        key: &str,
        expected: Option<Revision>,
        value: Bytes,
    ) -> Result<Swapped, BusError>;

    /// The key's value (if it has one), and then every later one; values that follow fast may be
    /// passed over.
    ///
    /// # Errors
    /// [`BusError::Name`], or trouble with the broker.
    async fn watch(&self, key: &str) -> Result<Listener, BusError>;

    /// Whether the backend can be reached just now, as far as is known without asking.
    fn is_connected(&self) -> bool;

    /// Asks the backend for a sign of life.
    ///
    /// # Errors
    /// Why there is none.
    async fn ping(&self) -> Result<(), BusError>;
}

/// Refuses a payload that no backend would take.
pub(crate) fn check_size(payload: &Bytes, limit: usize) -> Result<(), BusError> {
    if payload.len() > limit {
        Err(BusError::TooLarge { bytes: payload.len(), limit })
    } else {
        Ok(())
    }
}
