//! A pseudo-gradient as few bytes: the largest entries only, two bits each, and what was not sent is kept for the
//! next time (SparseLoCo, arXiv 2508.15706, algorithm 1; used at scale in Covenant, arXiv 2603.08163).
//!
//! A pseudo-gradient is (start − now) of a list of tensors, laid end to end. Unlike SparseLoCo, which takes the
//! largest of every block of a tensor, the largest of the whole list are taken.
//!
//! # Format, version 1
//!
//! Little endian. A message is a header, then chunks, then nothing.
//!
//! | bytes | header |
//! |---|---|
//! | 0–2 | `SPG` |
//! | 3 | the version, 1 |
//! | 4–7 | u32: parameters of the list |
//! | 8–11 | u32: entries sent, no more than parameters |
//!
//! Entries are sent by rising position. Each 512 of them are a chunk, the rest a last one:
//!
//! | bytes | chunk |
//! |---|---|
//! | 0 | the Rice parameter k, 0–31: the one that makes the chunk shortest |
//! | 1–4 | f32: the small level, finite, above 0 |
//! | 5–8 | f32: the large level, finite, no less than the small one |
//! | 9– | the entries' bits, the lowest bit of a byte first; the last byte is filled with 0 |
//!
//! | bits | entry |
//! |---|---|
//! | g ≫ k times 1, then 0 | g is the number of positions between the entry before (of all chunks) and this |
//! | k | the low bits of g, the lowest first |
//! | 1 | 1: the value is negative |
//! | 1 | 1: its magnitude is the large level; 0: the small one |
//!
//! The levels are fitted to the magnitudes of the chunk by exact 2-means. A chunk seldom spans tensors of different
//! scale or density, and costs nine bytes: 0.14 bits an entry. There is no checksum: whoever stores or sends a
//! message knows its digest.

mod bits;
mod largest;
mod levels;
mod message;
#[cfg(test)]
mod tests;

pub use message::read;
use thiserror::Error;

/// Why there is no message, or no entries from one.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SparseError {
    /// The list is longer than positions can tell.
    #[error("{0} parameters are more than a message can be about")]
    TooLong(usize),
    /// The decay is not from 0 to 1.
    #[error("the decay of error feedback is {0}, not from 0 to 1")]
    Decay(f32),
    /// The share is not above 0 and at most 1.
    #[error("the share to send is {0}, not above 0 and at most 1")]
    Share(f64),
    /// This change, or what it adds up to with the residual, is infinite or not a number.
    #[error("the change of parameter {0} is not finite")]
    NotFinite(usize),
    /// A list, or a message, is about another number of parameters.
    #[error("the list is of {found} parameters, not of {expected}")]
    Length {
        /// Parameters it is about.
        found: usize,
        /// Parameters it should be about.
        expected: usize,
    },
    /// The first four bytes are not those of this version.
    #[error("the message begins with {0:?}, not as version 1 does")]
    Version([u8; 4]),
    /// More entries than parameters.
    #[error("the message tells of {count} entries of {len} parameters")]
    Count {
        /// Entries it tells of.
        count: usize,
        /// Parameters there are.
        len: usize,
    },
    /// The message ends too soon.
    #[error("the message ends before its last entry")]
    Truncated,
    /// A Rice parameter above 31.
    #[error("the rice parameter is {0}, above 31")]
    Rice(u32),
    /// Levels not finite, not above 0, or the small one above the large one.
    #[error("the levels {0} and {1} are not finite numbers above 0 in rising order")]
    Levels(f32, f32),
    /// A position behind the last parameter.
    #[error("the message has an entry behind the last parameter")]
    Position,
    /// Bits that should fill a byte are not 0.
    #[error("the bits behind a chunk are not 0")]
    Padding,
    /// Bytes behind the last chunk.
    #[error("the message goes on for {0} bytes behind its last entry")]
    Trailing(usize),
}

/// Sends changes and keeps what was not sent: error feedback (SparseLoCo, arXiv 2508.15706).
///
/// The fields are open so that a training can be kept and gone on with; `send` checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// What was put in but not sent, one a parameter, in the unit of the parameters.
    pub residual: Vec<f32>,
    /// How much of the residual stays when a change comes, 0–1; .95 in SparseLoCo.
    pub decay: f32,
}

impl Feedback {
    /// With nothing kept yet, for `len` parameters.
    ///
    /// # Errors
    /// [`SparseError::TooLong`] from 2³² parameters, [`SparseError::Decay`] out of range.
    pub fn new(len: usize, decay: f32) -> Result<Self, SparseError> {
        check_list(len, decay)?;
        Ok(Self { residual: vec![0.0; len], decay })
    }

    /// The message about the largest entries of decay · residual + change; the residual becomes what the receiver
    /// does not learn, to the bit.
    ///
    /// `change[i]` is (start − now) of a parameter. `ceil(share · len)` entries are sent, of equal magnitudes those
    /// that come first; fewer where the others are 0.
    ///
    /// # Errors
    /// [`SparseError::Length`], [`SparseError::NotFinite`], [`SparseError::Share`] and those of [`Feedback::new`];
    /// the residual is as before then.
    pub fn send(&mut self, change: &[f32], share: f64) -> Result<Vec<u8>, SparseError> {
        let len = check_list(self.residual.len(), self.decay)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(SparseError::Share(share));
        }
        let mut sum = self.sum(change)?;
        let count = ((share * f64::from(len)).ceil() as usize).min(sum.len());
        let chosen = largest::largest(&sum, count).into_iter();
        let entries: Vec<_> = chosen.filter_map(|at| Some((at, *sum.get(at as usize)?))).collect();
        let bytes = message::write(&entries, len);
        // What the receiver reads, not what was meant to be sent.
        for (at, value) in read(&bytes, sum.len())? {
            if let Some(left) = sum.get_mut(at as usize) {
                *left -= value;
            }
        }
        self.residual = sum;
        Ok(bytes)
    }

    /// decay · residual + change.
    fn sum(&self, change: &[f32]) -> Result<Vec<f32>, SparseError> {
        let (found, expected) = (change.len(), self.residual.len());
        if found != expected {
            return Err(SparseError::Length { found, expected });
        }
        let both = self.residual.iter().zip(change);
        let sum: Vec<f32> = both.map(|(kept, new)| self.decay * kept + new).collect();
        match sum.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(SparseError::NotFinite(at)),
            None => Ok(sum),
        }
    }
}

/// The length as positions are told.
fn check_list(len: usize, decay: f32) -> Result<u32, SparseError> {
    if !(0.0..=1.0).contains(&decay) {
        return Err(SparseError::Decay(decay));
    }
    u32::try_from(len).map_err(|_| SparseError::TooLong(len))
}
