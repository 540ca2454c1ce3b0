//! A message in someone's hands: its lease, and the ways to be rid of it.
//!
//! The holder's own view of its lease stands here, once for all backends, because no backend can
//! tell a late holder from the present one.

use crate::BusError;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Whether the holder still has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a holder whose lease is lost should stop working"]
pub enum Lease {
    /// It has, for another lease from now.
    Held,
    /// The lease ran out before: someone else may hold it by now.
    Lost,
}

/// What a holder says of its message.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Ack,
    Progress,
    Nak(Duration),
    Term,
}

/// A backend's end of a delivery.
#[async_trait]
pub(crate) trait Holder: Send + Sync {
    async fn say(&self, verdict: Verdict) -> Result<(), BusError>;
}

/// A message delivered to one holder.
pub struct Delivery {
    /// What it says.
    pub payload: Bytes,
    /// The id it was published under.
    pub message_id: String,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
    lease: Duration,
    until: Mutex<Instant>,
    holder: Box<dyn Holder>,
}

impl Delivery {
    pub(crate) fn new(
        payload: Bytes,
        message_id: String,
        deliveries: u32,
        lease: Duration,
        holder: Box<dyn Holder>,
    ) -> Self {
        Self {
            payload,
            message_id,
            deliveries,
            lease,
            until: Mutex::new(Instant::now() + lease),
            holder,
        }
    }

    /// How long the holder has it without [`Delivery::progress`].
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether the lease still runs, by the holder's clock.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Done: removes the message. Say it after the answer is durable, late rather than not at all.
    ///
    /// # Errors
    /// Trouble with the broker; it may be said again.
    pub async fn ack(&self) -> Result<(), BusError> {
        self.holder.say(Verdict::Ack).await
    }

    /// The work moves: starts the lease anew. Say it because something was done, never from a bare
    /// timer.
    ///
    /// # Errors
    /// Trouble with the broker; the lease runs on from where it was.
    pub async fn progress(&self) -> Result<Lease, BusError> {
        if !self.is_held() {
            return Ok(Lease::Lost);
        }
        let from = Instant::now();
        self.holder.say(Verdict::Progress).await?;
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = from + self.lease;
        Ok(Lease::Held)
    }

    /// Gives the message back, to be delivered again after `delay`. The delivery counts.
    ///
    /// # Errors
    /// Trouble with the broker; the lease will run out instead.
    pub async fn nak(&self, delay: Duration) -> Result<Lease, BusError> {
        if !self.is_held() {
            return Ok(Lease::Lost);
        }
        self.holder.say(Verdict::Nak(delay)).await.map(|()| Lease::Held)
    }

    /// Never again: removes a message that nobody could ever work on, saying why in the log. It is
    /// not a dead letter: whoever published it learns of it from an answer.
    ///
    /// # Errors
    /// Trouble with the broker; it may be said again.
    pub async fn term(&self, reason: &str) -> Result<(), BusError> {
        tracing::warn!(message = self.message_id, reason, "message given up");
        self.holder.say(Verdict::Term).await
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The payload may hold a prompt: it is never shown.
        f.debug_struct("Delivery")
            .field("message_id", &self.message_id)
            .field("deliveries", &self.deliveries)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A message that ran out of deliveries.
pub struct DeadLetter {
    /// The queue it was in.
    pub queue: String,
    /// The id it was published under.
    pub message_id: String,
    /// What it says.
    pub payload: Bytes,
    /// How often it was delivered.
    pub deliveries: u32,
    pub(crate) holder: Box<dyn Holder>,
}

impl DeadLetter {
    /// Seen to: removes it from its queue for good.
    ///
    /// # Errors
    /// Trouble with the broker; it will come again.
    pub async fn settle(&self) -> Result<(), BusError> {
        self.holder.say(Verdict::Ack).await
    }
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("queue", &self.queue)
            .field("message_id", &self.message_id)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}
