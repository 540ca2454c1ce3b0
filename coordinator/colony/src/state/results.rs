//! What the later stages brought: masks' losses, labels, adapters, exports, judgements. All keyed,
//! so order cannot matter.

use crate::together::{Said, Shared};
use crate::{CampaignConfig, Contender, Fixed, PlannedTask, Purpose, Split, TrialRole};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uspx_domain::{
    Answer, BlobRef, Coverage, LossRow, Mask, Outcome, Pace, SaeSummary, StoredFile,
    TrainingSummary, Work,
};

/// Results by what they are about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Losses under whole masks.
    pub trials: BTreeMap<TrialRole, Trial>,
    /// Label blobs by split, then (epoch, index) of their task.
    pub labels: BTreeMap<Split, BTreeMap<(u32, u32), BlobRef>>,
    /// The mask that the labels were made with.
    pub label_mask: Option<Mask>,
    /// How much of the answers is labelled, summed over the labels whose worker says so.
    pub coverage: Coverage,
    /// New prompts that are labelled beside the person's.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dreams: u64,
    /// Adapters by recipe.
    pub adapters: BTreeMap<u32, (BlobRef, TrainingSummary)>,
    /// Trainings that several machines share, by recipe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<u32, Shared>,
    /// Exported folders.
    pub exports: BTreeMap<Contender, Vec<StoredFile>>,
    /// Sparse autoencoders by layer: the files of their folders, and what they are worth.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub saes: BTreeMap<u32, (Vec<StoredFile>, SaeSummary)>,
    /// Losses on the gate prompts, and which answers are right.
    pub judged: BTreeMap<Contender, BTreeMap<u32, Judged>>,
    /// How fast the machines that judged them wrote answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paces: BTreeMap<Contender, Pace>,
}

/// What states from before there were any have.
fn is_none(dreams: &u64) -> bool {
    *dreams == 0
}

/// A mask's losses beside the full model's, prompt by prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The mask.
    pub mask: Mask,
    /// By the prompt's place.
    pub pairs: BTreeMap<u32, Pair>,
}

/// One prompt's loss without and with a cut, from the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Nats of the full model.
    pub clean: Fixed,
    /// Nats under the cut.
    pub cut: Fixed,
    /// Response tokens.
    pub tokens: u32,
}

/// One prompt's loss, and whether the model answers it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Nats, summed.
    pub nats: Fixed,
    /// Response tokens in the model's own tokenizer.
    pub tokens: u32,
    /// The reference's UTF-8 bytes.
    pub bytes: u32,
    /// Whether the model's own answer is the reference; none where it was not to give one, or could
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<bool>,
}

impl Results {
    /// Keeps what an answer brings besides evidence on single units.
    pub(crate) fn keep(&mut self, campaign: &CampaignConfig, task: &PlannedTask, answer: &Answer) {
        let places = task.measured(campaign, &answer.skipped);
        match (&task.purpose, &answer.outcome) {
            (Purpose::Trials(roles), Outcome::Losses(rows)) => {
                self.keep_trials(&places, task.masks().zip(roles), rows);
            }
            (Purpose::Labels(_), Outcome::Labels { prompts: 0, dreams: 0, .. }) => {}
            (Purpose::Labels(split), Outcome::Labels { blob, dreams, coverage, .. }) => {
                self.dreams += u64::from(*dreams);
                let place = (task.epoch, task.index);
                self.labels.entry(*split).or_default().insert(place, *blob);
                self.label_mask = task.label_mask().cloned();
                self.coverage = self.coverage.and(*coverage);
            }
            (Purpose::Adapter(recipe), Outcome::Adapter { blob, summary }) => {
                self.adapters.insert(*recipe, (*blob, *summary));
            }
            (Purpose::Part { recipe, round, at }, Outcome::Told { told, loss, epoch, left }) => {
                let said = Said { told: *told, loss: *loss, epoch: *epoch, left: *left };
                self.shared.entry(*recipe).or_default().keep((*round, *at), said);
            }
            (Purpose::Contender(who), Outcome::Exported { files }) => {
                self.exports.insert(*who, files.clone());
            }
            (Purpose::Sae(layer), Outcome::Sae { files, summary }) => {
                self.saes.insert(*layer, (files.clone(), *summary));
            }
            (Purpose::Contender(who), Outcome::Losses(rows)) => {
                if let Some(row) = rows.first() {
                    self.keep_judged(*who, &places, row);
                }
            }
            _ => {}
        }
    }

    fn keep_trials<'a>(
        &mut self,
        prompts: &[u32],
        masks: impl Iterator<Item = (&'a Mask, &'a TrialRole)>,
        rows: &[LossRow],
    ) {
        let Some((clean, rows)) = rows.split_first() else { return };
        for ((mask, role), row) in masks.zip(rows) {
            let trial = || Trial { mask: mask.clone(), pairs: BTreeMap::new() };
            let trial = self.trials.entry(*role).or_insert_with(trial);
            trial.pairs.extend(pairs(prompts, clean, row));
        }
    }

    fn keep_judged(&mut self, who: Contender, prompts: &[u32], row: &LossRow) {
        self.judged.entry(who).or_default().extend(judged(prompts, row));
        if let Some(pace) = row.pace {
            let sum = self.paces.entry(who).or_default();
            *sum = sum.and(pace);
        }
    }

    /// Takes in what was planned of trainings that machines share.
    pub(crate) fn open_parts(&mut self, tasks: &[PlannedTask]) {
        for task in tasks {
            let (recipe, round) = match &task.purpose {
                Purpose::Part { recipe, round, .. } => (*recipe, *round),
                Purpose::Adapter(recipe) => (*recipe, 0),
                _ => continue,
            };
            if let Work::Part(part) = &task.work {
                self.shared.entry(recipe).or_default().open(round, part);
            }
        }
    }

    /// Forgets the trained adapters, and how far shared trainings have come.
    pub(crate) fn forget_adapters(&mut self) {
        self.adapters.clear();
        self.shared.clear();
    }

    /// Forgets the masks that were only tried beside the current one.
    pub(crate) fn forget_candidates(&mut self) {
        self.trials
            .retain(|role, _| !matches!(role, TrialRole::Current(_) | TrialRole::Candidate(..)));
    }

    /// Forgets all labels.
    pub(crate) fn forget_labels(&mut self) {
        self.labels.clear();
        (self.coverage, self.dreams) = (Coverage::default(), 0);
    }

    /// Forgets what was judged of masks and made of labels. The labels stay.
    pub(crate) fn forget_student(&mut self) {
        self.trials.clear();
        self.forget_adapters();
        self.exports.clear();
        self.judged.clear();
        self.paces.clear();
    }

    /// The gate prompts that every judged contender has: pooled figures over other prompts could
    /// not be compared.
    pub fn shared_prompts(&self) -> BTreeSet<u32> {
        shared(self.judged.values())
    }

    /// Rises of the loss under the masks that the campaign judges, over the prompts that `wanted`
    /// picks and all of these masks were tried on, so that they can be compared.
    pub fn rises(&self, wanted: impl Fn(u32) -> bool) -> BTreeMap<TrialRole, f64> {
        let shared = self.tried_prompts(&wanted);
        self.judged_masks(&wanted)
            .filter_map(|(role, trial)| Some((*role, trial.rise(|at| shared.contains(&at))?)))
            .collect()
    }

    /// The prompts that [`Results::rises`] is over.
    pub fn tried_prompts(&self, wanted: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        let wanted_pairs = |t: &Trial| {
            t.pairs.iter().filter(|(at, _)| wanted(**at)).map(|(at, p)| (*at, *p)).collect()
        };
        let pairs: Vec<BTreeMap<u32, Pair>> =
            self.judged_masks(&wanted).map(|(_, trial)| wanted_pairs(trial)).collect();
        shared(pairs.iter())
    }

    /// The masks that the campaign judges, as far as they were tried on a wanted prompt.
    fn judged_masks<'a>(
        &'a self,
        wanted: &'a impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = (&'a TrialRole, &'a Trial)> {
        let is_judged = |role: &TrialRole| {
            matches!(role, TrialRole::Chosen | TrialRole::Random(_) | TrialRole::Curve(_))
        };
        let tried = |trial: &Trial| trial.pairs.keys().any(|at| wanted(*at));
        self.trials.iter().filter(move |(role, trial)| is_judged(role) && tried(trial))
    }

    /// The adapter whose validation loss is lowest: (recipe, blob, summary).
    pub fn best_adapter(&self) -> Option<(u32, BlobRef, TrainingSummary)> {
        let best = self.adapters.iter().min_by(|a, b| a.1.1.after.total_cmp(&b.1.1.after))?;
        Some((*best.0, best.1.0, best.1.1))
    }
}

/// The keys that all maps with any have.
fn shared<'a, V: 'a>(maps: impl Iterator<Item = &'a BTreeMap<u32, V>>) -> BTreeSet<u32> {
    let mut maps = maps.filter(|map| !map.is_empty());
    let first: BTreeSet<u32> =
        maps.next().into_iter().flat_map(|map| map.keys().copied()).collect();
    maps.fold(first, |shared, map| shared.into_iter().filter(|at| map.contains_key(at)).collect())
}

fn pairs<'a>(
    prompts: &'a [u32],
    clean: &'a LossRow,
    cut: &'a LossRow,
) -> impl Iterator<Item = (u32, Pair)> + 'a {
    let fixed = |nats: &f32| Fixed::of(f64::from(*nats));
    prompts.iter().zip(&clean.prompts).zip(clean.nats.iter().zip(&cut.nats)).map(
        move |((at, prompt), (clean, cut))| {
            (*at, Pair { clean: fixed(clean), cut: fixed(cut), tokens: prompt.tokens })
        },
    )
}

fn judged<'a>(prompts: &'a [u32], row: &'a LossRow) -> impl Iterator<Item = (u32, Judged)> + 'a {
    let right = row.right.iter().copied().map(Some).chain(std::iter::repeat(None));
    let texts = prompts.iter().zip(&row.prompts);
    texts.zip(row.nats.iter().zip(&row.bytes)).zip(right).map(
        |(((at, prompt), (nats, bytes)), right)| {
            let nats = Fixed::of(f64::from(*nats));
            (*at, Judged { nats, tokens: prompt.tokens, bytes: *bytes, right })
        },
    )
}

impl Trial {
    /// Rise of the pooled loss under the mask, nats per response token, over the prompts that
    /// `wanted` picks.
    pub fn rise(&self, wanted: impl Fn(u32) -> bool) -> Option<f64> {
        let picked = || self.pairs.iter().filter(|(at, _)| wanted(**at)).map(|(_, pair)| pair);
        let tokens: u64 = picked().map(|p| u64::from(p.tokens)).sum();
        let rise: Fixed = picked().map(|p| p.cut - p.clean).sum();
        (tokens > 0).then(|| rise.to_f64() / tokens as f64)
    }
}
