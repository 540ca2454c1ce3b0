//! Entries as bytes and back; the format is told in the parent module.

use super::SparseError;
use super::bits::{BitReader, BitWriter};
use super::levels;

/// What a message begins with; the last byte is the version.
const MAGIC: [u8; 4] = *b"SPG\x01";
/// Entries that share levels and a Rice parameter: few enough that a chunk seldom spans tensors of different
/// scale, and enough that its nine bytes are 0.14 bits an entry.
const CHUNK: usize = 512;
/// The largest Rice parameter: a gap is below 2³².
const MOST_RICE: u32 = 31;
/// The fewest bits of an entry: the end of the quotient, sign and level.
const LEAST_BITS: usize = 3;

/// Entries, by rising position below `len`, values finite and not 0, as a message.
pub(super) fn write(entries: &[(u32, f32)], len: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend((entries.len() as u32).to_le_bytes()); // No more than `len`, as positions rise.
    let mut free = 0;
    for chunk in entries.chunks(CHUNK) {
        free = write_chunk(chunk, free, &mut bytes);
    }
    bytes
}

/// Positions before `free` are past; returns the position behind the chunk.
fn write_chunk(chunk: &[(u32, f32)], mut free: u32, bytes: &mut Vec<u8>) -> u32 {
    let mut gaps = Vec::with_capacity(chunk.len());
    for &(at, _) in chunk {
        gaps.push(at - free);
        free = at + 1;
    }
    let rice = best_rice(&gaps);
    let levels = levels::fit(chunk.iter().map(|(_, value)| value.abs()).collect());
    bytes.push(rice as u8);
    bytes.extend(levels.small.to_le_bytes());
    bytes.extend(levels.large.to_le_bytes());
    let mut bits = BitWriter::new(bytes);
    for (gap, (_, value)) in gaps.into_iter().zip(chunk) {
        (0..gap >> rice).for_each(|_| bits.bit(true));
        bits.bit(false);
        bits.number(gap, rice);
        bits.bit(*value < 0.0);
        bits.bit(value.abs() >= levels.from);
    }
    bits.close();
    free
}

/// The Rice parameter of the fewest bits; the smallest of equals.
fn best_rice(gaps: &[u32]) -> u32 {
    let cost = |&rice: &u32| {
        let quotients: u64 = gaps.iter().map(|gap| u64::from(gap >> rice)).sum();
        quotients + gaps.len() as u64 * u64::from(rice)
    };
    (0..=MOST_RICE).min_by_key(cost).unwrap_or(MOST_RICE)
}

/// The entries of a message about `len` parameters: (position, value), by rising position.
///
/// Values are finite and not 0, in the unit of the parameters. The bytes may come from anyone: whatever they
/// are, this does not panic, and asks for memory of no more than `len` entries.
///
/// # Errors
/// All of [`SparseError`] that are about bytes.
pub fn read(bytes: &[u8], len: usize) -> Result<Vec<(u32, f32)>, SparseError> {
    let mut rest = bytes;
    let magic = take::<4>(&mut rest)?;
    if magic != MAGIC {
        return Err(SparseError::Version(magic));
    }
    let (told, count) = (read_count(&mut rest)?, read_count(&mut rest)?);
    if told != len {
        return Err(SparseError::Length { found: told, expected: len });
    }
    if count > len {
        return Err(SparseError::Count { count, len });
    }
    if count > rest.len().saturating_mul(8) / LEAST_BITS {
        return Err(SparseError::Truncated); // Before anything is allocated for it.
    }
    let mut entries = Vec::with_capacity(count);
    while entries.len() < count {
        let chunk = CHUNK.min(count - entries.len());
        rest = read_chunk(rest, chunk, len as u64, &mut entries)?;
    }
    if rest.is_empty() { Ok(entries) } else { Err(SparseError::Trailing(rest.len())) }
}

/// Reads a chunk of `count` entries; returns the bytes behind it.
fn read_chunk<'a>(
    mut bytes: &'a [u8],
    count: usize,
    len: u64,
    entries: &mut Vec<(u32, f32)>,
) -> Result<&'a [u8], SparseError> {
    let [rice] = take::<1>(&mut bytes)?;
    let rice = u32::from(rice);
    if rice > MOST_RICE {
        return Err(SparseError::Rice(rice));
    }
    let (small, large) = read_levels(&mut bytes)?;
    let mut bits = BitReader::new(bytes);
    let mut free = entries.last().map_or(0, |(at, _)| u64::from(*at) + 1);
    for _ in 0..count {
        let at = free + read_gap(&mut bits, rice, len)?;
        if at >= len {
            return Err(SparseError::Position);
        }
        let negative = bits.bit().ok_or(SparseError::Truncated)?;
        let level = if bits.bit().ok_or(SparseError::Truncated)? { large } else { small };
        entries.push((at as u32, if negative { -level } else { level }));
        free = at + 1;
    }
    bits.close().ok_or(SparseError::Padding)
}

/// A gap; positions rise because gaps are not negative. A quotient is not followed beyond `len`.
fn read_gap(bits: &mut BitReader<'_>, rice: u32, len: u64) -> Result<u64, SparseError> {
    let mut high = 0;
    while bits.bit().ok_or(SparseError::Truncated)? {
        high += 1 << rice;
        if high >= len {
            return Err(SparseError::Position);
        }
    }
    let low = bits.number(rice).ok_or(SparseError::Truncated)?;
    Ok(high + u64::from(low))
}

/// The small and the large level.
fn read_levels(bytes: &mut &[u8]) -> Result<(f32, f32), SparseError> {
    let small = f32::from_le_bytes(take(bytes)?);
    let large = f32::from_le_bytes(take(bytes)?);
    if small > 0.0 && small <= large && large.is_finite() {
        return Ok((small, large));
    }
    Err(SparseError::Levels(small, large))
}

fn read_count(bytes: &mut &[u8]) -> Result<usize, SparseError> {
    Ok(u32::from_le_bytes(take(bytes)?) as usize)
}

/// The first bytes, which are taken off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], SparseError> {
    let (first, rest) = bytes.split_first_chunk().ok_or(SparseError::Truncated)?;
    *bytes = rest;
    Ok(*first)
}
