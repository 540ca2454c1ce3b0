//! The teacher's answers and token probabilities for a student to learn.

use super::{Run, Workbench};
use crate::error::JobError;
use crate::open_models::Opened;
use crate::product::{Product, Ran};
use bytes::Bytes;
use std::collections::HashSet;
use uspx_distill::{Keeping, PromptLabels, dream, dreams, lessons};
use uspx_domain::{BlobRef, Coverage, Label, Outcome, Prompt, Skipped};
use uspx_model::budget::Workload;
use uspx_model::chat::Bounds;

impl Run for Label<Prompt> {
    fn workload(&self) -> Workload {
        Workload::Forward
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let Opened { model: teacher, plan } = bench.model(self.workload())?;
        let bounds = Bounds {
            answer: self.max_new_tokens as usize,
            reasoning: self.max_reasoning_tokens as usize,
        };
        let mask = self.mask.as_ref();
        let tokens = self.max_new_tokens;
        let dreamt = dreams(&teacher, &self.prompts, mask, (self.dreams, tokens), bench.progress)?;
        let all = [self.prompts.as_slice(), &dreamt].concat();
        let together = (bounds, plan.room);
        let how = (&self.answering, self.seed, Keeping::Likeliest(self.top_k));
        let (labels, skipped) = lessons(&teacher, &all, mask, how, together, bench.progress)?;
        let ran = Ran { prompts: labels.prompts.len() as u64, tokens: labels.tokens() };
        // Of prompts that were made up, those that cannot be labelled are nobody's loss.
        let own: HashSet<&str> = self.prompts.iter().map(|p| p.id.as_str()).collect();
        let skipped: Vec<Skipped> =
            skipped.into_iter().filter(|s| own.contains(s.id.as_str())).collect();
        let prompts = self.prompts.len() - skipped.len();
        let blob = Bytes::from(labels.to_bytes()?);
        let outcome = Outcome::Labels {
            blob: BlobRef::to(&blob),
            prompts: prompts as u32,
            dreams: made_up(&labels.prompts),
            tokens: labels.tokens(),
            coverage: coverage(&labels.prompts),
        };
        Ok(Product { skipped, ran, ..Product::with_blob(outcome, blob) })
    }
}

/// Prompts that the teacher made up. Of further answers to a prompt each has a name of its own.
fn made_up(labels: &[PromptLabels]) -> u32 {
    labels.iter().filter(|label| label.prompt.id.starts_with(dream::PREFIX)).count() as u32
}

/// How much of the answers the teacher's tokens cover.
fn coverage(prompts: &[PromptLabels]) -> Coverage {
    let of = |p: &PromptLabels| Coverage {
        answer_bytes: p.answer.len() as u64,
        labelled_bytes: covered(p),
    };
    prompts.iter().map(of).fold(Coverage::default(), Coverage::and)
}

/// Bytes of an answer under at least one token; tokens that share a character count it once.
fn covered(prompt: &PromptLabels) -> u64 {
    let (mut bytes, mut reached) = (0, 0);
    for token in &prompt.tokens {
        let end = token.end.min(prompt.answer.len() as u32);
        bytes += u64::from(end.saturating_sub(token.start.max(reached)));
        reached = reached.max(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_distill::TokenLabel;

    fn labelled(answer: &str, spans: &[(u32, u32)]) -> PromptLabels {
        let token = |(start, end): &(u32, u32)| TokenLabel {
            piece: 0,
            start: *start,
            end: *end,
            log_prob: 0.0,
            top: vec![],
            tail: 0.0,
        };
        let prompt = Prompt { id: "p".into(), prompt: "x".into(), ..Prompt::default() };
        PromptLabels {
            prompt,
            answer: answer.into(),
            ended: true,
            reasoning: None,
            tokens: spans.iter().map(token).collect(),
        }
    }

    #[test]
    fn coverage_counts_each_byte_of_an_answer_once() {
        let whole = labelled("ls -l", &[(0, 2), (2, 5), (5, 5)]);
        let shared = labelled("für", &[(0, 1), (1, 3), (1, 3), (3, 9)]);
        let none = labelled("unspelt", &[]);
        assert_eq!([&whole, &shared, &none].map(covered), [5, 4, 0]);
        let all = coverage(&[whole, shared, none]);
        assert_eq!(all, Coverage { answer_bytes: 16, labelled_bytes: 9 });
        assert_eq!(coverage(&[]), Coverage::default());
    }
}
