//! What a person would have configured to get a campaign of the small world.

use crate::world::prompt;
use uspx_colony::{CampaignConfig, Split};
use uspx_coordinator::{CampaignPlan, PromptBook};
use uspx_domain::Prompt;

/// Its settings. Every field is named: one forgotten would make another campaign of it, which takes none
/// of the world's ledgers on.
pub fn plan(config: &CampaignConfig) -> CampaignPlan {
    CampaignPlan {
        name: Some(config.name.clone()),
        seed: config.seed,
        teacher: None,
        student: None,
        stop_at_mask: false,
        probe: config.probe.clone(),
        mind: config.mind.clone(),
        mask: config.mask.clone(),
        judge: config.judge.clone(),
        sae: config.sae.clone(),
        dream: config.dream.clone(),
        answers: config.answers,
        distil: config.distil.clone(),
        together: config.together.clone(),
        finish: config.finish.clone(),
        trust: config.trust.clone(),
    }
}

/// Its prompts.
pub fn book(config: &CampaignConfig) -> PromptBook {
    let prompts = |split: Split| -> Vec<Prompt> {
        let of = config.prompts.iter().filter(|p| p.split == split);
        of.map(|p| Prompt { tags: p.tags.clone(), ..prompt(&p.id) }).collect()
    };
    PromptBook::new(prompts(Split::Train), prompts(Split::Validation), prompts(Split::Gate))
}
