//! What a person would have configured to get a campaign of the small world.

use crate::world::prompt;
use uspx_colony::{CampaignConfig, Split};
use uspx_coordinator::{CampaignPlan, PromptBook};
use uspx_domain::Prompt;

/// Its settings.
pub fn plan(config: &CampaignConfig) -> CampaignPlan {
    CampaignPlan {
        name: Some(config.name.clone()),
        seed: config.seed,
        probe: config.probe.clone(),
        mask: config.mask.clone(),
        judge: config.judge.clone(),
        sae: config.sae.clone(),
        dream: config.dream.clone(),
        distil: config.distil.clone(),
        trust: config.trust.clone(),
        ..CampaignPlan::default()
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
