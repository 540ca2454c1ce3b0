//! What tests of the whole service add to the world: a campaign whose ledger is small, and an
//! adapter that can be released.

use super::campaign;
use uspx_colony::{CampaignConfig, Share};

/// A campaign of few prompts, rounds and masks.
pub fn small(name: &str) -> CampaignConfig {
    let mut config = campaign(name);
    let prompts = std::mem::take(&mut config.prompts).into_iter().enumerate();
    let kept = |at: usize| matches!(at, 0..40 | 300..316 | 340..364);
    config.prompts = prompts.filter(|(at, _)| kept(*at)).map(|(_, p)| p).collect();
    config.probe.trace_batch = Some(20);
    config.probe.patch_prompts = 12;
    config.probe.round_pairs = 256;
    config.probe.round_prompts = 8;
    config.probe.exact_least = 512;
    config.probe.exact_pairs = 1024;
    config.judge.random_masks = 2;
    config.judge.curve = vec![Share::percent(25), Share::percent(75)];
    config.distil.resamples = 50;
    config
}

/// An adapter as workers send it: a safetensors file with its configuration in the header.
pub fn adapter() -> Vec<u8> {
    let header = r#"{"__metadata__":{"uspx_adapter":"{\"peft\":{\"r\":4}}"}}"#;
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}
