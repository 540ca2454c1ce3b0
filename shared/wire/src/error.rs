//! Why bytes were refused. No variant holds any of the bytes' text: it may be a prompt's.

use rmp_serde::decode;
use std::fmt;

/// Why a message could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than any message may be.
    #[error("a message of {bytes} bytes is more than the {limit} allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// These bytes are not a message of ours.
    #[error("not a uspx message: {0}")]
    Envelope(Flaw),
    /// Another kind of message than the one looked for.
    #[error("a `{found}` message came where a `{expected}` message belongs")]
    Kind {
        /// The kind looked for.
        expected: &'static str,
        /// The kind found, at most 32 characters of it.
        found: String,
    },
    /// Written by a newer uspx.
    #[error(
        "the sender writes version {found} of `{kind}` messages, and uspx {here} on this machine knows up to {known}: \
         upgrade uspx on this machine"
    )]
    Newer {
        /// The kind of message.
        kind: &'static str,
        /// Its version.
        found: u16,
        /// The newest version known here.
        known: u16,
        /// The version of uspx here.
        here: &'static str,
    },
    /// It names a thing that is not known here.
    #[error(
        "a `{kind}` message names {what} that uspx {here} on this machine does not know: upgrade uspx on this machine"
    )]
    Unknown {
        /// The kind of message.
        kind: &'static str,
        /// What sort of thing.
        what: &'static str,
        /// The version of uspx here.
        here: &'static str,
    },
    /// A version that never was.
    #[error("version {found} of `{kind}` messages never existed")]
    NoSuchVersion {
        /// The kind of message.
        kind: &'static str,
        /// Its version.
        found: u16,
    },
    /// The envelope is right, what it holds is not.
    #[error("a `{kind}` message cannot be read: {flaw}")]
    Body {
        /// The kind of message.
        kind: &'static str,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A value that cannot be written.
    #[error("a `{kind}` message cannot be written: {reason}")]
    Encode {
        /// The kind of message.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A blob is not the one that was referred to.
    #[error(
        "the blob of a `{kind}` message is not the one referred to: fetch it again, or the store is damaged"
    )]
    WrongBlob {
        /// The kind of message.
        kind: &'static str,
    },
    /// A blob that refers to another blob.
    #[error("the blob of a `{kind}` message is itself only a reference")]
    Nested {
        /// The kind of message.
        kind: &'static str,
    },
}

impl WireError {
    /// Whether the message is of a newer uspx, and nothing is wrong with it.
    pub fn is_not_spoken(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Unknown { .. })
    }
}

/// What is wrong with MessagePack bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// They end too early.
    CutShort,
    /// They go on after the end.
    Trailing,
    /// Nested deeper than any message is.
    TooDeep,
    /// A field is missing, or holds something else than it should.
    Fields,
    /// Text that is not UTF-8.
    Text,
    /// A number, a text or a list larger than any real one.
    Bounds,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutShort => "it is cut short",
            Self::Trailing => "more bytes follow its end",
            Self::TooDeep => "it is nested too deeply",
            Self::Fields => "a field is missing or holds what it should not",
            Self::Text => "a text is not UTF-8",
            Self::Bounds => "a number, a text or a list is larger than any real one",
        })
    }
}

impl std::error::Error for Flaw {}

impl From<decode::Error> for Flaw {
    fn from(error: decode::Error) -> Self {
        match error {
            decode::Error::InvalidMarkerRead(_) | decode::Error::InvalidDataRead(_) => {
                Self::CutShort
            }
            decode::Error::DepthLimitExceeded => Self::TooDeep,
            decode::Error::Utf8Error(_) => Self::Text,
            _ => Self::Fields,
        }
    }
}
