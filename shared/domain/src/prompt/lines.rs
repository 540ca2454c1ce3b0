//! Files of prompts, one a line: JSON as people have it, or plain text.

use super::chat::{Message, prompt_of};
use super::{Exchange, Prompt};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// How a prompt file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptFormat {
    /// A JSON object a line: `prompt`, or `messages` as chat APIs have them.
    #[default]
    JsonLines,
    /// A prompt a line.
    Text,
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

/// A line without an id that says what an earlier one says: they are one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repetition {
    /// Counted from 1.
    pub line: usize,
    /// The line that counts.
    pub first: usize,
}

/// Prompts and what was wrong with the lines that were skipped.
#[derive(Debug, Clone, Default)]
pub struct PromptSet {
    /// The good lines, in file order.
    pub prompts: Vec<Prompt>,
    /// On which line each stands, counted from 1.
    pub lines: Vec<usize>,
    /// Lines that repeat earlier ones.
    pub repeated: Vec<Repetition>,
    /// The bad lines (only when skipping was asked for).
    pub skipped: Vec<PromptError>,
}

/// A line of JSON, in all its forms.
#[derive(Deserialize)]
struct Line {
    id: Option<Value>,
    prompt: Option<String>,
    reference: Option<String>,
    system: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    earlier: Vec<Exchange>,
    messages: Option<Vec<Message>>,
}

impl Line {
    /// The prompt; without an id where the line has none.
    fn prompt(self) -> Result<Prompt, String> {
        let id = id_of(self.id)?.unwrap_or_default();
        let is_plain = self.prompt.is_some()
            || self.reference.is_some()
            || self.system.is_some()
            || !self.earlier.is_empty();
        let read = match (self.messages, self.prompt) {
            (Some(_), _) if is_plain => {
                return Err("both `messages` and what they say in other fields".to_owned());
            }
            (Some(messages), _) => prompt_of(messages)?,
            (None, None) => return Err("it has neither `prompt` nor `messages`".to_owned()),
            (None, Some(prompt)) => {
                let (reference, system, earlier) = (self.reference, self.system, self.earlier);
                Prompt { prompt, reference, system, earlier, ..Prompt::default() }
            }
        };
        if read.prompt.trim().is_empty() {
            return Err("`prompt` is empty".to_owned());
        }
        if read.reference.as_deref().is_some_and(|r| r.trim().is_empty()) {
            return Err("`reference` is empty: leave it out instead".to_owned());
        }
        Ok(Prompt { id, tags: self.tags, ..read })
    }
}

/// An id as text: numbers are ids too.
fn id_of(value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.trim().is_empty() => Err("`id` is empty".to_owned()),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(_) => Err("`id` is neither text nor a number".to_owned()),
    }
}

/// What serde says, without its own line number: the text is one line of the file.
fn reason(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or(&whole);
    format!("{what} (column {})", error.column())
}

impl PromptFormat {
    fn prompt(self, line: &str) -> Result<Prompt, String> {
        match self {
            Self::JsonLines => serde_json::from_str::<Line>(line).map_err(|e| reason(&e))?.prompt(),
            Self::Text => Ok(Prompt { prompt: line.trim().to_owned(), ..Prompt::default() }),
        }
    }

    /// Reads a prompt file's text.
    ///
    /// Blank lines are passed over. A bad line ends the reading, or is collected where `skip_bad`
    /// is set. A prompt without an id is named by what it says.
    ///
    /// # Errors
    /// The first bad line with its number and reason, or [`PromptError::Empty`].
    pub fn read(self, text: &str, skip_bad: bool) -> Result<PromptSet, PromptError> {
        let (mut set, mut seen) = (PromptSet::default(), HashMap::new());
        for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let line_number = at + 1;
            let taken = self.prompt(line).and_then(|p| set.take(p, line_number, &mut seen));
            match taken.map_err(|reason| PromptError::Line { line: line_number, reason }) {
                Ok(()) => {}
                Err(error) if skip_bad => set.skipped.push(error),
                Err(error) => return Err(error),
            }
        }
        if set.prompts.is_empty() { Err(PromptError::Empty) } else { Ok(set) }
    }
}

impl PromptSet {
    /// Takes a prompt in. `seen` has the line of each id, and whether that was made.
    fn take(
        &mut self,
        mut prompt: Prompt,
        line: usize,
        seen: &mut HashMap<String, (usize, bool)>,
    ) -> Result<(), String> {
        let made = prompt.id.is_empty();
        if made {
            prompt.id = prompt.made_id();
        }
        match seen.get(&prompt.id) {
            Some(&(first, true)) if made => self.repeated.push(Repetition { line, first }),
            Some(_) => return Err(format!("`id` {} stands on an earlier line too", prompt.id)),
            None => {
                seen.insert(prompt.id.clone(), (line, made));
                self.prompts.push(prompt);
                self.lines.push(line);
            }
        }
        Ok(())
    }
}

/// Reads the text of a file of JSON lines.
///
/// # Errors
/// As [`PromptFormat::read`].
pub fn parse_prompts(text: &str, skip_bad: bool) -> Result<PromptSet, PromptError> {
    PromptFormat::JsonLines.read(text, skip_bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        parse_prompts(line, false).unwrap_err().to_string()
    }

    #[test]
    fn a_broken_line_is_named_with_its_number() {
        let text = "{\"id\":\"a\",\"prompt\":\"x\"}\n\n{\"id\":\"b\"\n";
        let error = parse_prompts(text, false).unwrap_err();
        assert!(matches!(error, PromptError::Line { line: 3, .. }), "{error}");
        let set = parse_prompts(text, true).unwrap();
        assert_eq!((set.prompts.len(), set.skipped.len(), set.lines), (1, 1, vec![1]));
    }

    #[test]
    fn duplicates_and_empty_sets_are_refused() {
        let twice = "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":\"a\",\"prompt\":\"x\"}";
        assert!(matches!(parse_prompts(twice, false), Err(PromptError::Line { line: 2, .. })));
        assert_eq!(parse_prompts("\n \n", false).unwrap_err(), PromptError::Empty);
        assert_eq!(parse_prompts("nonsense", true).unwrap_err(), PromptError::Empty);
    }

    #[test]
    fn an_id_is_made_of_what_is_said_wherever_it_stands() {
        let (a, b) = ("{\"prompt\": \"x\"}", "{\"prompt\": \"y\", \"tags\": [\"t\"]}");
        let both = parse_prompts(&format!("{a}\n{b}\n"), false).unwrap();
        let turned = parse_prompts(&format!("{b}\n\n{a}\n{b}\n"), false).unwrap();
        let ids = |set: &PromptSet| set.prompts.iter().map(|p| p.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&both), ids(&turned).into_iter().rev().collect::<Vec<_>>());
        assert_eq!(turned.repeated, [Repetition { line: 4, first: 1 }]);
        assert_eq!((turned.lines, turned.skipped.len()), (vec![1, 3], 0));
    }

    #[test]
    fn a_number_is_an_id_and_the_same_one_as_text_is_a_duplicate() {
        let set = parse_prompts("{\"id\": 7, \"prompt\": \"x\"}", false).unwrap();
        assert_eq!(set.prompts[0].id, "7");
        let twice = "{\"id\": 7, \"prompt\": \"x\"}\n{\"id\": \"7\", \"prompt\": \"y\"}";
        assert!(refused(twice).contains("line 2: `id` 7 stands on an earlier line"));
        assert!(refused("{\"id\": [], \"prompt\": \"x\"}").contains("neither text nor a number"));
    }

    #[test]
    fn messages_stand_for_the_other_fields_and_never_beside_them() {
        let chat = "{\"id\": 1, \"tags\": [\"t\"], \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}";
        let set = parse_prompts(chat, false).unwrap();
        let wanted = Prompt {
            id: "1".into(),
            prompt: "x".into(),
            tags: vec!["t".into()],
            ..Prompt::default()
        };
        assert_eq!(set.prompts, [wanted]);
        let both = chat.replace("\"id\"", "\"system\": \"s\", \"id\"");
        assert!(refused(&both).contains("both `messages`"));
        assert!(refused("{\"id\": 1}").contains("neither `prompt` nor `messages`"));
        assert!(refused("{\"prompt\": \" \"}").contains("`prompt` is empty"));
        assert!(refused("{\"prompt\": \"x\", \"reference\": \"\"}").contains("leave it out"));
    }

    #[test]
    fn a_prompt_that_was_written_is_read_as_it_was() {
        let whole = Prompt {
            id: "a".into(),
            prompt: "p".into(),
            reference: Some("r".into()),
            system: Some("s".into()),
            tags: vec!["t".into()],
            earlier: vec![Exchange { user: "u".into(), assistant: "v".into() }],
        };
        let line = serde_json::to_string(&whole).unwrap();
        assert_eq!(parse_prompts(&line, false).unwrap().prompts, [whole]);
    }

    #[test]
    fn plain_text_is_a_prompt_a_line() {
        let set =
            PromptFormat::Text.read("list files\r\n\n  {\"x\": 1}\nlist files\n", false).unwrap();
        let texts: Vec<&str> = set.prompts.iter().map(|p| p.prompt.as_str()).collect();
        assert_eq!((texts, set.lines), (vec!["list files", "{\"x\": 1}"], vec![1, 3]));
        assert_eq!(set.repeated, [Repetition { line: 4, first: 1 }]);
    }
}
