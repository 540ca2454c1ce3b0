//! How much of the answers a teacher's labels cover: where its tokens do not spell an answer, only
//! the text is learned.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of answers, and how many of them are labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// UTF-8 bytes of the answers to learn.
    pub answer_bytes: u64,
    /// Bytes of them that tokens with the teacher's probabilities cover.
    pub labelled_bytes: u64,
}

/// Below this many hundredths a campaign says so.
const LEAST: u128 = 95;

impl Coverage {
    /// Whether fewer bytes are labelled than a distillation from the teacher should have (95 %). Of
    /// no bytes, none lacks.
    pub fn is_low(&self) -> bool {
        u128::from(self.labelled_bytes) * 100 < u128::from(self.answer_bytes) * LEAST
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            answer_bytes: self.answer_bytes.saturating_add(other.answer_bytes),
            labelled_bytes: self.labelled_bytes.saturating_add(other.labelled_bytes),
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.labelled_bytes as f64 / self.answer_bytes.max(1) as f64;
        write!(f, "{percent:.1} % of {} answer bytes labelled", self.answer_bytes)?;
        if self.is_low() {
            f.write_str(
                ": FEWER THAN 95 %. The teacher's tokens do not spell the other answers, whose text alone is learned: \
                 check that its tokenizer.json and chat template belong to it",
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_95_percent_is_low_and_says_so() {
        let of = |labelled_bytes| Coverage { answer_bytes: 1000, labelled_bytes };
        assert!(!of(950).is_low() && of(949).is_low() && !Coverage::default().is_low());
        assert_eq!(of(1000).to_string(), "100.0 % of 1000 answer bytes labelled");
        assert!(
            of(949)
                .to_string()
                .starts_with("94.9 % of 1000 answer bytes labelled: FEWER THAN 95 %")
        );
        let all = Coverage { answer_bytes: u64::MAX, labelled_bytes: u64::MAX };
        assert_eq!(all.and(of(3)), all);
        assert!(!all.is_low());
    }
}
