//! The sizes that a student may be cut to, the same in every layer: heads that KV heads divide, channels in
//! whole groups of the format, both by one share.

use crate::cut::{Sizes, counts_of_heads};
use std::collections::BTreeSet;
use uspx_domain::{ExportFormat, UnitKind};
use uspx_model::config::ModelConfig;

/// Inputs of a linear map that every format of 4 bits puts together, at least.
const GROUP: usize = 32;
/// Channels go by so many where floats are written: kernels want widths that are whole vectors.
const VECTOR: usize = 8;

/// Them, the largest first: for every share at which one of the named kinds of unit becomes fewer, as many of
/// each as that share leaves, and of each at least as few as there may be.
pub(super) fn sizes(
    config: &ModelConfig,
    kinds: &[UnitKind],
    format: Option<ExportFormat>,
) -> Vec<Sizes> {
    let whole = Sizes::of(config);
    let group = if format.is_some() { GROUP } else { VECTOR };
    let heads = match kinds.contains(&UnitKind::Head) {
        true => counts_of_heads(config),
        false => vec![whole.heads],
    };
    let packs = |n: &usize| format.is_none() || (n * config.head_dim).is_multiple_of(GROUP);
    let heads: Vec<usize> = heads.into_iter().filter(packs).collect();
    let least = if kinds.contains(&UnitKind::Channel) { group } else { whole.channels };
    let channels: Vec<usize> = (least..=whole.channels).step_by(group).collect();
    // Shares are counted in parts of which every head, and every channel, is a whole number.
    let (head, channel) = (whole.channels, whole.heads);
    let shares: BTreeSet<usize> =
        heads.iter().map(|n| n * head).chain(channels.iter().map(|n| n * channel)).collect();
    let at = |share: &usize| {
        let heads = most(&heads, share / head.max(1))?;
        let kv_heads = if config.kv_heads == config.heads { heads } else { config.kv_heads };
        Some(Sizes { heads, kv_heads, channels: most(&channels, share / channel.max(1))?, ..whole })
    };
    let mut sizes: Vec<Sizes> = shares.iter().rev().filter_map(at).collect();
    sizes.dedup();
    sizes
}

/// The largest of these counts that is at most `bound`, or the smallest.
fn most(counts: &[usize], bound: usize) -> Option<usize> {
    let below = counts.iter().rev().find(|n| **n <= bound);
    below.or(counts.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 heads on 2 KV heads, 96 channels, 128 wide with heads of 16.
    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"model_type": "llama", "hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2,
                "head_dim": 16, "intermediate_size": 96, "num_hidden_layers": 1, "vocab_size": 10}"#,
        )
        .unwrap()
    }

    fn pairs(kinds: &[UnitKind], format: Option<ExportFormat>) -> Vec<(usize, usize)> {
        let found = sizes(&config(), kinds, format);
        assert!(found.iter().all(|s| (s.kv_heads, s.layers) == (2, 1)));
        found.into_iter().map(|s| (s.heads, s.channels)).collect()
    }

    #[test]
    fn both_kinds_shrink_by_one_share() {
        let both = [UnitKind::Head, UnitKind::Channel];
        // 6 heads do not divide 128; a third of the channels is more than a quarter of the heads.
        let gptq = Some(ExportFormat::GPTQ);
        assert_eq!(pairs(&both, gptq), [(8, 96), (4, 64), (4, 32), (2, 32)]);
        assert_eq!(pairs(&[UnitKind::Channel], gptq), [(8, 96), (8, 64), (8, 32)]);
        assert_eq!(pairs(&[UnitKind::Head], gptq), [(8, 96), (4, 96), (2, 96)]);
        let floats = pairs(&both, None);
        assert_eq!((floats[0], floats[1], floats[6]), ((8, 96), (4, 88), (4, 48)));
        assert_eq!((floats[7], *floats.last().unwrap()), ((2, 40), (2, 8)));
    }
}
