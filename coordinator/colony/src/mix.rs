//! Which prompts a mask is for, and how much each part of them counts.
//!
//! A person's prompts come in generations: those that a campaign was founded with, and what was added later. Each is
//! a *stratum*: units are tried on so many prompts of it as its weight asks, and effects are estimated in each and
//! added up by weight (stratified sampling; Cochran 1977, *Sampling Techniques*, chapter 5). So what was measured on
//! prompts that are still there counts on, and what is new costs its share only.
//!
//! Older strata count less: one that so many newer prompts follow as [`MindPlan::memory`] says counts half.
//!
//! [`MindPlan::memory`]: crate::campaign::MindPlan::memory

use crate::state::Scores;
use crate::{Dice, Split, State};
use std::collections::BTreeMap;

/// The most strata that are told apart; older ones are one.
const MOST: usize = 4;

/// Some of the prompts, of like age.
#[derive(Debug, Clone, PartialEq)]
pub struct Stratum {
    /// What of all losses it is, from 0 to 1; of all strata 1.
    pub weight: f64,
    /// Its live train prompts that the teacher can run, by place, in the order that units are tried on them: those
    /// with known cheap scores first.
    pub prompts: Vec<u32>,
}

impl Stratum {
    /// What it gets of something that is shared out.
    pub fn share_of(&self, whole: u64) -> u64 {
        (self.weight * whole as f64) as u64
    }
}

/// The strata, oldest first; none without a campaign or a prompt.
pub fn strata(state: &State) -> Vec<Stratum> {
    let Some(campaign) = state.campaign() else { return Vec::new() };
    let mut generations: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let train = campaign.live().filter(|(_, p)| p.split == Split::Train);
    for (at, prompt) in train.filter(|(at, _)| !state.is_skipped(campaign.teacher, *at)) {
        generations.entry(prompt.generation).or_default().push(at);
    }
    while generations.len() > MOST {
        let Some((_, oldest)) = generations.pop_first() else { break };
        if let Some(mut next) = generations.first_entry() {
            next.get_mut().extend(oldest);
        }
    }
    let second = &state.by_prompt().second;
    let mut newer: usize = generations.values().map(Vec::len).sum();
    let mut sizes = Vec::new();
    for prompts in generations.values() {
        newer -= prompts.len();
        sizes.push(recency(newer, campaign.mind.memory) * tokens(prompts, second));
    }
    let whole: f64 = sizes.iter().sum();
    let order = |mut prompts: Vec<u32>| {
        let key = |at: &u32| {
            let digest = campaign.prompts.get(*at as usize).map(|p| p.digest.to_string());
            let drawn = Dice::new(campaign.seed, &digest.unwrap_or_default(), 0).unit().to_bits();
            (!state.by_prompt().control.knows(*at), drawn, *at)
        };
        prompts.sort_by_cached_key(key);
        prompts
    };
    let strata = generations.into_values().zip(sizes);
    strata
        .map(|(prompts, size)| Stratum { weight: size / whole, prompts: order(prompts) })
        .collect()
}

/// What a prompt counts that so many newer ones follow.
fn recency(newer: usize, memory: u32) -> f64 {
    if memory == 0 { 1.0 } else { f64::from(memory) / (f64::from(memory) + newer as f64) }
}

/// Response tokens, those that are not known yet as the others have them.
fn tokens(prompts: &[u32], known: &Scores) -> f64 {
    let told: Vec<f64> = prompts.iter().filter_map(|at| known.tokens(*at)).map(f64::from).collect();
    let each = if told.is_empty() { known.mean_tokens() } else { mean(&told) };
    told.iter().sum::<f64>() + each * (prompts.len() - told.len()) as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ByPrompt;
    use crate::{CampaignConfig, Founding, PromptEntry, RULES, Record};
    use uspx_domain::{Digest, Fingerprint};

    /// So many train prompts of each generation.
    fn state(sizes: &[u32], memory: u32) -> State {
        let model = Fingerprint(Digest::of(b"m"));
        let ids = sizes.iter().enumerate().flat_map(|(g, n)| (0..*n).map(move |at| (g as u32, at)));
        let entry = |(generation, at): (u32, u32)| PromptEntry {
            id: format!("{generation}/{at}"),
            digest: Digest::of(&[generation.to_le_bytes(), at.to_le_bytes()].concat()),
            split: Split::Train,
            tags: vec![],
            generation,
        };
        let prompts = ids.map(entry).collect();
        let mut campaign =
            CampaignConfig::new("c", (model, crate::test_shape(2, 8)), None, prompts);
        campaign.mind.memory = memory;
        let mut state = State::default();
        state.fold(&Record::Founded(Box::new(Founding { nonce: [0; 16], rules: RULES, campaign })));
        assert_eq!(*state.by_prompt(), ByPrompt::default());
        state
    }

    #[test]
    fn weights_are_shares_and_older_prompts_count_less() {
        let weights = |memory| -> Vec<f64> {
            strata(&state(&[30, 10], memory)).iter().map(|s| s.weight).collect()
        };
        assert_eq!(weights(0), [0.75, 0.25]);
        // Ten newer ones after a memory of ten: half of 30 beside 10.
        assert_eq!(weights(10), [0.6, 0.4]);
    }

    #[test]
    fn the_oldest_are_one() {
        let found = strata(&state(&[5, 1, 1, 1, 2, 3], 0));
        let sizes: Vec<usize> = found.iter().map(|s| s.prompts.len()).collect();
        assert_eq!(sizes, [7, 1, 2, 3]);
        assert!((found.iter().map(|s| s.weight).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_prompts_stays_when_others_come() {
        let (before, after) = (strata(&state(&[40], 0)), strata(&state(&[40, 9], 0)));
        assert_eq!(before[0].prompts, after[0].prompts);
        assert_ne!(before[0].prompts, (0..40).collect::<Vec<u32>>());
    }
}
