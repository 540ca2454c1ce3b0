//! Fixed-point numbers: sums that come out the same in every order, on every machine.

use crate::Share;
use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign, Sub};

/// Bits behind the point.
const SCALE_BITS: u32 = 32;

/// 2^32 as a float; products with it are exact.
const SCALE: f64 = 4_294_967_296.0;

/// A number of 2^-32ths.
///
/// Additions wrap, and are therefore associative without exception; values are bounded where
/// answers are checked (|x| ≤ 2^20, so x² ≤ 2^40), which leaves room for 2^34 prompts before a wrap
/// could happen.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(from = "(i64, u64)", into = "(i64, u64)")]
pub struct Fixed(i128);

impl Fixed {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole number.
    pub fn whole(n: u32) -> Self {
        Self(i128::from(n) << SCALE_BITS)
    }

    /// A measured value, cut (towards zero) to a multiple of 2^-32.
    pub fn of(x: f64) -> Self {
        Self((x * SCALE) as i128)
    }

    /// The nearest float: for estimates, which are computed from exact sums.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / SCALE
    }

    /// As bytes, the least first.
    pub(crate) fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The number of these bytes.
    pub(crate) fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(i128::from_le_bytes(bytes))
    }

    /// This times `share`, cut towards zero.
    pub fn times(self, share: Share) -> Self {
        Self(self.0.wrapping_mul(i128::from(share.0)) / i128::from(Share::WHOLE))
    }
}

impl Add for Fixed {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for Fixed {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl AddAssign for Fixed {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Fixed {
    fn sum<I: Iterator<Item = Self>>(numbers: I) -> Self {
        numbers.fold(Self::ZERO, Add::add)
    }
}

impl From<(i64, u64)> for Fixed {
    fn from((high, low): (i64, u64)) -> Self {
        Self((i128::from(high) << 64) | i128::from(low))
    }
}

impl From<Fixed> for (i64, u64) {
    fn from(x: Fixed) -> Self {
        ((x.0 >> 64) as i64, x.0 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_cannot_matter(mut xs in prop::collection::vec(-1e6f32..1e6, 1..50)) {
            let forward: Fixed = xs.iter().map(|x| Fixed::of(f64::from(*x))).sum();
            xs.reverse();
            let backward: Fixed = xs.iter().map(|x| Fixed::of(f64::from(*x))).sum();
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn halves_survive_storage(high in any::<i64>(), low in any::<u64>()) {
            let x = Fixed::from((high, low));
            prop_assert_eq!(<(i64, u64)>::from(x), (high, low));
        }

        #[test]
        fn a_share_is_close_to_the_float(x in -1e6f64..1e6, millionths in 0u32..=1_000_000) {
            let share = Share(millionths);
            prop_assert!((Fixed::of(x).times(share).to_f64() - x * share.to_f64()).abs() < 1e-6);
        }
    }
}
