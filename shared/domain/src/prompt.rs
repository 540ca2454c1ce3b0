//! The person's own prompts (ErrBench) and their JSON-lines form.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// One prompt, as a line of a prompt file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Prompt {
    /// What it says, whatever it is called: the digest of prompt, reference and system message. An
    /// edited prompt is another prompt.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for text in [Some(&self.prompt), self.reference.as_ref(), self.system.as_ref()] {
            // Lengths keep the parts apart; 0 stands for a part that is not there.
            let length = text.map_or(0, |t| t.len() as u64 + 1);
            hasher.update(&length.to_le_bytes());
            hasher.update(text.map_or("", String::as_str).as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// What is wrong with a prompt file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// A line is not a prompt.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No prompt at all.
    #[error("no prompts: the file has no non-empty line that could be used")]
    Empty,
}

/// Prompts and what was wrong with the lines that were skipped.
#[derive(Debug, Clone, Default)]
pub struct PromptSet {
    /// The good lines, in file order.
    pub prompts: Vec<Prompt>,
    /// The bad lines (only when skipping was asked for).
    pub skipped: Vec<PromptError>,
}

fn parse_line(line: usize, text: &str, seen: &mut HashSet<String>) -> Result<Prompt, PromptError> {
    let bad = |reason: String| PromptError::Line { line, reason };
    let prompt: Prompt = serde_json::from_str(text).map_err(|e| bad(reason(&e)))?;
    if prompt.id.trim().is_empty() {
        return Err(bad("`id` is empty".into()));
    }
    if prompt.prompt.trim().is_empty() {
        return Err(bad("`prompt` is empty".into()));
    }
    if prompt.reference.as_deref().is_some_and(|r| r.trim().is_empty()) {
        return Err(bad("`reference` is empty: leave it out instead".into()));
    }
    if !seen.insert(prompt.id.clone()) {
        return Err(bad(format!("`id` {} stands on an earlier line too", prompt.id)));
    }
    Ok(prompt)
}

/// What serde says, without its own line number: the text is one line of the file.
fn reason(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or(&whole);
    format!("{what} (column {})", error.column())
}

/// Reads a prompt file's text.
///
/// Blank lines are passed over. A bad line ends the reading, or is collected where `skip_bad` is
/// set.
///
/// # Errors
/// The first bad line with its number and reason, or [`PromptError::Empty`].
pub fn parse_prompts(text: &str, skip_bad: bool) -> Result<PromptSet, PromptError> {
    let mut set = PromptSet::default();
    let mut seen = HashSet::new();
    for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match parse_line(at + 1, line, &mut seen) {
            Ok(prompt) => set.prompts.push(prompt),
            Err(error) if skip_bad => set.skipped.push(error),
            Err(error) => return Err(error),
        }
    }
    if set.prompts.is_empty() { Err(PromptError::Empty) } else { Ok(set) }
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
            system: None,
            tags: vec![],
        };
        let renamed = Prompt { id: "b".into(), tags: vec!["x".into()], ..one.clone() };
        assert_eq!(one.digest(), renamed.digest());
        let others = [
            Prompt { prompt: "listl".into(), reference: Some("s".into()), ..one.clone() },
            Prompt { reference: None, ..one.clone() },
            Prompt { reference: None, system: Some("ls".into()), ..one.clone() },
            Prompt { system: Some(String::new()), ..one.clone() },
        ];
        assert!(others.iter().all(|other| other.digest() != one.digest()));
    }

    #[test]
    fn a_broken_line_is_named_with_its_number() {
        let text = "{\"id\":\"a\",\"prompt\":\"x\"}\n\n{\"id\":\"b\"\n";
        let error = parse_prompts(text, false).unwrap_err();
        assert!(matches!(error, PromptError::Line { line: 3, .. }), "{error}");
        let set = parse_prompts(text, true).unwrap();
        assert_eq!((set.prompts.len(), set.skipped.len()), (1, 1));
    }

    #[test]
    fn duplicates_and_empty_sets_are_refused() {
        let twice = "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"y\"}";
        assert!(matches!(parse_prompts(twice, false), Err(PromptError::Line { line: 2, .. })));
        assert_eq!(parse_prompts("\n \n", false).unwrap_err(), PromptError::Empty);
        assert_eq!(parse_prompts("nonsense", true).unwrap_err(), PromptError::Empty);
    }
}
