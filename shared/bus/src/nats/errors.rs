//! What async-nats' many error types mean to us: nobody answered, it is not there, or the server
//! said no.

use async_nats::error::Error;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    AccountErrorKind, CreateKeyValueErrorKind, CreateStreamErrorKind, GetStreamErrorKind,
    PublishError, PublishErrorKind, RequestErrorKind,
};
use async_nats::jetstream::kv::{EntryErrorKind, PutErrorKind, UpdateErrorKind, WatchErrorKind};
use async_nats::jetstream::stream::{
    ConsumerErrorKind, DeleteMessageErrorKind, PurgeErrorKind, RawMessageErrorKind,
};
use std::fmt::{Debug, Display};

/// What an error comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nobody answered, or the connection broke: the same may work later.
    NoAnswer,
    /// The stream, consumer or message is not there.
    Missing,
    /// Somebody else was faster.
    Raced,
    /// The server's disk, or what the account may use of it, is full.
    NoRoom,
    /// The server said no.
    Refused,
}

/// An error kind with a meaning.
pub(super) trait Kind: Clone + Debug + Display + PartialEq {
    fn meaning(&self) -> Meaning;
}

/// What the server said counts before the kind that the library made of it: many kinds are "other".
pub(super) fn meaning<K: Kind>(error: &Error<K>) -> Meaning {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(from_server) = cause.downcast_ref::<async_nats::jetstream::Error>() {
            return of_server(from_server);
        }
        if let Some(published) = cause.downcast_ref::<PublishError>() {
            return meaning(published);
        }
        source = cause.source();
    }
    error.kind().meaning()
}

fn of_server(error: &async_nats::jetstream::Error) -> Meaning {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CONSUMER_NOT_FOUND
        | ErrorCode::NO_MESSAGE_FOUND => Meaning::Missing,
        ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CONSUMER_OFFLINE
        | ErrorCode::STREAM_OFFLINE => Meaning::NoAnswer,
        // Seen with 2.10.27: the second where a limit is reached, the third where a write fails.
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STREAM_CREATE
        | ErrorCode::CONSUMER_STORE_FAILED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::MAXIMUM_CONSUMERS_LIMIT => Meaning::NoRoom,
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Meaning::Raced
        }
        _ => Meaning::Refused,
    }
}

macro_rules! kinds {
    ($($kind:ident: $($pattern:pat => $meaning:expr),+;)+) => {
        $(impl Kind for $kind {
            fn meaning(&self) -> Meaning {
                match self { $($pattern => $meaning,)+ }
            }
        })+
    };
}

kinds! {
    PublishErrorKind:
        Self::TimedOut | Self::BrokenPipe | Self::MaxAckPending => Meaning::NoAnswer,
        Self::StreamNotFound => Meaning::Missing,
        _ => Meaning::Refused;
    CreateStreamErrorKind:
        Self::TimedOut | Self::Response | Self::JetStreamUnavailable => Meaning::NoAnswer,
        Self::NotFound => Meaning::Missing,
        Self::JetStream(error) => of_server(error),
        _ => Meaning::Refused;
    GetStreamErrorKind:
        Self::Request => Meaning::NoAnswer,
        Self::JetStream(error) => of_server(error),
        _ => Meaning::Refused;
    ConsumerErrorKind:
        Self::TimedOut | Self::Request => Meaning::NoAnswer,
        Self::JetStream(error) => of_server(error),
        _ => Meaning::Refused;
    PurgeErrorKind:
        Self::TimedOut | Self::Request => Meaning::NoAnswer,
        Self::JetStream(error) => of_server(error);
    DeleteMessageErrorKind:
        Self::TimedOut | Self::Request => Meaning::NoAnswer,
        Self::JetStream(error) => of_server(error);
    RawMessageErrorKind:
        Self::NoMessageFound => Meaning::Missing,
        Self::JetStream(error) => of_server(error),
        Self::Other => Meaning::NoAnswer,
        _ => Meaning::Refused;
    CreateKeyValueErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
    PutErrorKind:
        Self::Publish | Self::Ack => Meaning::NoAnswer,
        _ => Meaning::Refused;
    UpdateErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        Self::WrongLastRevision => Meaning::Raced,
        _ => Meaning::Refused;
    EntryErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
    WatchErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
    RequestErrorKind:
        Self::TimedOut | Self::NoResponders => Meaning::NoAnswer,
        _ => Meaning::Refused;
    AccountErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
}
