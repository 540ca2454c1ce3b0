//! One file of prompts becomes three splits: by clusters of near-duplicates, so that no held-out
//! prompt has a twin among those that are learnt from, and so that a prompt keeps its split when
//! others are added.
//!
//! Near-duplicates are found by the overlap (Jaccard) of the sets of their texts' character
//! 4-grams (Broder 1997, "On the resemblance and containment of documents"), exactly, with the
//! prefix filter of Bayardo, Ma & Srikant 2007 ("Scaling up all pairs similarity search").

use crate::{PromptBook, ServiceError};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use uspx_colony::{Dice, Split};
use uspx_domain::Prompt;

/// Characters of a gram.
const GRAM: usize = 4;
/// The overlap from which two prompts are near-duplicates, as a fraction: 3 of 5.
const ALIKE: (usize, usize) = (3, 5);
/// Of a hundred prompts, those that are held out for the gate and for reports.
const GATE: usize = 15;
/// Of a hundred prompts, those that choices are made by.
const VALIDATION: usize = 5;

/// Prompts in their splits, and how many clusters of near-duplicates they make.
#[derive(Debug, Clone)]
pub struct SplitPrompts {
    /// The prompts.
    pub book: PromptBook,
    /// Their clusters.
    pub clusters: usize,
}

/// Splits `prompts`: 80 % to learn from, 5 % to choose by, 15 % held out. A prompt whose split is
/// `known` keeps it, and its near-duplicates share it; the others are drawn by `seed`.
///
/// # Errors
/// Fewer than three clusters: each split needs one.
pub fn split(
    prompts: Vec<Prompt>,
    seed: u64,
    known: impl Fn(&Prompt) -> Option<Split>,
) -> Result<SplitPrompts, ServiceError> {
    let known: Vec<Option<Split>> = prompts.iter().map(known).collect();
    let texts: Vec<String> = prompts.iter().map(text).collect();
    let clusters = clusters(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let splits = assign(&prompts, &clusters, &known, seed)
        .ok_or(ServiceError::TooFewPrompts { different: clusters.len() })?;
    let mut parts: [Vec<Prompt>; 3] = Default::default();
    for (prompt, split) in prompts.into_iter().zip(splits) {
        let [train, validation, gate] = &mut parts;
        match split {
            Split::Gate => gate.push(prompt),
            Split::Validation => validation.push(prompt),
            Split::Train | Split::Retired => train.push(prompt),
        }
    }
    let [train, validation, gate] = parts;
    Ok(SplitPrompts { book: PromptBook::new(train, validation, gate), clusters: clusters.len() })
}

/// What the person says: a question that goes on with another conversation is another question.
fn text(prompt: &Prompt) -> String {
    let before = prompt.earlier.iter().map(|exchange| exchange.user.as_str());
    before.chain([prompt.prompt.as_str()]).collect::<Vec<_>>().join(" ")
}

/// A split for every prompt; none where a split would be empty.
fn assign(
    prompts: &[Prompt],
    clusters: &[Vec<usize>],
    known: &[Option<Split>],
    seed: u64,
) -> Option<Vec<Split>> {
    let mut splits: Vec<Option<Split>> = known.to_vec();
    let mut fresh: Vec<&Vec<usize>> = Vec::new();
    for cluster in clusters {
        match cluster.iter().find_map(|at| *known.get(*at)?) {
            Some(split) => set(&mut splits, cluster, split),
            None => fresh.push(cluster),
        }
    }
    // Drawn by what its prompts say: the order of the file does not matter.
    let drawn = |cluster: &&Vec<usize>| {
        let first = cluster.iter().filter_map(|at| prompts.get(*at)).map(Prompt::digest).min();
        first.map(|digest| Dice::new(seed, &digest.to_string(), 0).unit().to_bits())
    };
    fresh.sort_by_cached_key(drawn);
    for (split, percent) in [(Split::Gate, GATE), (Split::Validation, VALIDATION)] {
        let wanted = (prompts.len() * percent / 100).max(1);
        let mut has = splits.iter().filter(|s| **s == Some(split)).count();
        fresh.retain(|cluster| {
            let fits = has == 0 || has + cluster.len() <= wanted;
            if fits {
                set(&mut splits, cluster, split);
                has += cluster.len();
            }
            !fits
        });
    }
    let all: Vec<Split> = splits.into_iter().map(|s| s.unwrap_or(Split::Train)).collect();
    let every = [Split::Train, Split::Validation, Split::Gate];
    every.iter().all(|split| all.contains(split)).then_some(all)
}

/// Gives the prompts of a cluster that have no split yet this one.
fn set(splits: &mut [Option<Split>], cluster: &[usize], split: Split) {
    for at in cluster {
        if let Some(slot) = splits.get_mut(*at) {
            slot.get_or_insert(split);
        }
    }
}

/// Places of the texts, those of near-duplicates together; in the order of their first.
fn clusters(texts: &[&str]) -> Vec<Vec<usize>> {
    let grams = by_rarity(texts.iter().map(|text| grams(text)).collect());
    let mut parents: Vec<usize> = (0..texts.len()).collect();
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, own) in grams.iter().enumerate() {
        // Of two sets that overlap enough, these rarest members share at least one.
        let prefix = own.len() - (own.len() * ALIKE.0).div_ceil(ALIKE.1) + 1;
        for gram in own.iter().take(prefix) {
            let seen = index.entry(*gram).or_default();
            for other in seen.iter().copied() {
                let known = root(&mut parents, at) == root(&mut parents, other);
                if !known && grams.get(other).is_some_and(|other| are_alike(own, other)) {
                    join(&mut parents, at, other);
                }
            }
            seen.push(at);
        }
    }
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for at in 0..texts.len() {
        members.entry(root(&mut parents, at)).or_default().push(at);
    }
    let mut clusters: Vec<Vec<usize>> = members.into_values().collect();
    clusters.sort_unstable();
    clusters
}

/// The set of a text's grams, whatever its case, digits and spacing; a text shorter than one is
/// its own.
fn grams(text: &str) -> Vec<u64> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let plain: Vec<char> =
        words.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let hash = |gram: &[char]| {
        let mut hasher = DefaultHasher::new();
        gram.hash(&mut hasher);
        hasher.finish()
    };
    let mut grams: Vec<u64> = match plain.len() {
        0..GRAM => vec![hash(&plain)],
        _ => plain.windows(GRAM).map(hash).collect(),
    };
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// The same sets, each in the order of how many sets have the member, rarest first.
fn by_rarity(mut sets: Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    sets.iter().flatten().for_each(|gram| *counts.entry(*gram).or_default() += 1);
    let rarity = |gram: &u64| (counts.get(gram).copied().unwrap_or(0), *gram);
    sets.iter_mut().for_each(|set| set.sort_by_cached_key(rarity));
    sets
}

/// Whether shared members are at least the wanted share of all members of both.
fn are_alike(a: &[u64], b: &[u64]) -> bool {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if small.len() * ALIKE.1 < large.len() * ALIKE.0 {
        return false;
    }
    let set: std::collections::HashSet<u64> = large.iter().copied().collect();
    let shared = small.iter().filter(|gram| set.contains(gram)).count();
    shared * ALIKE.1 >= (a.len() + b.len() - shared) * ALIKE.0
}

/// The cluster that a place belongs to, by its smallest member; the way there is shortened.
fn root(parents: &mut [usize], at: usize) -> usize {
    let mut at = at;
    while let Some(parent) = parents.get(at).copied().filter(|parent| *parent != at) {
        let above = parents.get(parent).copied().unwrap_or(parent);
        if let Some(slot) = parents.get_mut(at) {
            *slot = above;
        }
        at = parent;
    }
    at
}

fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    if let Some(slot) = parents.get_mut(a.max(b)) {
        *slot = a.min(b);
    }
}

#[cfg(test)]
mod tests;
