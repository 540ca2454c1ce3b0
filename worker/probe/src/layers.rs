//! Whole layers of a dense model taken out, one after another: each time the one without which the loss rises
//! least, the others measured anew within what is left, because layers that stand in for each other can go
//! one by one and not together. Greedy, so the best of what one more step can reach; not the best of all
//! subsets.

use crate::Result;
use crate::ablate::ablate;
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{Cut, Mask};
use uspx_model::{LoadedModel, Progress, Readable};

/// A layer that went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropped {
    /// Its number, from 0.
    pub layer: u32,
    /// How far the loss then lies above the whole model's, nats per response token.
    pub rise: f64,
}

/// For every layer that is not in `gone` how far the loss lies above the whole model's when it is cut
/// besides, every head and channel of it: nats per response token.
///
/// # Errors
/// Those of the model; a stop by the keeper. A layer of experts stays, but for its heads.
pub fn rises(
    model: &LoadedModel,
    prompts: &Readable,
    gone: &BTreeSet<u32>,
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<BTreeMap<u32, f64>> {
    let shape = model.shape();
    let left: Vec<u32> = (0..shape.depth()).filter(|layer| !gone.contains(layer)).collect();
    let without = |layer: &u32| {
        let gone = gone.iter().chain([layer]).copied().collect();
        Cut::Mask(Mask::without_layers(model.fingerprint, &shape, &gone))
    };
    let cuts: Vec<Cut> = left.iter().map(without).collect();
    let rows = ablate(model, prompts, &cuts, batch_tokens, progress)?;
    let tokens: usize = prompts.sequences.iter().map(|s| s.response_len()).sum();
    let mut losses = rows
        .iter()
        .map(|row| row.nats.iter().copied().map(f64::from).sum::<f64>() / tokens.max(1) as f64);
    let clean = losses.next().unwrap_or(0.0);
    Ok(left.into_iter().zip(losses.map(|loss| loss - clean)).collect())
}

/// Drops layers of so many until `keep` are left, in the order in which they go. `rises` gives what each
/// other layer costs beside those that are gone; of equals the first goes.
///
/// # Errors
/// Those of `rises`.
pub fn drop_greedily<E>(
    layers: u32,
    keep: usize,
    mut rises: impl FnMut(&BTreeSet<u32>) -> std::result::Result<BTreeMap<u32, f64>, E>,
) -> std::result::Result<Vec<Dropped>, E> {
    let (mut gone, mut dropped) = (BTreeSet::new(), Vec::new());
    while (layers as usize).saturating_sub(gone.len()) > keep {
        let found = rises(&gone)?;
        let least = found.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((layer, rise)) = least.filter(|(layer, _)| gone.insert(*layer)) else { break };
        dropped.push(Dropped { layer, rise });
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Layers 1 and 2 stand in for each other: either costs little, both cost much.
    #[test]
    fn what_goes_together_is_seen_after_the_first_is_gone() {
        let alone = [0.5, 0.1, 0.2, 0.4];
        let rises = |gone: &BTreeSet<u32>| {
            let loss = |gone: &BTreeSet<u32>| {
                let both = if gone.contains(&1) && gone.contains(&2) { 1.0 } else { 0.0 };
                gone.iter().map(|layer| alone[*layer as usize]).sum::<f64>() + both
            };
            let with = |layer: &u32| gone.iter().chain([layer]).copied().collect();
            let left = (0..4u32).filter(|layer| !gone.contains(layer));
            Ok::<_, Infallible>(left.map(|layer| (layer, loss(&with(&layer)))).collect())
        };
        let Ok(dropped) = drop_greedily(4, 2, rises);
        assert_eq!(dropped.iter().map(|d| d.layer).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(dropped[1].rise, 0.5);
        let Ok(none) = drop_greedily(4, 4, rises);
        assert!(none.is_empty());
    }
}
