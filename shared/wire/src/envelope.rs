//! The envelope: `{"v": version, "kind": name, "body": bin}`, a MessagePack map with the names spelled out.
//!
//! The body is a MessagePack map of its own inside a byte string, so that kind and version are known before anything
//! else is read. Rules:
//! * A version that is newer than known is refused, naming what to upgrade. Old versions are read for ever.
//! * **Unknown fields within a known version are passed over.** A later release may add a field that readers may
//!   ignore without harm, with a default for when it is missing. Whatever changes the meaning of the others is a new
//!   version. (An unknown *variant* of an enum is refused: it cannot be ignored without harm.)
//!   `answer.skipped` is such a field: an older reader that passes it over finds prompts missing from the answer and
//!   refuses it, as it must; and an answer that skips nothing has the bytes that it always had.
//!   `answer.seams` is a count for people. An older worker that passes over `task.label.max_reasoning_tokens` keeps the bound
//!   that it has, which is the default.
//! * Messages are at most [`MAX_MESSAGE`] bytes, nested at most [`MAX_DEPTH`] deep, with nothing after their end.

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

/// A message: what it is called and which version of it is written.
pub trait Message: Serialize + DeserializeOwned {
    /// Its kind, as the envelope names it.
    const KIND: &'static str;
    /// The version written, and the newest one read.
    const VERSION: u16;
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
    let broken = |e: rmp_serde::encode::Error| WireError::Encode { kind: M::KIND, reason: e.to_string() };
    let body = ByteBuf::from(rmp_serde::to_vec_named(message).map_err(broken)?);
    let envelope = Envelope { v: M::VERSION, kind: M::KIND.to_owned(), body };
    Ok(rmp_serde::to_vec_named(&envelope).map_err(broken)?.into())
}

pub(crate) fn decode_bounded<M: Message>(bytes: &[u8], limit: usize) -> Result<M, WireError> {
    check_size(bytes.len(), limit)?;
    let envelope: Envelope = read(bytes).map_err(WireError::Envelope)?;
    if envelope.kind != M::KIND {
        return Err(WireError::Kind { expected: M::KIND, found: envelope.kind.chars().take(32).collect() });
    }
    match envelope.v {
        0 => Err(WireError::NoSuchVersion { kind: M::KIND, found: 0 }),
        v if v > M::VERSION => {
            Err(WireError::Newer { kind: M::KIND, found: v, known: M::VERSION, here: env!("CARGO_PKG_VERSION") })
        }
        // Every kind is at its first version: a second one is told apart here.
        _ => read(&envelope.body).map_err(|flaw| WireError::Body { kind: M::KIND, flaw }),
    }
}

fn check_size(bytes: usize, limit: usize) -> Result<(), WireError> {
    if bytes > limit { Err(WireError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Reads one value that must be all there is.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Flaw> {
    let mut from = rmp_serde::Deserializer::new(Cursor::new(bytes));
    from.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut from)?;
    if from.position() == bytes.len() as u64 { Ok(value) } else { Err(Flaw::Trailing) }
}
