//! The positions of the largest magnitudes: a radix selection. It reads the values three times, needs room for
//! two tables only, and finds positions in rising order.

/// Bits of a magnitude that are looked at last.
const LOW: u32 = 16;

/// Positions of the `count` largest magnitudes, rising; of equal ones, the first. Zeros are never among them:
/// to send one says nothing. Values are finite.
pub(super) fn largest(values: &[f32], count: usize) -> Vec<u32> {
    let (least, mut ties) = threshold(values, count);
    let chosen = (0u32..).zip(values).filter_map(|(at, &value)| {
        let size = magnitude(value);
        let tie = size == least && ties > 0;
        ties -= usize::from(tie);
        (size > 0 && (size > least || tie)).then_some(at)
    });
    chosen.collect()
}

/// Bits of finite magnitudes, as whole numbers, are ordered as the magnitudes.
fn magnitude(value: f32) -> u32 {
    value.abs().to_bits()
}

/// The least magnitude that is taken, and how often.
fn threshold(values: &[f32], count: usize) -> (u32, usize) {
    let sizes = || values.iter().map(|&v| magnitude(v));
    let (high, count) = from_top(&table(sizes().map(|s| s >> LOW)), count);
    let inside = sizes().filter(|s| s >> LOW == high).map(|s| s & ((1 << LOW) - 1));
    let (low, count) = from_top(&table(inside), count);
    (high << LOW | low, count)
}

/// How often each number below 2¹⁶ comes.
fn table(numbers: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut table = vec![0; 1 << LOW];
    for number in numbers {
        if let Some(held) = table.get_mut(number as usize) {
            *held += 1;
        }
    }
    table
}

/// The number that the `count`-th is, from the largest down, and how many of its kind are among the `count`.
fn from_top(table: &[usize], count: usize) -> (u32, usize) {
    let mut left = count;
    for (number, &held) in table.iter().enumerate().rev() {
        if left <= held {
            return (number as u32, left); // Below 2¹⁶.
        }
        left -= held;
    }
    (0, left)
}
