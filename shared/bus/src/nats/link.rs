//! The connection as the rest of the backend uses it: names, retries, and errors that say what to
//! do.

use super::connect::NatsOptions;
use super::errors::{Kind, Meaning, meaning};
use super::{ANSWER_WITHIN, connect};
use crate::BusError;
use async_nats::connection::State;
use async_nats::error::Error;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, jetstream};
use backon::{ExponentialBuilder, Retryable};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uspx_wire::subjects::Names;

/// A connection with JetStream.
#[derive(Clone)]
pub(super) struct Link {
    pub client: Client,
    pub jetstream: Context,
    pub names: Names,
    /// Grows with every connection made.
    pub connects: watch::Receiver<u64>,
    url: String,
    retry_within: Duration,
}

impl Link {
    pub async fn open(options: &NatsOptions) -> Result<Self, BusError> {
        let (client, connects) = connect::connect(options).await?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            .ack_timeout(ANSWER_WITHIN)
            .build(client.clone());
        let link = Self {
            client,
            jetstream,
            names: options.names.clone(),
            connects,
            url: options.shown_url(),
            retry_within: options.retry_within,
        };
        link.ping().await?;
        Ok(link)
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected && !self.is_closed()
    }

    /// Whether the library's own tasks have ended, so that nothing comes any more: they hold the
    /// other end of `connects`. Whatever waits says so then rather than waiting for ever.
    pub fn is_closed(&self) -> bool {
        self.connects.has_changed().is_err()
    }

    /// Returns once they have.
    pub async fn closed(mut self) {
        while self.connects.changed().await.is_ok() {}
    }

    /// Waits until there is a connection, but not past `deadline`.
    pub async fn connected_by(&self, deadline: Instant) -> Result<(), BusError> {
        if self.is_closed() {
            return Err(BusError::Closed);
        }
        while !self.is_connected() {
            if Instant::now() >= deadline {
                return Err(BusError::Disconnected { url: self.url.clone() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub async fn ping(&self) -> Result<(), BusError> {
        let answer = self.jetstream.query_account().await;
        answer.map(drop).map_err(|error| match self.explain("account info", &error) {
            BusError::Refused { reason, .. } => {
                BusError::NoJetStream { url: self.url.clone(), reason }
            }
            other => other,
        })
    }

    /// An error of async-nats in our words.
    pub fn explain<K: Kind>(&self, action: &'static str, error: &Error<K>) -> BusError {
        match meaning(error) {
            Meaning::NoAnswer => self.no_answer(action),
            Meaning::NoRoom => BusError::NoRoom { action, reason: error.to_string() },
            Meaning::Missing | Meaning::Raced | Meaning::Refused => {
                BusError::Refused { action, reason: error.to_string() }
            }
        }
    }

    /// The same, where a missing stream or consumer means that there is no such queue.
    pub fn explain_for<K: Kind>(
        &self,
        queue: &str,
        action: &'static str,
        error: &Error<K>,
    ) -> BusError {
        match meaning(error) {
            Meaning::Missing => BusError::NoQueue { queue: queue.to_owned() },
            _ => self.explain(action, error),
        }
    }

    pub fn no_answer(&self, action: &'static str) -> BusError {
        if self.is_closed() {
            BusError::Closed
        } else if self.is_connected() {
            BusError::TimedOut { action, waited: ANSWER_WITHIN }
        } else {
            BusError::Disconnected { url: self.url.clone() }
        }
    }

    /// A handle on a queue's stream; asks the server nothing.
    pub async fn stream(&self, queue: &str) -> Result<jetstream::stream::Stream<()>, BusError> {
        let name = self.names.stream(queue);
        self.jetstream
            .get_stream_no_info(name)
            .await
            .map_err(|e| self.explain_for(queue, "open stream", &e))
    }

    /// Tries again while the connection is in trouble, for as long as the options allow.
    pub async fn retry<T, F: Future<Output = Result<T, BusError>>>(
        &self,
        mut act: impl FnMut() -> F,
    ) -> Result<T, BusError> {
        let deadline = Instant::now() + self.retry_within;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .without_max_times();
        let guarded = || {
            let attempt = act();
            async move {
                self.connected_by(deadline).await?;
                attempt.await
            }
        };
        guarded
            .retry(pauses)
            .when(|e| {
                matches!(e, BusError::TimedOut { .. } | BusError::Disconnected { .. })
                    && Instant::now() < deadline
            })
            .await
    }
}
