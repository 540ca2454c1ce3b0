//! The person's prompts, by id. Their text leaves the coordinator only inside tasks (invariant 7).

use crate::ServiceError;
use crate::split::split;
use std::collections::HashMap;
use uspx_colony::{CampaignConfig, PromptEntry, Split};
use uspx_domain::Prompt;

/// The prompts that a coordinator is started with.
#[derive(Debug, Clone)]
pub enum Prompts {
    /// Split by the person.
    Split(PromptBook),
    /// To be split here ([`crate::split`]); those that the ledger knows keep their split.
    Together(Vec<Prompt>),
}

impl From<PromptBook> for Prompts {
    fn from(book: PromptBook) -> Self {
        Self::Split(book)
    }
}

impl Prompts {
    /// The prompts in their splits, those of `campaign` as they were.
    ///
    /// # Errors
    /// They cannot be split.
    pub fn book(
        self,
        seed: u64,
        campaign: Option<&CampaignConfig>,
    ) -> Result<PromptBook, ServiceError> {
        let prompts = match self {
            Self::Split(book) => return Ok(book),
            Self::Together(prompts) => prompts,
        };
        let known: HashMap<_, Split> = campaign
            .into_iter()
            .flat_map(CampaignConfig::live)
            .map(|(_, entry)| ((entry.id.clone(), entry.digest), entry.split))
            .collect();
        let of = |prompt: &Prompt| known.get(&(prompt.id.clone(), prompt.digest())).copied();
        Ok(split(prompts, seed, of)?.book)
    }
}

/// All prompts of a colony, with what each may be used for.
#[derive(Clone, Default)]
pub struct PromptBook {
    entries: Vec<PromptEntry>,
    texts: HashMap<String, Prompt>,
    conversations: bool,
}

impl PromptBook {
    /// A book of the three splits. The order within a split is kept.
    pub fn new(train: Vec<Prompt>, validation: Vec<Prompt>, gate: Vec<Prompt>) -> Self {
        let mut book = Self::default();
        for (split, prompts) in
            [(Split::Train, train), (Split::Validation, validation), (Split::Gate, gate)]
        {
            for prompt in prompts {
                book.entries.push(PromptEntry::of(&prompt, split));
                book.conversations |= !prompt.earlier.is_empty();
                book.texts.insert(prompt.id.clone(), prompt);
            }
        }
        book
    }

    /// What the ledger knows of the prompts: never their text.
    pub fn entries(&self) -> Vec<PromptEntry> {
        self.entries.clone()
    }

    /// How many prompts a split has.
    pub fn count(&self, split: Split) -> usize {
        self.entries.iter().filter(|entry| entry.split == split).count()
    }

    /// The prompts of a split, in their order.
    pub fn of(&self, split: Split) -> Vec<Prompt> {
        let entries = self.entries.iter().filter(|entry| entry.split == split);
        entries.filter_map(|entry| self.get(&entry.id)).collect()
    }

    /// Whether a prompt has earlier turns.
    pub fn has_conversations(&self) -> bool {
        self.conversations
    }

    /// A prompt's text.
    pub fn get(&self, id: &str) -> Option<Prompt> {
        self.texts.get(id).cloned()
    }
}

impl std::fmt::Debug for PromptBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the texts.
        f.debug_struct("PromptBook").field("prompts", &self.entries.len()).finish_non_exhaustive()
    }
}
