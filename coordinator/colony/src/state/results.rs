//! What the later stages brought: masks' losses, labels, adapters, exports, judgements. All keyed, so order cannot matter.

use crate::{Contender, CutRole, Fixed, PlannedCut, PlannedTask, PlannedWork, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::{BlobRef, Cut, LossRow, Mask, Outcome, StoredFile, TrainingSummary};

/// Results by what they are about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Losses under whole masks.
    pub trials: BTreeMap<CutRole, Trial>,
    /// Label blobs by split, then (epoch, index) of their task.
    pub labels: BTreeMap<Split, BTreeMap<(u32, u32), BlobRef>>,
    /// The mask that the labels were made with.
    pub label_mask: Option<Mask>,
    /// Adapters by recipe.
    pub adapters: BTreeMap<u32, (BlobRef, TrainingSummary)>,
    /// Exported folders.
    pub exports: BTreeMap<Contender, Vec<StoredFile>>,
    /// Losses on the gate prompts.
    pub judged: BTreeMap<Contender, BTreeMap<u32, Judged>>,
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

/// One prompt's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Nats, summed.
    pub nats: Fixed,
    /// Response tokens in the model's own tokenizer.
    pub tokens: u32,
    /// The reference's UTF-8 bytes.
    pub bytes: u32,
}

impl Results {
    /// Keeps what an answer brings besides evidence on single units.
    pub(crate) fn keep(&mut self, task: &PlannedTask, outcome: &Outcome) {
        match (&task.work, outcome) {
            (PlannedWork::Ablate { prompts, cuts }, Outcome::Losses(rows)) => self.keep_trials(prompts, cuts, rows),
            (PlannedWork::Label { split, mask, .. }, Outcome::Labels { blob, .. }) => {
                self.labels.entry(*split).or_default().insert((task.epoch, task.index), *blob);
                self.label_mask.clone_from(mask);
            }
            (PlannedWork::Distil { number, .. }, Outcome::Adapter { blob, summary }) => {
                self.adapters.insert(*number, (*blob, *summary));
            }
            (PlannedWork::Export { format, .. }, Outcome::Exported { files }) => {
                self.exports.insert((*format).into(), files.clone());
            }
            (PlannedWork::Judge { prompts, contender, .. }, Outcome::Losses(rows)) => {
                if let Some(row) = rows.first() {
                    self.judged.entry(*contender).or_default().extend(judged(prompts, row));
                }
            }
            _ => {}
        }
    }

    fn keep_trials(&mut self, prompts: &[u32], cuts: &[PlannedCut], rows: &[LossRow]) {
        let Some((clean, rows)) = rows.split_first() else { return };
        for (planned, row) in cuts.iter().zip(rows) {
            if let Cut::Mask(mask) = &planned.cut {
                let trial = || Trial { mask: mask.clone(), pairs: BTreeMap::new() };
                self.trials.entry(planned.role).or_insert_with(trial).pairs.extend(pairs(prompts, clean, row));
            }
        }
    }

    /// Forgets the masks that were only tried beside the current one.
    pub(crate) fn forget_candidates(&mut self) {
        self.trials.retain(|role, _| !matches!(role, CutRole::Current(_) | CutRole::Candidate(..)));
    }

    /// The adapter whose validation loss is lowest: (recipe, blob, summary).
    pub fn best_adapter(&self) -> Option<(u32, BlobRef, TrainingSummary)> {
        let best = self.adapters.iter().min_by(|a, b| a.1.1.after.total_cmp(&b.1.1.after))?;
        Some((*best.0, best.1.0, best.1.1))
    }
}

fn pairs<'a>(prompts: &'a [u32], clean: &'a LossRow, cut: &'a LossRow) -> impl Iterator<Item = (u32, Pair)> + 'a {
    let fixed = |nats: &f32| Fixed::of(f64::from(*nats));
    prompts.iter().zip(&clean.prompts).zip(clean.nats.iter().zip(&cut.nats)).map(move |((at, prompt), (clean, cut))| {
        (*at, Pair { clean: fixed(clean), cut: fixed(cut), tokens: prompt.tokens })
    })
}

fn judged<'a>(prompts: &'a [u32], row: &'a LossRow) -> impl Iterator<Item = (u32, Judged)> + 'a {
    prompts.iter().zip(&row.prompts).zip(row.nats.iter().zip(&row.bytes)).map(|((at, prompt), (nats, bytes))| {
        (*at, Judged { nats: Fixed::of(f64::from(*nats)), tokens: prompt.tokens, bytes: *bytes })
    })
}

impl Trial {
    /// Rise of the pooled loss under the mask, nats per response token, over the prompts that `wanted` picks.
    pub fn rise(&self, wanted: impl Fn(u32) -> bool) -> Option<f64> {
        let picked = || self.pairs.iter().filter(|(at, _)| wanted(**at)).map(|(_, pair)| pair);
        let tokens: u64 = picked().map(|p| u64::from(p.tokens)).sum();
        let rise: Fixed = picked().map(|p| p.cut - p.clean).sum();
        (tokens > 0).then(|| rise.to_f64() / tokens as f64)
    }
}
