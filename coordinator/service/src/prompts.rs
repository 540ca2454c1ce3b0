//! The person's prompts, by id. Their text leaves the coordinator only inside tasks (invariant 7).

use crate::ServiceError;
use crate::split::split;
use std::collections::HashMap;
use uspx_colony::{CampaignConfig, PromptEntry, Split};
use uspx_domain::{Digest, Prompt};

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
        split_as(prompts, seed, &known(campaign))
    }
}

/// Splits by id and digest.
type Known = HashMap<(String, Digest), Split>;

/// The prompts in their splits: those that are known, and others drawn.
fn split_as(prompts: Vec<Prompt>, seed: u64, known: &Known) -> Result<PromptBook, ServiceError> {
    let of = |prompt: &Prompt| known.get(&(prompt.id.clone(), prompt.digest())).copied();
    Ok(split(prompts, seed, of)?.book)
}

/// Those that a campaign's prompts have.
fn known(campaign: Option<&CampaignConfig>) -> Known {
    let live = campaign.into_iter().flat_map(CampaignConfig::live);
    live.map(|(_, entry)| ((entry.id.clone(), entry.digest), entry.split)).collect()
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

    /// The same and others, each of which gets a split as those of one file do ([`crate::split`]), unless it has one
    /// by the campaign. One under the name of another takes its place.
    ///
    /// # Errors
    /// They cannot be split.
    pub fn with(
        self,
        added: Vec<Prompt>,
        seed: u64,
        campaign: Option<&CampaignConfig>,
    ) -> Result<Self, ServiceError> {
        if added.is_empty() {
            return Ok(self);
        }
        let mut known = known(campaign);
        known.extend(self.entries.iter().map(|e| ((e.id.clone(), e.digest), e.split)));
        let mut order: Vec<String> = self.entries.iter().map(|e| e.id.clone()).collect();
        let mut texts = self.texts;
        for prompt in added {
            if !texts.contains_key(&prompt.id) {
                order.push(prompt.id.clone());
            }
            texts.insert(prompt.id.clone(), prompt);
        }
        let prompts = order.iter().filter_map(|id| texts.remove(id)).collect();
        split_as(prompts, seed, &known)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(id: &str, text: &str) -> Prompt {
        Prompt { id: id.into(), prompt: text.into(), ..Prompt::default() }
    }

    fn book() -> PromptBook {
        let of = |kind: &str, count: u32| {
            let text = |at| format!("{kind} number {at} is about {}", at * 7919 % 1000);
            (0..count).map(|at| prompt(&format!("{kind}{at}"), &text(at))).collect()
        };
        PromptBook::new(of("train", 8), of("validation", 1), of("gate", 1))
    }

    #[test]
    fn what_is_added_leaves_the_others_where_they_are() {
        let words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"];
        let new =
            |at: usize| prompt(&format!("n{at}"), &words.map(|w| format!("{w}{at}")).join(" "));
        let added: Vec<Prompt> = (0..40).map(new).collect();
        let grown = book().with(added.clone(), 1, None).unwrap();
        assert_eq!(grown.entries().len(), 50);
        for entry in book().entries() {
            assert!(grown.entries().contains(&entry), "{entry:?}");
        }
        let again = grown.clone().with(added, 1, None).unwrap();
        assert_eq!(again.entries(), grown.entries(), "what is there changes nothing");
    }

    #[test]
    fn one_under_the_name_of_another_takes_its_place() {
        let edited = prompt("train3", "something else altogether");
        let grown = book().with(vec![edited.clone()], 1, None).unwrap();
        assert_eq!(grown.entries().len(), 10);
        assert_eq!(grown.get("train3"), Some(edited));
    }
}
