//! Messages there and back, broken ones, and what error feedback keeps.
#![allow(clippy::indexing_slicing)]

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A value with many ties, zeros, and all sizes.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0),
        (-3i8..4).prop_map(f32::from),
        -1.0f32..1.0,
        any::<f32>(), // Finite.
    ]
}

fn message(change: &[f32], share: f64) -> Vec<u8> {
    Feedback::new(change.len(), 0.95).unwrap().send(change, share).unwrap()
}

/// The positions by brute force.
fn sorted(change: &[f32], count: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..change.len() as u32).collect();
    all.sort_by(|&i, &j| {
        let size = |at: u32| change[at as usize].abs();
        size(j).total_cmp(&size(i)).then(i.cmp(&j))
    });
    all.retain(|&at| change[at as usize] != 0.0);
    all.truncate(count);
    all.sort_unstable();
    all
}

/// The least squared error of two levels, by trying all splits.
fn brute(magnitudes: &[f32]) -> f64 {
    let mut all: Vec<f64> = magnitudes.iter().map(|&m| f64::from(m)).collect();
    all.sort_by(f64::total_cmp);
    let error = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len().max(1) as f64;
        part.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>()
    };
    (0..all.len()).map(|at| error(&all[..at]) + error(&all[at..])).fold(f64::MAX, f64::min)
}

/// As seen in training: tensors of different scale, values bell-shaped with heavy tails.
fn typical(len: usize, seed: u64) -> Vec<f32> {
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut bell = || (0..12).map(|_| random.random_range(-0.5..0.5f32)).sum::<f32>();
    (0..len).map(|at| (1.0 + (at >> 14 & 3) as f32) * 1e-4 * bell() * bell().abs().exp()).collect()
}

/// By hand. Gaps 3, 0, 15, 18 with k = 2 (k = 3 is as short) are 0 11, 0 00, 1110 11 and 11110 01; with signs and
/// levels, in the order of bits: 0110000010111011 01111100111.
#[test]
fn a_message_is_these_bytes() {
    let mut change = [0.0f32; 40];
    (change[3], change[4], change[20], change[39], change[7]) = (1.0, -1.0, 4.0, -6.0, 0.25);
    let bytes = message(&change, 0.1);
    let head = [b'S', b'P', b'G', 1, 40, 0, 0, 0, 4, 0, 0, 0];
    let levels = [0, 0, 0x80, 0x3f, 0, 0, 0xa0, 0x40];
    let bits = [0b0000_0110, 0b1101_1101, 0b0011_1110, 0b0000_0111];
    assert_eq!(bytes, [&head[..], &[2], &levels, &bits].concat());
    let entries = [(3, 1.0), (4, -1.0), (20, 5.0), (39, -5.0)];
    assert_eq!(read(&bytes, 40).unwrap(), entries);
}

#[test]
fn what_is_wrong_is_said() {
    let bytes = message(&[1.0, 0.0, -2.0, 3.0, 0.0], 0.5);
    assert_eq!(read(&bytes, 5).unwrap().len(), 3);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        read(&bytes, 5).unwrap_err()
    };
    assert_eq!(with(3, &[2]), SparseError::Version(*b"SPG\x02"));
    assert_eq!(with(4, &[6]), SparseError::Length { found: 6, expected: 5 });
    assert_eq!(with(8, &[6]), SparseError::Count { count: 6, len: 5 });
    assert_eq!(with(12, &[32]), SparseError::Rice(32));
    for bad in [f32::NAN, f32::INFINITY, -1.0, -0.0, 0.0, 100.0] {
        assert!(matches!(with(13, &bad.to_le_bytes()), SparseError::Levels(..)), "{bad}");
    }
    for bad in [f32::NAN, f32::INFINITY, -1.0, 1e-9] {
        assert!(matches!(with(17, &bad.to_le_bytes()), SparseError::Levels(..)), "{bad}");
    }
    assert_eq!(with(21, &[255]), SparseError::Position);
    let last = bytes.len() - 1;
    assert_eq!(with(last, &[bytes[last] | 0x80]), SparseError::Padding);
    assert_eq!(read(&[&bytes[..], &[0]].concat(), 5), Err(SparseError::Trailing(1)));
    assert_eq!(read(&bytes[..last], 5), Err(SparseError::Truncated));
    assert_eq!(read(&[], 5), Err(SparseError::Truncated));
    // A count that the bytes cannot hold is refused before memory is asked for.
    let mut head = b"SPG\x01".to_vec();
    head.extend([255; 8]);
    assert_eq!(read(&head, u32::MAX as usize), Err(SparseError::Truncated));
}

/// Every byte of a message, changed to everything else.
#[test]
fn no_byte_breaks_the_reader() {
    let bytes = message(&typical(1500, 2), 0.02);
    for at in 0..bytes.len() {
        assert!(read(&bytes[..at], 1500).is_err());
        for flip in 1..=255 {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            read(&bytes, 1500).map_or(Ok(()), |entries| check(&entries, 1500)).unwrap();
        }
    }
}

#[test]
fn a_bad_change_leaves_the_residual() {
    let mut feedback = Feedback::new(3, 0.95).unwrap();
    feedback.send(&[1.0, 2.0, 3.0], 0.3).unwrap();
    let before = feedback.clone();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(feedback.send(&[0.0, bad, 0.0], 0.3), Err(SparseError::NotFinite(1)));
    }
    for share in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(matches!(feedback.send(&[0.0; 3], share), Err(SparseError::Share(_))));
    }
    let length = SparseError::Length { found: 2, expected: 3 };
    assert_eq!(feedback.send(&[0.0; 2], 0.3), Err(length));
    assert_eq!(feedback, before);
    // A sum that overflows.
    feedback.residual = vec![f32::MAX; 3];
    assert_eq!(feedback.send(&[f32::MAX; 3], 0.3), Err(SparseError::NotFinite(0)));
    assert_eq!(feedback.residual, [f32::MAX; 3]);
    for decay in [-0.1, 1.1, f32::NAN] {
        assert!(matches!(Feedback::new(3, decay), Err(SparseError::Decay(_))));
    }
    #[cfg(target_pointer_width = "64")]
    assert!(matches!(Feedback::new(1 << 32, 1.0), Err(SparseError::TooLong(_))));
}

#[test]
fn nothing_is_sent_of_nothing() {
    assert_eq!(read(&message(&[], 0.5), 0), Ok(vec![]));
    assert_eq!(message(&[0.0, -0.0, 0.0], 1.0).len(), 12);
}

/// Bytes a parameter, of 2²⁰ parameters, and the share of the squares sent that two levels lose: .01285 and .065 at
/// 1 %, .02272 and .076 at 2 %.
#[test]
fn a_message_is_small() {
    let change = typical(1 << 20, 1);
    for (share, bound, loss) in [(0.01, 0.0130, 0.07), (0.02, 0.0230, 0.08)] {
        let bytes = message(&change, share);
        let each = bytes.len() as f64 / change.len() as f64;
        let square = |v: f32| f64::from(v) * f64::from(v);
        let (mut sent, mut lost) = (0.0, 0.0);
        for (at, value) in read(&bytes, change.len()).unwrap() {
            sent += square(change[at as usize]);
            lost += square(change[at as usize] - value);
        }
        assert!(each < bound && lost < loss * sent, "{each} {}", lost / sent);
    }
}

/// A time, not a test: `cargo test --release -- --ignored --nocapture time`.
#[test]
#[ignore = "takes a time"]
fn time() {
    let change = typical(1 << 24, 1);
    let mut feedback = Feedback::new(change.len(), 0.95).unwrap();
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let bytes = feedback.send(&change, 0.02).unwrap();
        let sent = start.elapsed();
        let entries = read(&bytes, change.len()).unwrap().len();
        println!(
            "2²⁴ parameters: sent in {sent:?}, {entries} entries read in {:?}",
            start.elapsed() - sent
        );
    }
}

proptest! {
    /// The right positions and signs, at most two magnitudes a chunk, of the least squared error; and what is read
    /// and written again is the same bytes.
    #[test]
    fn there_and_back(change in vec(value(), 0..1500), share in 0.001f64..1.0) {
        let bytes = message(&change, share);
        let entries = read(&bytes, change.len()).unwrap();
        let count = ((share * change.len() as f64).ceil() as usize).min(change.len());
        let positions: Vec<u32> = entries.iter().map(|(at, _)| *at).collect();
        prop_assert_eq!(positions, sorted(&change, count));
        for chunk in entries.chunks(512) {
            let meant: Vec<f32> = chunk.iter().map(|(at, _)| change[*at as usize]).collect();
            let mut levels: Vec<u32> = chunk.iter().map(|(_, v)| v.abs().to_bits()).collect();
            levels.sort_unstable();
            levels.dedup();
            prop_assert!(levels.len() <= 2);
            let mut error = 0.0;
            for ((_, read), meant) in chunk.iter().zip(&meant) {
                prop_assert_eq!(read.is_sign_negative(), meant.is_sign_negative());
                error += (f64::from(*read) - f64::from(*meant)).powi(2);
            }
            let sizes: Vec<f32> = meant.iter().map(|v| v.abs()).collect();
            let most = f64::from(sizes.iter().copied().fold(0.0, f32::max));
            prop_assert!(error <= brute(&sizes) * (1.0 + 1e-6) + 1e-12 * most * most);
        }
        prop_assert_eq!(message::write(&entries, change.len() as u32), bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(head: bool, mut bytes in vec(any::<u8>(), 0..300), len in 0usize..600, count in 0u8..200, rice in 0u8..33) {
        if head {
            let levels = [0x3f80_0000u32.to_le_bytes(), 0x4000_0000u32.to_le_bytes()].concat();
            let start = [&b"SPG\x01"[..], &(len as u32).to_le_bytes(), &[count, 0, 0, 0, rice], &levels].concat();
            bytes.splice(0..0, start);
        }
        if let Ok(entries) = read(&bytes, len) {
            check(&entries, len)?;
        }
    }

    #[test]
    fn broken_messages_are_read_or_refused(change in vec(value(), 1..1200), share in 0.001f64..1.0, at: prop::sample::Index, flip in 1u8..=255) {
        let mut bytes = message(&change, share);
        let at = at.index(bytes.len());
        prop_assert!(read(&bytes[..at], change.len()).is_err());
        bytes[at] ^= flip;
        if let Ok(entries) = read(&bytes, change.len()) {
            check(&entries, change.len())?;
        }
    }

    /// What was put in, decayed, is what was sent, decayed, and what is left; reckoned in f64.
    #[test]
    fn nothing_is_lost(rounds in vec(vec(-1.0f32..1.0, 50), 1..30), share in 0.01f64..0.3, decay in prop_oneof![Just(1.0f32), Just(0.95), Just(0.0)]) {
        let mut feedback = Feedback::new(50, decay).unwrap();
        let mut left = [0.0f64; 50];
        for change in &rounds {
            let bytes = feedback.send(change, share).unwrap();
            left.iter_mut().zip(change).for_each(|(l, c)| *l = f64::from(decay) * *l + f64::from(*c));
            read(&bytes, 50).unwrap().iter().for_each(|(at, v)| left[*at as usize] -= f64::from(*v));
        }
        for (left, kept) in left.iter().zip(&feedback.residual) {
            prop_assert!((left - f64::from(*kept)).abs() < 1e-4, "{} {}", left, kept);
        }
    }
}

fn check(entries: &[(u32, f32)], len: usize) -> Result<(), TestCaseError> {
    prop_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
    prop_assert!(entries.iter().all(|(at, v)| (*at as usize) < len && v.is_finite() && *v != 0.0));
    Ok(())
}
