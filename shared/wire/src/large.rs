//! Content that is too large for a message: it goes to the object store, and the message carries the reference.
//!
//! The blob is the very message with its content inline, so one reader serves both, and a blob says what it is.

use crate::envelope::{Message, decode_bounded, encode_unbounded};
use crate::{AnswerMessage, TaskMessage, WireError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uspx_domain::{Answer, BlobRef, Task};

/// A message longer than this, in bytes, is stored as a blob.
pub const INLINE_LIMIT: usize = 256 << 10;
/// The longest blob of a message, in bytes.
pub const MAX_BLOB: usize = 64 << 20;

/// The content of a message, or where it lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content<T> {
    /// Here.
    Inline(T),
    /// In the object store.
    Stored(BlobRef),
}

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What goes over the bus.
    pub message: Bytes,
    /// What must be in the store, under this reference, before the message is sent.
    pub blob: Option<(BlobRef, Bytes)>,
}

/// Packs a task, as a blob and its reference where it is large.
///
/// # Errors
/// [`WireError::TooLarge`] over [`MAX_BLOB`], [`WireError::Encode`].
pub fn pack_task(task: Task) -> Result<Packed, WireError> {
    pack(&TaskMessage { task: Content::Inline(task) }, |blob| TaskMessage { task: Content::Stored(blob) })
}

/// Packs an answer, as a blob and its reference where it is large.
///
/// # Errors
/// [`WireError::TooLarge`] over [`MAX_BLOB`], [`WireError::Encode`].
pub fn pack_answer(answer: Answer) -> Result<Packed, WireError> {
    pack(&AnswerMessage { answer: Content::Inline(answer) }, |blob| AnswerMessage { answer: Content::Stored(blob) })
}

/// Reads a task out of the blob that a message referred to.
///
/// # Errors
/// [`WireError::WrongBlob`] where the bytes are not those referred to; otherwise as for any message.
pub fn unpack_task(reference: &BlobRef, blob: &[u8]) -> Result<Task, WireError> {
    inline(unpack::<TaskMessage>(reference, blob)?.task, TaskMessage::KIND)
}

/// Reads an answer out of the blob that a message referred to.
///
/// # Errors
/// [`WireError::WrongBlob`] where the bytes are not those referred to; otherwise as for any message.
pub fn unpack_answer(reference: &BlobRef, blob: &[u8]) -> Result<Answer, WireError> {
    inline(unpack::<AnswerMessage>(reference, blob)?.answer, AnswerMessage::KIND)
}

fn pack<M: Message>(whole: &M, referring: impl FnOnce(BlobRef) -> M) -> Result<Packed, WireError> {
    let bytes = encode_unbounded(whole)?;
    if bytes.len() <= INLINE_LIMIT {
        return Ok(Packed { message: bytes, blob: None });
    }
    if bytes.len() > MAX_BLOB {
        return Err(WireError::TooLarge { bytes: bytes.len(), limit: MAX_BLOB });
    }
    let reference = BlobRef::to(&bytes);
    Ok(Packed { message: encode_unbounded(&referring(reference))?, blob: Some((reference, bytes)) })
}

fn unpack<M: Message>(reference: &BlobRef, blob: &[u8]) -> Result<M, WireError> {
    if BlobRef::to(blob) != *reference {
        return Err(WireError::WrongBlob { kind: M::KIND });
    }
    decode_bounded(blob, MAX_BLOB)
}

fn inline<T>(content: Content<T>, kind: &'static str) -> Result<T, WireError> {
    match content {
        Content::Inline(it) => Ok(it),
        Content::Stored(_) => Err(WireError::Nested { kind }),
    }
}
