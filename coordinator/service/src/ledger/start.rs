//! How a ledger begins: with its first record, or with a snapshot of all that came before.
//!
//! ```text
//! "USPXLED2" | frames from number 1
//! "USPXLED3" | sequence u64 LE | hash of the last frame (32) | sum (32) | a snapshot's frame | …
//! ```
//!
//! Sequence and hash are those of the last record that the snapshot stands for, so that numbers and
//! links go on as if it had been appended. The sum is BLAKE3 of the 48 bytes before it. Such a file
//! is put in place whole: what is wrong with its beginning is damage, never a crash.

use super::frame::{self, End, MAGIC};
use blake3::Hash;

/// How a ledger begins whose first record is a snapshot.
pub(super) const SHORTENED: &[u8; 8] = b"USPXLED3";
/// Bytes before that snapshot.
pub(super) const START: usize = SHORTENED.len() + 8 + 32 + 32;

/// The first bytes of a ledger whose snapshot follows the record at `end`.
pub(super) fn shortened(end: &End) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(START);
    bytes.extend(SHORTENED);
    bytes.extend(end.sequence.to_le_bytes());
    bytes.extend(end.hash.as_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

/// The first bytes of a ledger whose first frame follows `start`.
pub(super) fn bytes(start: &End) -> Vec<u8> {
    match start.sequence {
        0 => MAGIC.to_vec(),
        _ => shortened(start),
    }
}

/// What a ledger's first frame follows, and its frames; none where the first bytes are not a
/// ledger's.
pub(super) fn read(ledger: &[u8]) -> Option<(End, &[u8])> {
    if let Some(frames) = ledger.strip_prefix(MAGIC) {
        return Some((End::start(), frames));
    }
    let (start, frames) = ledger.split_at_checked(START)?;
    let (sequence, rest) = start.strip_prefix(SHORTENED)?.split_first_chunk()?;
    let (hash, _) = rest.split_first_chunk()?;
    let end = after(u64::from_le_bytes(*sequence), Hash::from_bytes(*hash));
    (shortened(&end) == start).then_some((end, frames))
}

/// The same of a shortened ledger whose first bytes are damaged: its snapshot's frame says what it
/// follows.
pub(super) fn guess(ledger: &[u8]) -> Option<(End, &[u8])> {
    let frames = ledger.get(START..)?;
    let first = frame::lone(frames, &(2..=u64::MAX))?;
    Some((after(first.sequence - 1, first.before), frames))
}

fn after(sequence: u64, hash: Hash) -> End {
    End { sequence, hash, length: START as u64 }
}
