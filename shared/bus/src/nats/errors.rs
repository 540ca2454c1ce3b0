//! What async-nats' many error types mean to us: nobody answered, it is not there, or the server
//! said no.

use async_nats::error::Error;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    AccountErrorKind, CreateKeyValueErrorKind, CreateStreamErrorKind, GetStreamErrorKind,
    PublishErrorKind,
};
use async_nats::jetstream::kv::{EntryErrorKind, PutErrorKind, WatchErrorKind};
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
    /// The server said no.
    Refused,
}

/// An error kind with a meaning.
pub(super) trait Kind: Clone + Debug + Display + PartialEq {
    fn meaning(&self) -> Meaning;
}

pub(super) fn meaning<K: Kind>(error: &Error<K>) -> Meaning {
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
    EntryErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
    WatchErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
    AccountErrorKind:
        Self::TimedOut => Meaning::NoAnswer,
        _ => Meaning::Refused;
}
