//! What can go wrong on a bus, and what to do about it.

use std::time::Duration;
use uspx_wire::subjects::NameError;

/// Why a call on a bus failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// The queue holds as many messages as it may. Wait for workers to take some.
    #[error("queue `{queue}` is full: wait until workers have taken some of it")]
    Full {
        /// Which queue.
        queue: String,
    },
    /// There is no such queue (yet).
    #[error(
        "there is no queue `{queue}`: the coordinator makes it when it first hears of the worker; is it running?"
    )]
    NoQueue {
        /// Which queue.
        queue: String,
    },
    /// A queue's rules make no sense.
    #[error("queue `{queue}` cannot be made: {why}")]
    BadSpec {
        /// Which queue.
        queue: String,
        /// What is wrong with them.
        why: &'static str,
    },
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The payload is too large for a message.
    #[error(
        "a message of {bytes} bytes is more than the {limit} that fit: store it as a blob and send its reference"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No connection could be made.
    #[error(
        "cannot reach a NATS server at {url} ({reason}): is it running there, and do address and credentials fit?"
    )]
    Unreachable {
        /// Where it was looked for, without credentials.
        url: String,
        /// What the last try said.
        reason: String,
    },
    /// The connection was lost and has not come back (it is being tried again all the time).
    #[error("the connection to the NATS server at {url} is down; it is being tried again")]
    Disconnected {
        /// Where the server was.
        url: String,
    },
    /// The server is older than what its guarantees are needed for.
    #[error(
        "the NATS server at {at} is version {found}, and {needed} or newer is needed: upgrade it"
    )]
    ServerTooOld {
        /// Its address, or the program's path.
        at: String,
        /// What it says it is.
        found: String,
        /// The oldest that will do.
        needed: String,
    },
    /// The server runs without JetStream, or the account may not use it.
    #[error(
        "the NATS server at {url} has no JetStream for this account: start it with `-js`, or allow the account ({reason})"
    )]
    NoJetStream {
        /// Where.
        url: String,
        /// What it said.
        reason: String,
    },
    /// The backend did not answer in time.
    #[error(
        "no answer to `{action}` within {waited:?}: the server may be overloaded, or the account may not do this"
    )]
    TimedOut {
        /// What was asked.
        action: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server has no room: its disk or one of its limits is full. It goes on by itself when
    /// there is room again.
    #[error(
        "the NATS server has no room for `{action}` ({reason}): free disk space on its machine, or raise its JetStream limits; meanwhile it is tried again"
    )]
    NoRoom {
        /// What was asked.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The backend said no.
    #[error("the server refused `{action}`: {reason}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// Nothing more can be sent over this bus.
    #[error("the bus is closed: its own tasks have ended, so start this program again")]
    Closed,
}

impl BusError {
    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::NoQueue { .. }
                | Self::Unreachable { .. }
                | Self::Disconnected { .. }
                | Self::TimedOut { .. }
                | Self::NoRoom { .. }
        )
    }
}
