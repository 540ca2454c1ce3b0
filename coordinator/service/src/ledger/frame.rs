//! One record as bytes. A frame knows nothing of what it carries.
//!
//! ```text
//! length u32 LE | sequence u64 LE | hash of the frame before (32) | this frame's hash (32) | payload
//! ```
//!
//! A frame's hash is BLAKE3 over everything in it but the hash itself. It is checksum and link at
//! once: the next frame carries it, so that no record can be changed, removed, repeated or moved
//! without a trace.

use super::fault::Fault;
use blake3::{Hash, Hasher};
use std::ops::RangeInclusive;

/// How a ledger begins with its first record (`start`), which names the hash of these bytes as the
/// frame before it.
pub(super) const MAGIC: &[u8; 8] = b"USPXLED2";
/// What comes before a payload, in bytes.
pub(super) const HEADER: usize = 4 + 8 + 32 + 32;
/// No payload is longer, in bytes; a length beyond it is damage.
const MAX_PAYLOAD: u32 = 256 << 20;

/// Where a chain of records ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The last record's number; 0 before the first.
    pub sequence: u64,
    /// The last frame's hash.
    pub hash: Hash,
    /// Bytes of the ledger up to here.
    pub length: u64,
}

impl End {
    /// Before the first record.
    pub fn start() -> Self {
        Self { sequence: 0, hash: blake3::hash(MAGIC), length: MAGIC.len() as u64 }
    }

    fn then(&self, hash: Hash, payload: &[u8]) -> Self {
        let frame = (HEADER + payload.len()) as u64;
        Self { sequence: self.sequence + 1, hash, length: self.length + frame }
    }
}

/// What stands before a payload.
struct Header {
    length: u32,
    sequence: u64,
    before: Hash,
    hash: Hash,
}

impl Header {
    /// The header that `bytes` begin with, and what follows it.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (before, rest) = rest.split_first_chunk::<32>()?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        let header = Self {
            length: u32::from_le_bytes(*length),
            sequence: u64::from_le_bytes(*sequence),
            before: Hash::from_bytes(*before),
            hash: Hash::from_bytes(*hash),
        };
        Some((header, rest))
    }

    fn hash_over(&self, payload: &[u8]) -> Hash {
        let mut hasher = Hasher::new();
        hasher.update(&self.length.to_le_bytes()).update(&self.sequence.to_le_bytes());
        hasher.update(self.before.as_bytes()).update(payload).finalize()
    }

    /// The payload that it announces, if the hash is right, and what comes after it.
    fn payload<'a>(&self, rest: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Fault> {
        let bounded = Some(self.length).filter(|length| *length <= MAX_PAYLOAD);
        let split = bounded.and_then(|length| rest.split_at_checked(length as usize));
        let (payload, rest) = split.ok_or(Fault::Length { bytes: self.length })?;
        if self.hash_over(payload) == self.hash { Ok((payload, rest)) } else { Err(Fault::Changed) }
    }
}

/// Adds the frame of a payload that follows `end`, and returns the new end; none where the payload
/// is too long.
pub(super) fn put(bytes: &mut Vec<u8>, end: &End, payload: &[u8]) -> Option<End> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_PAYLOAD)?;
    let mut header =
        Header { length, sequence: end.sequence + 1, before: end.hash, hash: end.hash };
    header.hash = header.hash_over(payload);
    bytes.extend(length.to_le_bytes());
    bytes.extend(header.sequence.to_le_bytes());
    bytes.extend(header.before.as_bytes());
    bytes.extend(header.hash.as_bytes());
    bytes.extend(payload);
    Some(end.then(header.hash, payload))
}

/// Takes the frame that `bytes` begin with and that must follow `end`: its payload, what comes
/// after it, and the new end.
pub(super) fn take<'a>(bytes: &'a [u8], end: &End) -> Result<(&'a [u8], &'a [u8], End), Fault> {
    let (header, rest) = Header::split(bytes).ok_or(Fault::Cut)?;
    let (payload, rest) = header.payload(rest)?;
    if header.sequence != end.sequence + 1 {
        return Err(Fault::Misplaced { found: header.sequence });
    }
    if header.before != end.hash {
        return Err(Fault::Unchained);
    }
    Ok((payload, rest, end.then(header.hash, payload)))
}

/// A frame that is whole by its own length and hash, whatever stood before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lone<'a> {
    /// Its record's number.
    pub sequence: u64,
    /// The hash of the frame that it follows.
    pub before: Hash,
    /// What it carries.
    pub payload: &'a [u8],
    /// What comes after it.
    pub rest: &'a [u8],
}

/// The frame that `bytes` begin with, if it is whole by itself and its number is one of `numbers`.
/// The number is looked at first: bytes that are not a frame are rarely hashed.
pub(super) fn lone<'a>(bytes: &'a [u8], numbers: &RangeInclusive<u64>) -> Option<Lone<'a>> {
    let (header, rest) = Header::split(bytes)?;
    if !numbers.contains(&header.sequence) {
        return None;
    }
    let (payload, rest) = header.payload(rest).ok()?;
    Some(Lone { sequence: header.sequence, before: header.before, payload, rest })
}
