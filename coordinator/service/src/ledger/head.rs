//! The head file: how far a ledger was synced. All up to there must be whole; what lies beyond was
//! never promised.
//!
//! ```text
//! slot at byte 0 | … | slot at byte 4096
//! slot: sequence u64 LE | length of the ledger u64 LE | hash of the last frame (32) | sum (32)
//! ```
//!
//! The sum is BLAKE3 of the 48 bytes before it. The slots are written in turn and lie in different
//! pages, so that a torn write of one leaves the other.

use super::frame::End;
use blake3::Hash;

/// Bytes from one slot to the next: no disk tears two pages with one write.
const APART: usize = 4096;
/// Bytes of a slot.
pub(super) const SLOT: usize = 8 + 8 + 32 + 32;

/// A head file as it was found.
#[derive(Debug)]
pub(super) struct Head {
    /// Bytes of the file; none where it is missing.
    length: Option<usize>,
    slots: [Option<End>; 2],
}

impl Head {
    pub fn read(bytes: Option<&[u8]>) -> Self {
        let slot = |at: usize| bytes.and_then(|b| b.get(at..at + SLOT)).and_then(decode);
        Self { length: bytes.map(<[u8]>::len), slots: [slot(0), slot(APART)] }
    }

    /// The end that was written last.
    pub fn newest(&self) -> Option<End> {
        self.slots.into_iter().flatten().max_by_key(|end| end.sequence)
    }

    /// Whether it is as a crash can leave it that came before the first record: missing, or the
    /// first slot torn.
    pub fn is_unborn(&self) -> bool {
        self.newest().is_none() && self.length.is_none_or(|length| length <= SLOT)
    }

    pub fn is_missing(&self) -> bool {
        self.length.is_none()
    }

    /// The slot to write next: never the one that holds the newest end.
    pub fn free_slot(&self) -> Slot {
        match self.newest() {
            newest @ Some(_) if newest == self.slots[0] => Slot(1),
            _ => Slot(0),
        }
    }
}

/// One of the two places in a head file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(usize);

impl Slot {
    /// Its first byte.
    pub fn at(self) -> u64 {
        (self.0 * APART) as u64
    }

    /// The one to write after this one.
    pub fn other(self) -> Self {
        Self(1 - self.0)
    }
}

/// The bytes of a slot.
pub(super) fn encode(end: &End) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend(end.sequence.to_le_bytes());
    bytes.extend(end.length.to_le_bytes());
    bytes.extend(end.hash.as_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

fn decode(slot: &[u8]) -> Option<End> {
    let (sequence, rest) = slot.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (hash, _) = rest.split_first_chunk()?;
    let end = End {
        sequence: u64::from_le_bytes(*sequence),
        hash: Hash::from_bytes(*hash),
        length: u64::from_le_bytes(*length),
    };
    (encode(&end) == slot).then_some(end)
}
