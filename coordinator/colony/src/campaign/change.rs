//! A campaign goes on under another configuration: which prompts come and go, and what of the
//! measurements stands.
//!
//! Evidence names prompts by their place, so places are for ever: a prompt that is gone or edited
//! keeps its place as [`Split::Retired`], new ones come after all others.

use super::{CampaignConfig, PromptEntry, Split};
use std::collections::BTreeMap;
use uspx_domain::Digest;

/// A generation is small that is less than this part of all train prompts.
const SMALL: usize = 10;

/// How a campaign goes on where another configuration is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is the same.
    Nothing,
    /// The campaign goes on under this one; what it has measured of the teacher stays.
    Amend(Box<CampaignConfig>),
    /// Another campaign: it has another name, another teacher or cuts another kind of unit.
    Anew,
}

/// What `wanted` changes of the campaign `old`.
pub fn change(old: &CampaignConfig, wanted: &CampaignConfig) -> Change {
    let subject = |c: &CampaignConfig| (c.name.clone(), c.teacher, c.shape.clone(), c.mask.kind);
    if subject(old) != subject(wanted) {
        return Change::Anew;
    }
    let merged = CampaignConfig { prompts: merge(&old.prompts, &wanted.prompts), ..wanted.clone() };
    if merged == *old { Change::Nothing } else { Change::Amend(Box::new(merged)) }
}

/// The prompts of `old` at their places, what is not `wanted` any more retired, then the new ones.
fn merge(old: &[PromptEntry], wanted: &[PromptEntry]) -> Vec<PromptEntry> {
    let key = |entry: &PromptEntry| -> (String, Digest) { (entry.id.clone(), entry.digest) };
    let mut left: BTreeMap<_, &PromptEntry> = wanted.iter().map(|w| (key(w), w)).collect();
    let stays = |entry: &PromptEntry| match left.remove(&key(entry)) {
        Some(wanted) => PromptEntry { generation: entry.generation, ..wanted.clone() },
        None => PromptEntry { split: Split::Retired, ..entry.clone() },
    };
    let mut merged: Vec<PromptEntry> = old.iter().map(stays).collect();
    let generation = generation(&merged);
    let new = wanted.iter().filter(|w| left.contains_key(&key(w)));
    merged.extend(new.map(|entry| PromptEntry { generation, ..entry.clone() }));
    merged
}

/// Of prompts that are added to these. A latest one that is small still takes them in: a few prompts make no stratum.
fn generation(prompts: &[PromptEntry]) -> u32 {
    let train = || prompts.iter().filter(|p| p.split == Split::Train);
    let latest = prompts.iter().map(|p| p.generation).max().unwrap_or(0);
    let size = train().filter(|p| p.generation == latest).count();
    if latest > 0 && size < train().count() / SMALL { latest } else { latest + 1 }
}

/// What stands of a campaign under another configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stands {
    /// The mask, drawn from the evidence there is.
    pub mask: bool,
    /// That the mask was stable: with a larger budget it must show so again.
    pub stability: bool,
    /// What masks cost.
    pub judged_masks: bool,
    /// The sparse autoencoders, as far as they are wanted still.
    pub saes: bool,
    /// The teacher's labels.
    pub labels: bool,
    /// The trained adapters.
    pub adapters: bool,
    /// The 4-bit students.
    pub exports: bool,
    /// What students score.
    pub judged_students: bool,
    /// All but what is made beside it: only the sparse autoencoders that are asked for differ.
    pub beside: bool,
    /// The campaign's end: only how far workers are trusted differs.
    pub ending: bool,
}

impl Stands {
    /// Compares two configurations of one campaign; both have the same prompts at the same places.
    pub fn between(old: &CampaignConfig, new: &CampaignConfig) -> Self {
        let (old, new) = (&old.without_sizes(), &new.without_sizes());
        let same = |split| old.split(split) == new.split(split);
        let (train, validation) = (same(Split::Train), same(Split::Validation));
        let mask = old.mask == new.mask && old.seed == new.seed;
        let measured = mask && train && old.probe == new.probe && old.mind == new.mind;
        let labels = old.labelling() == new.labelling() && kept(old, new);
        // What labels may be made with hangs on the mask and on how it is judged.
        let saes = train && validation && old.sae.recipe == new.sae.recipe;
        let learnt = train && validation && measured && old.judge == new.judge && labels;
        let students = (old.student, &old.distil.recipes, old.distil.nf4)
            == (new.student, &new.distil.recipes, new.distil.nf4);
        let adapters = learnt && students && old.together == new.together;
        let rounding = |of: &CampaignConfig| (of.distil.calibration, of.finish.passes);
        let exports = adapters && rounding(old) == rounding(new);
        let judged_students = exports && same(Split::Gate);
        let judged_masks = measured && old.judge == new.judge && validation && same(Split::Gate);
        let but_trust = CampaignConfig { trust: old.trust.clone(), ..new.clone() };
        let but_saes = CampaignConfig { sae: old.sae.clone(), ..but_trust.clone() };
        Self {
            mask,
            stability: mask && old.probe.exact_pairs >= new.probe.exact_pairs,
            judged_masks,
            saes,
            labels,
            adapters,
            exports,
            judged_students,
            beside: but_saes == *old,
            ending: but_trust == *old,
        }
    }
}

/// Whether every prompt that was labelled still is to be: labels lie together in blobs.
fn kept(old: &CampaignConfig, new: &CampaignConfig) -> bool {
    let labelled = |split| matches!(split, Split::Train | Split::Validation);
    let pairs = old.prompts.iter().zip(&new.prompts);
    pairs.filter(|(old, _)| labelled(old.split)).all(|(old, new)| old.split == new.split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Share;
    use uspx_domain::Fingerprint;

    fn entry(id: &str, text: &str, split: Split) -> PromptEntry {
        PromptEntry {
            id: id.into(),
            digest: Digest::of(text.as_bytes()),
            split,
            tags: vec![],
            generation: 0,
        }
    }

    fn config(prompts: Vec<PromptEntry>) -> CampaignConfig {
        let model = |name: &str| Fingerprint(Digest::of(name.as_bytes()));
        let shape = crate::test_shape(2, 8);
        CampaignConfig::new("c", (model("teacher"), shape), model("student"), prompts)
    }

    fn three() -> Vec<PromptEntry> {
        vec![
            entry("t", "one", Split::Train),
            entry("v", "two", Split::Validation),
            entry("g", "three", Split::Gate),
        ]
    }

    fn amended(old: &CampaignConfig, wanted: &CampaignConfig) -> CampaignConfig {
        match change(old, wanted) {
            Change::Amend(merged) => *merged,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_are_for_ever() {
        let old = config(three());
        let mut wanted = config(three());
        wanted.prompts.remove(1);
        wanted.prompts[0] = entry("t", "one, edited", Split::Train);
        wanted.prompts.push(entry("v2", "four", Split::Validation));
        let merged = amended(&old, &wanted);
        let splits: Vec<Split> = merged.prompts.iter().map(|p| p.split).collect();
        let (retired, gate) = (Split::Retired, Split::Gate);
        assert_eq!(splits, [retired, retired, gate, Split::Train, Split::Validation]);
        assert_eq!(merged.id(3), Some("t"));
        assert_eq!(merged.check(), Ok(()), "a retired prompt's id may be another's");
        // What comes back takes its old place again.
        let back = amended(&merged, &old);
        let live: Vec<&str> = back.live().map(|(_, p)| p.id.as_str()).collect();
        assert_eq!((live, back.prompts.len()), (vec!["t", "v", "g"], 5));
        assert_eq!(change(&back, &old), Change::Nothing);
    }

    #[test]
    fn another_name_teacher_or_kind_is_another_campaign() {
        let old = config(three());
        assert_eq!(change(&old, &old.clone()), Change::Nothing);
        let of = |change_it: fn(&mut CampaignConfig)| {
            let mut wanted = old.clone();
            change_it(&mut wanted);
            change(&old, &wanted)
        };
        assert_eq!(of(|c| c.name = "d".into()), Change::Anew);
        assert_eq!(of(|c| c.teacher = Fingerprint(Digest::of(b"x"))), Change::Anew);
        assert_eq!(of(|c| c.mask.kind = uspx_domain::UnitKind::Head), Change::Anew);
        assert!(matches!(of(|c| c.student = None), Change::Amend(_)));
    }

    #[test]
    fn each_setting_undoes_what_rests_on_it_and_no_more() {
        let old = config(three());
        let of = |change_it: fn(&mut CampaignConfig)| {
            let mut wanted = old.clone();
            change_it(&mut wanted);
            let s = Stands::between(&old, &amended(&old, &wanted));
            [s.mask, s.judged_masks, s.labels, s.adapters, s.exports, s.judged_students, s.ending]
        };
        let (y, n) = (true, false);
        assert_eq!(of(|c| c.mask.keep = Share::percent(40)), [n, n, y, n, n, n, n]);
        assert_eq!(of(|c| c.probe.exact_pairs += 1), [y, n, y, n, n, n, n]);
        assert_eq!(of(|c| c.mind.rounds += 1), [y, n, y, n, n, n, n]);
        assert_eq!(of(|c| c.judge.random_masks += 1), [y, n, y, n, n, n, n]);
        assert_eq!(of(|c| c.distil.top_k += 1), [y, y, n, n, n, n, n]);
        assert_eq!(of(|c| c.answers.samples = 4), [y, y, n, n, n, n, n]);
        assert_eq!(of(|c| c.distil.recipes.truncate(1)), [y, y, y, n, n, n, n]);
        assert_eq!(of(|c| c.distil.nf4 = true), [y, y, y, n, n, n, n]);
        assert_eq!(of(|c| c.student = None), [y, y, y, n, n, n, n]);
        assert_eq!(of(|c| c.together.machines = 3), [y, y, y, n, n, n, n]);
        assert_eq!(of(|c| c.together.steps += 1), [y; 7], "no training has rounds");
        assert_eq!(of(|c| c.distil.calibration += 1), [y, y, y, y, n, n, n]);
        assert_eq!(of(|c| c.finish.passes += 1), [y, y, y, y, n, n, n]);
        assert_eq!(of(|c| c.distil.resamples += 1), [y, y, y, y, y, y, n]);
        assert_eq!(of(|c| c.trust.ahead += 1), [y; 7]);
        assert_eq!(of(|c| c.distil.hours_a_day = 2.0), [y; 7], "what is made is the same");
        assert_eq!(of(|c| c.sae.layers.push(1)), [y, y, y, y, y, y, n], "nothing rests on them");
        let saes = |change_it: fn(&mut CampaignConfig)| {
            let mut wanted = old.clone();
            change_it(&mut wanted);
            Stands::between(&old, &amended(&old, &wanted)).saes
        };
        assert!(saes(|c| c.mask.keep = Share::percent(40)) && saes(|c| c.sae.layers.push(1)));
        assert!(!saes(|c| c.sae.recipe.k += 1));
        let more = |split| move |c: &mut CampaignConfig| c.prompts.push(entry("n", "new", split));
        let with = |split| {
            let mut wanted = old.clone();
            more(split)(&mut wanted);
            Stands::between(&old, &amended(&old, &wanted))
        };
        assert!(with(Split::Train).labels && !with(Split::Train).adapters);
        let gate = with(Split::Gate);
        assert!(gate.exports && !gate.judged_students && !gate.judged_masks);
        let without = CampaignConfig { prompts: three()[1..].to_vec(), ..old.clone() };
        assert!(!Stands::between(&old, &amended(&old, &without)).labels, "they hold the prompt");
    }
}
