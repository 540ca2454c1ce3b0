//! What can still be read behind damage: frames that are whole by their own length and hash. They
//! cannot be kept, for what they follow from is gone; they say what a repair loses.

use super::frame::{self, End, HEADER, Lone};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The whole frames behind the end of what is kept, by number. `synced` is the last record that the
/// head names.
pub(super) fn frames<'a>(
    bytes: &'a [u8],
    kept: &End,
    synced: Option<u64>,
) -> BTreeMap<u64, &'a [u8]> {
    let numbers = numbers(bytes.len(), kept, synced);
    let mut found = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = match frame::lone(rest, &numbers) {
            Some(Lone { sequence, payload, rest, .. }) => {
                found.entry(sequence).or_insert(payload);
                rest
            }
            None => rest.get(1..).unwrap_or_default(),
        };
    }
    found
}

/// The numbers that records behind the end can have: what else looks like a frame is not one.
fn numbers(bytes: usize, kept: &End, synced: Option<u64>) -> RangeInclusive<u64> {
    let room = kept.sequence + (bytes / HEADER) as u64;
    kept.sequence + 1..=room.max(synced.unwrap_or(0))
}
