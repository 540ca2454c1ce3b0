//! Which answers a student learns, and which of them are worth it.

use crate::Prompt;
use serde::{Deserialize, Serialize};

/// Which answer of a prompt is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The prompt's reference; where there is none, the teacher's own answer.
    #[default]
    Reference,
    /// The teacher's own answer.
    Teacher,
    /// Both of them.
    Both,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reference, Self::Teacher, Self::Both];

    /// Whether the teacher is to answer `prompt` itself.
    pub fn asks(self, prompt: &Prompt) -> bool {
        self != Self::Reference || prompt.reference.is_none()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Teacher => "teacher",
            Self::Both => "both",
        }
    }
}

/// Which answers to a prompt are learned, beside what is sampled, and what they have to stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answering {
    /// Whose answer.
    pub target: Target,
    /// Answers sampled from the teacher beside it.
    pub samples: u32,
    /// Temperature of these, above 0: at 1 they are the teacher's own distribution.
    pub temperature: f64,
    /// The least share of the samples that give an answer which is learned, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_consistency: Option<f32>,
    /// References that the teacher finds unlikelier than this, in nats per byte, are not learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_reference_nats: Option<f32>,
}

impl Default for Answering {
    fn default() -> Self {
        let (min_consistency, max_reference_nats) = (None, None);
        let (target, samples, temperature) = (Target::Reference, 0, 1.0);
        Self { target, samples, temperature, min_consistency, max_reference_nats }
    }
}

impl Answering {
    /// No more answers to a prompt are sampled than this.
    pub const MOST_SAMPLES: u32 = 64;

    /// Whether it is what builds know that know nothing else.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it, if anything.
    pub fn flaw(&self) -> Option<&'static str> {
        let share = |share: &f32| (0.0..=1.0).contains(share);
        let above = |number: f64| number.is_finite() && number > 0.0;
        match self {
            Self { samples, .. } if *samples > Self::MOST_SAMPLES => Some("samples: at most 64"),
            Self { temperature, .. } if !above(*temperature) => Some("temperature: above 0"),
            Self { min_consistency: Some(least), .. } if !share(least) => {
                Some("min_consistency: 0 to 1")
            }
            Self { min_consistency: Some(_), samples: 0, .. } => {
                Some("min_consistency: only with samples, which it counts")
            }
            Self { max_reference_nats: Some(most), .. } if !above(f64::from(*most)) => {
                Some("max_reference_nats: above 0")
            }
            _ => None,
        }
    }

    /// The same for prompts that are only judged by: one answer to each, whatever it is worth.
    #[must_use]
    pub fn for_judging(self) -> Self {
        let target = if self.target == Target::Both { Target::Reference } else { self.target };
        Self { target, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_is_named() {
        let usual = Answering { samples: 4, ..Answering::default() };
        assert!(Answering::default().is_usual() && !usual.is_usual());
        let flaws = [
            Answering { samples: 65, ..usual },
            Answering { temperature: 0.0, ..usual },
            Answering { temperature: f64::NAN, ..usual },
            Answering { min_consistency: Some(1.5), ..usual },
            Answering { min_consistency: Some(0.5), samples: 0, ..usual },
            Answering { max_reference_nats: Some(0.0), ..usual },
        ];
        assert!(flaws.iter().all(|how| how.flaw().is_some()) && usual.flaw().is_none());
        let filtered = Answering { min_consistency: Some(0.5), ..usual };
        assert_eq!(filtered.flaw(), None);
        assert!(filtered.for_judging().is_usual());
        let both = Answering { target: Target::Both, ..filtered }.for_judging();
        let own = Answering { target: Target::Teacher, ..filtered }.for_judging();
        assert_eq!((both.target, own.target), (Target::Reference, Target::Teacher));
    }
}
