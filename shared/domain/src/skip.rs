//! Prompts that a model cannot run, or that are not worth learning: left out of their batch alone, named
//! by id, never by their text (invariant 7).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Ids that a line for people names.
const NAMED: usize = 5;

/// A prompt that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Skipped {
    /// The prompt's id.
    pub id: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a prompt is left out. Numbers only: no text of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It is longer than what the model was made for.
    TooLong {
        /// Its tokens, those of its answer included.
        tokens: u32,
        /// The model's context, in tokens.
        context: u32,
    },
    /// Its answer has no text to measure on.
    Empty,
    /// It has no reference to measure on.
    NoReference,
    /// The chat template refuses this conversation.
    Template,
    /// The tokenizer cannot encode it.
    Tokenizer,
    /// The model's reasoning met its bound before an answer.
    Unfinished {
        /// The bound, in tokens.
        tokens: u32,
    },
    /// Too few of the answers that were sampled to it agree with the one to learn.
    Inconsistent {
        /// Samples that do.
        agreeing: u32,
        /// Samples that were asked for.
        samples: u32,
    },
    /// The teacher finds its reference unlikely.
    Unlikely {
        /// Thousandths of a nat per byte of the reference.
        millinats: u32,
    },
    /// The server that was asked for an answer refuses it.
    Refused,
}

impl SkipReason {
    /// Its name in JSON, without its numbers.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Empty => "empty",
            Self::NoReference => "no_reference",
            Self::Template => "template",
            Self::Tokenizer => "tokenizer",
            Self::Unfinished { .. } => "unfinished",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Unlikely { .. } => "unlikely",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { tokens, context } => {
                write!(
                    f,
                    "it has {tokens} tokens with its answer, and the model's context is {context}"
                )
            }
            Self::Empty => f.write_str("its answer has no text to measure on"),
            Self::NoReference => f.write_str("it has no reference to measure on"),
            Self::Template => f.write_str("the model's chat template refuses this conversation"),
            Self::Tokenizer => f.write_str("the model's tokenizer cannot encode it"),
            Self::Unfinished { tokens } => {
                write!(f, "the model's reasoning met its bound of {tokens} tokens before an answer")
            }
            Self::Inconsistent { agreeing, samples } => {
                write!(f, "{agreeing} of {samples} sampled answers agree with the one to learn")
            }
            Self::Unlikely { millinats } => {
                let nats = f64::from(*millinats) / 1e3;
                write!(f, "the teacher finds its reference unlikely, at {nats:.3} nats per byte")
            }
            Self::Refused => f.write_str("the server refuses to answer it"),
        }
    }
}

/// Prompts that were left out for one kind of reason, whatever its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipGroup {
    /// The first prompt's reason.
    pub reason: SkipReason,
    /// The prompts' ids, in the order in which they came. Never empty.
    pub ids: Vec<String>,
}

impl SkipGroup {
    /// Groups by the kind of reason, most frequent first.
    pub fn of<'a>(skipped: impl IntoIterator<Item = &'a Skipped>) -> Vec<Self> {
        let mut groups: BTreeMap<&'static str, Self> = BTreeMap::new();
        for Skipped { id, reason } in skipped {
            let new = || Self { reason: *reason, ids: Vec::new() };
            groups.entry(reason.name()).or_insert_with(new).ids.push(id.clone());
        }
        let mut groups: Vec<Self> = groups.into_values().collect();
        groups.sort_by_key(|g| std::cmp::Reverse(g.ids.len()));
        groups
    }
}

impl fmt::Display for SkipGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [id] = self.ids.as_slice() {
            return write!(f, "prompt {id} is left out: {}", self.reason);
        }
        let named: Vec<&str> = self.ids.iter().take(NAMED).map(String::as_str).collect();
        let more = if self.ids.len() > NAMED { ", …" } else { "" };
        write!(
            f,
            "{} prompts are left out ({}{more}), the first: {}",
            self.ids.len(),
            named.join(", "),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(tokens: u32) -> SkipReason {
        SkipReason::TooLong { tokens, context: 12 }
    }

    fn skipped(id: &str, reason: SkipReason) -> Skipped {
        Skipped { id: id.into(), reason }
    }

    #[test]
    fn a_name_is_the_one_that_serde_writes() {
        let all = [
            long(3),
            SkipReason::Empty,
            SkipReason::NoReference,
            SkipReason::Template,
            SkipReason::Tokenizer,
            SkipReason::Unfinished { tokens: 3 },
            SkipReason::Inconsistent { agreeing: 1, samples: 4 },
            SkipReason::Unlikely { millinats: 2001 },
            SkipReason::Refused,
        ];
        for reason in all {
            let written = serde_json::to_value(reason).unwrap();
            let name =
                written.as_str().or_else(|| written.as_object()?.keys().next().map(String::as_str));
            assert_eq!(name, Some(reason.name()));
            assert_eq!(serde_json::from_value::<SkipReason>(written).unwrap(), reason);
        }
    }

    #[test]
    fn a_group_counts_prompts_of_one_kind_whatever_their_numbers() {
        let all: Vec<Skipped> = (0..7).map(|n| skipped(&format!("p{n}"), long(20 + n))).collect();
        let one = skipped("bare", SkipReason::NoReference);
        let groups = SkipGroup::of(std::iter::once(&one).chain(&all));
        let said: Vec<String> = groups.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with(
            "7 prompts are left out (p0, p1, p2, p3, p4, …), the first: it has 20 tokens"
        ));
        assert_eq!(said[1], "prompt bare is left out: it has no reference to measure on");
        assert!(SkipGroup::of([]).is_empty());
    }
}
