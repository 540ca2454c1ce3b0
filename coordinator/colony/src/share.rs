//! Shares of a whole: counted in millionths, so that they are exact; written by people as numbers from
//! 0 to 1.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A share of a whole, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// The millionths of a whole.
    pub const WHOLE: u32 = 1_000_000;

    /// So many hundredths.
    pub const fn percent(n: u32) -> Self {
        Self(n * 10_000)
    }

    /// The nearest share to a fraction between 0 and 1.
    pub fn nearest(fraction: f64) -> Self {
        Self((fraction.clamp(0.0, 1.0) * f64::from(Self::WHOLE) + 0.5) as u32)
    }

    /// This share of `total` things, rounded to the nearest.
    pub fn of(self, total: usize) -> usize {
        let whole = u128::from(Self::WHOLE);
        ((total as u128 * u128::from(self.0) + whole / 2) / whole) as usize
    }

    /// This share of `total` things, rounded down.
    pub fn floor_of(self, total: u64) -> u64 {
        (u128::from(total) * u128::from(self.0) / u128::from(Self::WHOLE)) as u64
    }

    /// As a float between 0 and 1.
    pub fn to_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// What is left of the whole.
    pub fn rest(self) -> Self {
        Self(Self::WHOLE.saturating_sub(self.0))
    }
}

/// A number from 0 to 1 for people; for the ledger the millionths.
impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_f64(self.to_f64())
        } else {
            to.serialize_u32(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            from.deserialize_any(Written)
        } else {
            u32::deserialize(from).map(Self)
        }
    }
}

/// A share as people write it.
struct Written;

impl Visitor<'_> for Written {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a share: a number from 0 to 1 with at most six digits after the point, 0.5 say",
        )
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Share, E> {
        if value > 1.0 {
            return Err(E::custom(format!(
                "{value} is more than the whole: a share is a number from 0 to 1 (once it was \
                 written in millionths: 500000 is 0.5 now)"
            )));
        }
        let millionths = value * f64::from(Share::WHOLE);
        // What is left of six digits after the multiplication is far below this.
        if !(value >= 0.0 && (millionths - millionths.round()).abs() < 1e-3) {
            return Err(E::invalid_value(Unexpected::Float(value), &self));
        }
        Ok(Share::nearest(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Share, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Share, E> {
        self.visit_f64(value as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn people_and_ledger_read_what_was_written(millionths in 0u32..=Share::WHOLE) {
            let share = Share(millionths);
            let json = serde_json::to_string(&share).unwrap();
            prop_assert!(json.len() <= "0.123456".len(), "{}", json);
            prop_assert_eq!(serde_json::from_str::<Share>(&json).unwrap(), share);
            let bytes = rmp_serde::to_vec(&share).unwrap();
            prop_assert_eq!(&bytes, &rmp_serde::to_vec(&millionths).unwrap());
            prop_assert_eq!(rmp_serde::from_slice::<Share>(&bytes).unwrap(), share);
        }
    }

    #[test]
    fn what_is_no_share_is_refused_and_millionths_are_explained() {
        let read = |text: &str| serde_json::from_str::<Share>(text).map_err(|e| e.to_string());
        assert_eq!((read("1"), read("0")), (Ok(Share(Share::WHOLE)), Ok(Share(0))));
        assert_eq!(read("1e-6"), Ok(Share(1)));
        assert!(read("500000").unwrap_err().contains("millionths"));
        for text in ["-0.5", "-1", "0.1234567", "\"0.5\"", "null"] {
            assert!(read(text).unwrap_err().contains("a share"), "{text}");
        }
    }

    #[test]
    fn shares_round_to_the_nearest() {
        assert_eq!(Share::percent(50).of(5), 3);
        assert_eq!(Share::percent(40).of(64), 26);
        assert_eq!(Share::percent(75).rest(), Share::percent(25));
        assert_eq!(
            (Share::nearest(0.5), Share::nearest(7.0)),
            (Share::percent(50), Share::percent(100))
        );
    }
}
