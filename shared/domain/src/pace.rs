//! How fast a model writes an answer on the machine that judges it. For people: nothing is decided by
//! it.

use crate::MOST_TOKENS;
use serde::{Deserialize, Serialize};

/// No honest machine takes longer over what is timed: about eleven days.
const MOST_MICROS: u64 = 1_000_000_000_000;

/// Tokens written one after another, one answer at a time, and how long that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Tokens after the first of each answer.
    pub tokens: u64,
    /// Microseconds that these took.
    pub micros: u64,
}

impl Pace {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let tokens = self.tokens.saturating_add(other.tokens);
        Self { tokens, micros: self.micros.saturating_add(other.micros) }
    }

    /// Tokens a second; none where nothing was timed.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.micros as f64 / 1e6;
        (self.tokens > 0 && self.micros > 0).then(|| self.tokens as f64 / seconds)
    }

    /// Whether it can be a machine's over so many answers.
    pub fn is_possible(&self, answers: usize) -> bool {
        let most = answers as u64 * u64::from(MOST_TOKENS);
        (1..=most).contains(&self.tokens) && (1..=MOST_MICROS).contains(&self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_tokens_over_seconds_whatever_it_is_put_together_from() {
        let (slow, quick) =
            (Pace { tokens: 10, micros: 2_000_000 }, Pace { tokens: 30, micros: 500_000 });
        assert_eq!(slow.and(quick).tokens_per_second(), Some(16.0));
        assert_eq!(slow.and(quick), quick.and(slow));
        assert_eq!(Pace::default().tokens_per_second(), None);
        assert!(slow.is_possible(1) && !slow.is_possible(0));
        assert!(!Pace { micros: 0, ..slow }.is_possible(1));
        assert!(!Pace { tokens: u64::MAX, ..slow }.is_possible(1));
    }
}
