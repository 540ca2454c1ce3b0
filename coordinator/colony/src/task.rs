//! Tasks as the ledger knows them: prompts by their place in the campaign, never their text
//! (invariant 7).

use crate::{CampaignConfig, Contender, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uspx_domain::{Cut, Digest, Fingerprint, Mask, Prompt, Skipped, Task, TaskId, Work};

/// A task without its prompts' text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Derived from the campaign's identity and all below: planning again names it the same, and
    /// other content never bears its name.
    pub id: TaskId,
    /// The batch of evidence that it belongs to.
    pub epoch: u32,
    /// Its place in that batch, from 0.
    pub index: u32,
    /// The model it is about.
    pub model: Fingerprint,
    /// What its answer is for.
    pub purpose: Purpose,
    /// What to do; prompts are places in [`CampaignConfig::prompts`].
    pub work: Work<u32>,
}

/// What a task's answer is for, and so where the state keeps it. Workers are not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Evidence on single units.
    Evidence,
    /// Losses under masks: what each of the work's cuts is.
    Trials(Vec<TrialRole>),
    /// Labels of a split.
    Labels(Split),
    /// The adapter of a recipe, by its place in the campaign's list.
    Adapter(u32),
    /// A machine's part of a round of a recipe's training, which several machines share.
    Part {
        /// The recipe, by its place in the campaign's list.
        recipe: u32,
        /// The round, from 0.
        round: u32,
        /// The machine, from 0.
        at: u32,
    },
    /// The sparse autoencoder of a layer.
    Sae(u32),
    /// A model in the final comparison: its files, or its losses.
    Contender(Contender),
}

/// What a mask under trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialRole {
    /// A round's mask of the day, beside its candidates.
    Current(u32),
    /// A mask near the current one: round and number.
    Candidate(u32, u32),
    /// The mask that the colony stands by.
    Chosen,
    /// A random mask of the same size and rule.
    Random(u32),
    /// A point of the curve: millionths pruned.
    Curve(u32),
}

/// A planned task's prompt cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The campaign has no prompt at that place.
    #[error(
        "task {0} names prompt {1}, which the campaign does not have: the ledger is of another version"
    )]
    NoSuchPrompt(TaskId, u32),
    /// The text is not at hand.
    #[error(
        "the text of prompt `{0}` is missing: start the coordinator with the prompt file of its campaign"
    )]
    NoText(String),
    /// The text is another one than the campaign began with.
    #[error(
        "prompt `{0}` was edited since its campaign began: start the coordinator with the prompts as they were, \
         or begin a new campaign under another name"
    )]
    Edited(String),
}

impl PlannedTask {
    /// Names and places a piece of work of the campaign that `identity` stands for.
    pub fn new(
        identity: Digest,
        (epoch, index): (u32, u32),
        (model, purpose, work): (Fingerprint, Purpose, Work<u32>),
    ) -> Self {
        let content = (identity, epoch, index, model, &purpose, &work);
        let id = TaskId::derived(&rmp_serde::to_vec_named(&content).unwrap_or_default());
        Self { id, epoch, index, model, purpose, work }
    }

    /// The places of the prompts that an answer's numbers are about, in order: the work's without
    /// the skipped ones.
    pub fn measured(&self, campaign: &CampaignConfig, skipped: &[Skipped]) -> Vec<u32> {
        let skipped: BTreeSet<&str> = skipped.iter().map(|s| s.id.as_str()).collect();
        let is_measured = |at: &u32| campaign.id(*at).is_some_and(|id| !skipped.contains(id));
        self.work.prompts().iter().copied().filter(is_measured).collect()
    }

    /// The masks that the work cuts by, in order.
    pub(crate) fn masks(&self) -> impl Iterator<Item = &Mask> {
        let cuts = if let Work::Ablate(ablate) = &self.work { ablate.cuts.as_slice() } else { &[] };
        cuts.iter().filter_map(|cut| if let Cut::Mask(mask) = cut { Some(mask) } else { None })
    }

    /// The mask that labels are made with.
    pub(crate) fn label_mask(&self) -> Option<&Mask> {
        if let Work::Label(label) = &self.work { label.mask.as_ref() } else { None }
    }

    /// The task with its prompts' text, as it goes to a worker.
    ///
    /// # Errors
    /// A prompt that the campaign or `text` does not know.
    pub fn attach(
        &self,
        campaign: &CampaignConfig,
        text: impl Fn(&str) -> Option<Prompt>,
    ) -> Result<Task, AttachError> {
        let prompts = self.work.prompts().iter().map(|at| {
            let entry = campaign.prompts.get(*at as usize);
            let entry = entry.ok_or(AttachError::NoSuchPrompt(self.id, *at))?;
            match text(&entry.id) {
                None => Err(AttachError::NoText(entry.id.clone())),
                Some(text) if text.digest() != entry.digest => {
                    Err(AttachError::Edited(entry.id.clone()))
                }
                Some(text) => Ok(text),
            }
        });
        let work = self.work.clone().on(prompts.collect::<Result<_, _>>()?);
        Ok(Task { id: self.id, epoch: self.epoch, model: self.model, work })
    }
}
