//! The ledger against everything that can befall it: crashes at every step, and damage of every
//! kind.

mod crashes;
mod damage;
mod every_byte;
mod files;
pub(crate) mod frozen;
mod moves;
mod properties;
mod repairs;
mod repairs_crashed;
mod shortened;
mod shortened_crashed;
mod sim;

use super::frame::{HEADER, MAGIC};
use super::start::{SHORTENED, START};
use std::ops::Range;

/// Where each record lies in a ledger's bytes, read without the code under test.
fn places(ledger: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut at = if ledger.starts_with(SHORTENED) { START } else { MAGIC.len() };
    while at < ledger.len() {
        let length = u32::from_le_bytes(ledger[at..at + 4].try_into().unwrap()) as usize;
        places.push(at..at + HEADER + length);
        at += HEADER + length;
    }
    places
}

/// The number and first byte of the record that holds byte `at`; 0 is what stands before the first.
fn record_at(places: &[Range<usize>], at: usize) -> (u64, u64) {
    let found = (1..).zip(places).find(|(_, place)| place.contains(&at));
    found.map_or((0, 0), |(sequence, place)| (sequence, place.start as u64))
}

/// The first byte in which two files differ.
fn first_change(before: &[u8], after: &[u8]) -> Option<usize> {
    let common = before.iter().zip(after).position(|(a, b)| a != b);
    common.or((before.len() != after.len()).then(|| before.len().min(after.len())))
}
