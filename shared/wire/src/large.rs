//! Content that is too large for a message: it goes to the object store, and the message carries
//! the reference.
//!
//! The blob is the very message with its content inline, so one reader serves both, and a blob says
//! what it is.

use crate::envelope::{Message, decode_bounded, encode_unbounded};
use crate::{Unread, WireError};
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

impl<T> Content<T> {
    /// The same, of a reference.
    pub(crate) fn as_ref(&self) -> Content<&T> {
        match self {
            Self::Inline(it) => Content::Inline(it),
            Self::Stored(blob) => Content::Stored(*blob),
        }
    }

    /// Another form of what is here.
    pub(crate) fn map<U>(self, form: impl FnOnce(T) -> U) -> Content<U> {
        match self {
            Self::Inline(it) => Content::Inline(form(it)),
            Self::Stored(blob) => Content::Stored(blob),
        }
    }

    /// The same, where it may fail.
    pub(crate) fn try_map<U>(
        self,
        form: impl FnOnce(T) -> Result<U, Unread>,
    ) -> Result<Content<U>, Unread> {
        match self {
            Self::Inline(it) => form(it).map(Content::Inline),
            Self::Stored(blob) => Ok(Content::Stored(blob)),
        }
    }
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
    pack(task)
}

/// Packs an answer, as a blob and its reference where it is large.
///
/// # Errors
/// [`WireError::TooLarge`] over [`MAX_BLOB`], [`WireError::Encode`].
pub fn pack_answer(answer: Answer) -> Result<Packed, WireError> {
    pack(answer)
}

/// Reads a task out of the blob that a message referred to.
///
/// # Errors
/// [`WireError::WrongBlob`] where the bytes are not those referred to; otherwise as for any
/// message.
pub fn unpack_task(reference: &BlobRef, blob: &[u8]) -> Result<Task, WireError> {
    unpack(reference, blob)
}

/// Reads an answer out of the blob that a message referred to.
///
/// # Errors
/// [`WireError::WrongBlob`] where the bytes are not those referred to; otherwise as for any
/// message.
pub fn unpack_answer(reference: &BlobRef, blob: &[u8]) -> Result<Answer, WireError> {
    unpack(reference, blob)
}

fn pack<T>(it: T) -> Result<Packed, WireError>
where
    Content<T>: Message,
{
    let bytes = encode_unbounded(&Content::Inline(it))?;
    if bytes.len() <= INLINE_LIMIT {
        return Ok(Packed { message: bytes, blob: None });
    }
    if bytes.len() > MAX_BLOB {
        return Err(WireError::TooLarge { bytes: bytes.len(), limit: MAX_BLOB });
    }
    let reference = BlobRef::to(&bytes);
    let message = encode_unbounded(&Content::<T>::Stored(reference))?;
    Ok(Packed { message, blob: Some((reference, bytes)) })
}

fn unpack<T>(reference: &BlobRef, blob: &[u8]) -> Result<T, WireError>
where
    Content<T>: Message,
{
    let kind = Content::<T>::KIND;
    if BlobRef::to(blob) != *reference {
        return Err(WireError::WrongBlob { kind });
    }
    match decode_bounded(blob, MAX_BLOB)? {
        Content::Inline(it) => Ok(it),
        Content::Stored(_) => Err(WireError::Nested { kind }),
    }
}
