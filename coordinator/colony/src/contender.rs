//! The models of the final comparison.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use uspx_domain::ExportFormat;

/// A model in the final comparison. In the ledger and in JSON an exported student goes by its
/// format's name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// The teacher.
    Teacher,
    /// The base student.
    Base,
    /// The student distilled by a recipe (its place in the list), unquantised.
    Distilled(u32),
    /// The release published before.
    Published,
    /// The 4-bit student in a format.
    #[serde(untagged)]
    Exported(ExportFormat),
}

impl From<ExportFormat> for Contender {
    fn from(format: ExportFormat) -> Self {
        Self::Exported(format)
    }
}

impl Contender {
    /// What it is ordered by: formats stand as in their table, what was published before last.
    fn place(self) -> (u8, usize, &'static str) {
        match self {
            Self::Teacher => (0, 0, ""),
            Self::Base => (1, 0, ""),
            Self::Distilled(recipe) => (2, recipe as usize, ""),
            Self::Exported(format) => (3, format.place(), format.name()),
            Self::Published => (4, 0, ""),
        }
    }
}

impl Ord for Contender {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Contender {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every contender with the bytes that ledgers have for it, in the order of tables.
    #[test]
    fn contenders_are_written_as_they_always_were() {
        let all: [(Contender, &[u8]); 7] = [
            (Contender::Teacher, b"\xa7teacher"),
            (Contender::Base, b"\xa4base"),
            (Contender::Distilled(1), b"\x81\xa9distilled\x01"),
            (ExportFormat::GPTQ.into(), b"\xa4gptq"),
            (ExportFormat::RTN.into(), b"\xa3rtn"),
            (ExportFormat::GGUF.into(), b"\xa4gguf"),
            (Contender::Published, b"\xa9published"),
        ];
        for (contender, bytes) in all {
            assert_eq!(rmp_serde::to_vec_named(&contender).unwrap(), bytes);
            assert_eq!(rmp_serde::from_slice::<Contender>(bytes).unwrap(), contender);
        }
        assert!(all.is_sorted_by_key(|(contender, _)| *contender));
        assert!(rmp_serde::from_slice::<Contender>(b"\xa3awq").is_err());
    }
}
