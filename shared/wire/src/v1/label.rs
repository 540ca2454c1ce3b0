//! Labels: prompts to answer, and which answers are learned.

use super::all;
use super::jobs::texts;
use super::mask::Mask;
use super::task::Prompt;
use crate::{Flaw, Unread};
use serde::{Deserialize, Serialize};
use uspx_domain as domain;

#[derive(Serialize, Deserialize)]
pub(crate) struct Label {
    prompts: Vec<Prompt>,
    mask: Option<Mask>,
    top_k: u32,
    max_new_tokens: u32,
    max_reasoning_tokens: u32,
    /// A worker that does not know of them answers without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dreams: Option<Dreams>,
    /// A worker that does not know of it is not asked ([`domain::Speaks`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answering: Option<Answering>,
}

#[derive(Serialize, Deserialize)]
struct Dreams {
    rounds: u32,
    seed: u64,
}

#[derive(Serialize, Deserialize)]
struct Answering {
    target: String,
    samples: u32,
    temperature: f64,
    seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_consistency: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_reference_nats: Option<f32>,
}

impl Answering {
    fn new(how: domain::Answering, seed: u64) -> Self {
        Self {
            target: how.target.name().to_owned(),
            samples: how.samples,
            temperature: how.temperature,
            seed,
            min_consistency: how.min_consistency,
            max_reference_nats: how.max_reference_nats,
        }
    }
}

impl TryFrom<Answering> for domain::Answering {
    type Error = Unread;
    fn try_from(how: Answering) -> Result<Self, Unread> {
        let target = domain::Target::ALL.into_iter().find(|target| target.name() == how.target);
        let read = Self {
            target: target.ok_or(Unread::Unknown("an answer to learn"))?,
            samples: how.samples,
            temperature: how.temperature,
            min_consistency: how.min_consistency,
            max_reference_nats: how.max_reference_nats,
        };
        if read.flaw().is_none() { Ok(read) } else { Err(Flaw::Bounds.into()) }
    }
}

impl From<&domain::Label<domain::Prompt>> for Label {
    fn from(job: &domain::Label<domain::Prompt>) -> Self {
        let domain::Dreams { rounds, seed } = job.dreams;
        let domain::Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens, .. } = job;
        let (dreams, answering) = (job.dreams, job.answering);
        Self {
            answering: (!answering.is_usual()).then(|| Answering::new(answering, job.seed)),
            dreams: (!dreams.is_none()).then_some(Dreams { rounds, seed }),
            prompts: all(prompts),
            mask: mask.as_ref().map(Into::into),
            top_k: *top_k,
            max_new_tokens: *max_new_tokens,
            max_reasoning_tokens: *max_reasoning_tokens,
        }
    }
}

impl TryFrom<Label> for domain::Label<domain::Prompt> {
    type Error = Unread;
    fn try_from(job: Label) -> Result<Self, Unread> {
        let Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens, .. } = job;
        let (dreams, seed) = (job.dreams, job.answering.as_ref().map_or(0, |how| how.seed));
        let answering = job.answering.map(TryInto::try_into).transpose()?;
        let mask = mask.map(TryInto::try_into).transpose()?;
        let dreams = dreams.map(|Dreams { rounds, seed }| domain::Dreams { rounds, seed });
        Ok(Self {
            prompts: texts(prompts),
            mask,
            top_k,
            max_new_tokens,
            max_reasoning_tokens,
            dreams: dreams.unwrap_or_default(),
            answering: answering.unwrap_or_default(),
            seed,
        })
    }
}
