//! The envelope: `{"v": version, "kind": name, "body": bin}`, a MessagePack map with the names
//! spelled out.
//!
//! The body is a MessagePack map of its own inside a byte string, so that kind and version are
//! known before anything else is read. Rules:
//! * A version that is newer than known is refused, naming what to upgrade. Old versions are read
//!   for ever: [`Message::read`] has an arm for each, and each arm gives the same noun.
//! * **Unknown fields within a known version are passed over.** A later release may add a field
//!   that readers may ignore without harm, with a default for when it is missing. Whatever changes
//!   the meaning of the others is a new version.
//! * An unknown *name* (a statistic, a kind of job) cannot be ignored without harm: it is refused
//!   as [`Unread::Unknown`], which is told from damage, so that a worker can say that it does not
//!   speak this.
//! * Messages are at most [`MAX_MESSAGE`] bytes, nested at most [`MAX_DEPTH`] deep, with nothing
//!   after their end.

use crate::error::{Flaw, WireError};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::Cursor;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 8 << 20;
/// The deepest nesting; real messages stay under 16.
pub const MAX_DEPTH: usize = 32;

/// A message: what it is called, and its bytes in each version.
pub trait Message: Sized {
    /// Its kind, as the envelope names it.
    const KIND: &'static str;
    /// The version written, and the newest one read.
    const VERSION: u16;

    /// The body in the newest version.
    ///
    /// # Errors
    /// What cannot be written.
    fn write(&self) -> Result<Vec<u8>, rmp_serde::encode::Error>;

    /// Reads a body of that version.
    ///
    /// # Errors
    /// [`Unread::Version`] for a version without an arm here; what is wrong with the body.
    fn read(version: u16, body: &[u8]) -> Result<Self, Unread>;
}

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is damaged.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// It names a thing of this sort that is not known here.
    #[error("it names {0} that is not known here")]
    Unknown(&'static str),
    /// Its version is not known here.
    #[error("its version is not known here")]
    Version,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u16,
    kind: String,
    body: ByteBuf,
}

/// Writes a message in its newest version.
///
/// # Errors
/// [`WireError::TooLarge`] or [`WireError::Encode`].
pub fn encode<M: Message>(message: &M) -> Result<Bytes, WireError> {
    let bytes = encode_unbounded(message)?;
    check_size(bytes.len(), MAX_MESSAGE)?;
    Ok(bytes)
}

/// Reads a message.
///
/// # Errors
/// Whatever is wrong with it; never a panic, whoever sent it.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, WireError> {
    decode_bounded(bytes, MAX_MESSAGE)
}

pub(crate) fn encode_unbounded<M: Message>(message: &M) -> Result<Bytes, WireError> {
    let broken =
        |e: rmp_serde::encode::Error| WireError::Encode { kind: M::KIND, reason: e.to_string() };
    let body = ByteBuf::from(message.write().map_err(broken)?);
    let envelope = Envelope { v: M::VERSION, kind: M::KIND.to_owned(), body };
    Ok(rmp_serde::to_vec_named(&envelope).map_err(broken)?.into())
}

pub(crate) fn decode_bounded<M: Message>(bytes: &[u8], limit: usize) -> Result<M, WireError> {
    check_size(bytes.len(), limit)?;
    let envelope: Envelope = read(bytes).map_err(WireError::Envelope)?;
    if envelope.kind != M::KIND {
        return Err(WireError::Kind {
            expected: M::KIND,
            found: envelope.kind.chars().take(32).collect(),
        });
    }
    M::read(envelope.v, &envelope.body).map_err(|unread| refusal::<M>(envelope.v, unread))
}

fn refusal<M: Message>(found: u16, unread: Unread) -> WireError {
    let (kind, here) = (M::KIND, env!("CARGO_PKG_VERSION"));
    match unread {
        Unread::Version if found > M::VERSION => {
            WireError::Newer { kind, found, known: M::VERSION, here }
        }
        Unread::Version => WireError::NoSuchVersion { kind, found },
        Unread::Unknown(what) => WireError::Unknown { kind, what, here },
        Unread::Flaw(flaw) => WireError::Body { kind, flaw },
    }
}

fn check_size(bytes: usize, limit: usize) -> Result<(), WireError> {
    if bytes > limit { Err(WireError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// The bytes of a version's structure, its fields by name.
pub(crate) fn write_body<T: Serialize>(body: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(body)
}

/// A version's structure out of its bytes.
pub(crate) fn read_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unread> {
    Ok(read(bytes)?)
}

/// Reads one value that must be all there is.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Flaw> {
    let mut from = rmp_serde::Deserializer::new(Cursor::new(bytes));
    from.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut from)?;
    if from.position() == bytes.len() as u64 { Ok(value) } else { Err(Flaw::Trailing) }
}
