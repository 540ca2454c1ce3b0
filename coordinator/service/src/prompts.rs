//! The person's prompts, by id. Their text leaves the coordinator only inside tasks (invariant 7).

use std::collections::HashMap;
use uspx_colony::{PromptEntry, Split};
use uspx_domain::Prompt;

/// All prompts of a colony, with what each may be used for.
#[derive(Clone, Default)]
pub struct PromptBook {
    entries: Vec<PromptEntry>,
    texts: HashMap<String, Prompt>,
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
                book.texts.insert(prompt.id.clone(), prompt);
            }
        }
        book
    }

    /// What the ledger knows of the prompts: never their text.
    pub fn entries(&self) -> Vec<PromptEntry> {
        self.entries.clone()
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
