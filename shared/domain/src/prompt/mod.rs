//! The person's own prompts (ErrBench). `lines` reads files of them, `chat` what is written as a
//! conversation.

mod chat;
mod lines;

pub use lines::{PromptError, PromptFormat, PromptSet, Repetition, parse_prompts};

use crate::Digest;
use serde::{Deserialize, Serialize};

/// Hex digits of a digest that make a name: among a million prompts two are alike once in ten
/// million times.
const ID_DIGITS: usize = 16;

/// One prompt: what is asked, after what, and the good answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// A name unique in its file.
    pub id: String,
    /// What the person asks.
    pub prompt: String,
    /// The good answer, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// A system message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Free labels, for splits of reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What was said before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Exchange>,
}

/// What the person said once, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The person's words.
    pub user: String,
    /// The answer.
    pub assistant: String,
}

impl Prompt {
    /// What it says, whatever it is called: the digest of prompt, reference, system message and what
    /// was said before. An edited prompt is another prompt.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let parts = [Some(&self.prompt), self.reference.as_ref(), self.system.as_ref()];
        let before = self.earlier.iter().flat_map(|e| [Some(&e.user), Some(&e.assistant)]);
        for text in parts.into_iter().chain(before) {
            // Lengths keep the parts apart; 0 stands for a part that is not there.
            let length = text.map_or(0, |t| t.len() as u64 + 1);
            hasher.update(&length.to_le_bytes());
            hasher.update(text.map_or("", String::as_str).as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// A name made of what it says: the same wherever it stands.
    pub fn made_id(&self) -> String {
        self.digest().hex().chars().take(ID_DIGITS).collect()
    }

    /// Every text that a person wrote in it, as (what it is, text).
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let said = self.earlier.iter().flat_map(|e| [&e.user, &e.assistant]);
        let own = [
            ("system message", self.system.as_deref()),
            ("prompt", Some(self.prompt.as_str())),
            ("reference", self.reference.as_deref()),
        ];
        let own = own.into_iter().filter_map(|(what, text)| Some((what, text?)));
        own.chain(said.map(|text| ("earlier turn", text.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_prompt_is_another_prompt_and_a_renamed_one_is_not() {
        let one = Prompt {
            id: "a".into(),
            prompt: "list".into(),
            reference: Some("ls".into()),
            ..Prompt::default()
        };
        let renamed = Prompt { id: "b".into(), tags: vec!["x".into()], ..one.clone() };
        assert_eq!((one.digest(), one.made_id()), (renamed.digest(), renamed.made_id()));
        let said = |user: &str, assistant: &str| {
            vec![Exchange { user: user.into(), assistant: assistant.into() }]
        };
        let others = [
            Prompt { prompt: "listl".into(), reference: Some("s".into()), ..one.clone() },
            Prompt { reference: None, ..one.clone() },
            Prompt { reference: None, system: Some("ls".into()), ..one.clone() },
            Prompt { system: Some(String::new()), ..one.clone() },
            Prompt { earlier: said("a", "b"), ..one.clone() },
            Prompt { earlier: said("ab", ""), ..one.clone() },
        ];
        let digests: std::collections::HashSet<Digest> =
            others.iter().chain([&one]).map(Prompt::digest).collect();
        assert_eq!(digests.len(), others.len() + 1);
        assert!(others.iter().all(|other| other.made_id() != one.made_id()));
    }

    /// Ledgers keep digests: one of a prompt without earlier turns is what it always was.
    #[test]
    fn a_digest_is_what_ledgers_keep() {
        let one = Prompt {
            id: "a".into(),
            prompt: "list".into(),
            reference: Some("ls".into()),
            ..Prompt::default()
        };
        let mut bytes = 5u64.to_le_bytes().to_vec();
        bytes.extend(b"list");
        bytes.extend(3u64.to_le_bytes());
        bytes.extend(b"ls");
        bytes.extend(0u64.to_le_bytes());
        assert_eq!(one.digest(), Digest::of(&bytes));
        assert_eq!(one.made_id().len(), ID_DIGITS);
    }

    #[test]
    fn every_text_is_looked_at() {
        let whole = Prompt {
            id: "not a text".into(),
            prompt: "p".into(),
            reference: Some("r".into()),
            system: Some("s".into()),
            tags: vec![],
            earlier: vec![Exchange { user: "u".into(), assistant: "a".into() }],
        };
        let texts: String = whole.texts().map(|(_, text)| text).collect();
        assert_eq!(texts, "sprua");
    }
}
