//! How a written student's tokens differ from the trained one's, in words.

use std::fmt;

/// A part that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The text of the chat template.
    Template,
    /// The token that begins a text.
    Bos,
    /// The tokens that end an answer.
    Ends,
    /// How text becomes tokens.
    Tokenizer,
}

/// How two students differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In which parts.
    pub parts: Vec<Part>,
    /// Where it shows first; `None` where no conversation at hand shows it.
    pub place: Option<Place>,
}

/// The first conversation that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A built-in conversation's number or a prompt's name. Its text is nobody's business.
    pub conversation: String,
    /// The token's position.
    pub position: usize,
    /// The trained student's ids around it; `None` where its template refuses the conversation.
    pub trained: Option<Vec<u32>>,
    /// The written student's, likewise.
    pub written: Option<Vec<u32>>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template => "the chat template",
            Self::Bos => "the BOS token",
            Self::Ends => "the tokens that end an answer",
            Self::Tokenizer => "the tokenizer",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(Part::to_string).collect();
        write!(f, "another reading of {}", parts.join(" and of "))?;
        let Some(place) = &self.place else {
            return f.write_str(", which no conversation at hand shows");
        };
        write!(
            f,
            ", first in conversation `{}` at token {}: ",
            place.conversation, place.position
        )?;
        write!(
            f,
            "{} as trained, {} as written",
            ids(place.trained.as_deref()),
            ids(place.written.as_deref())
        )
    }
}

fn ids(ids: Option<&[u32]>) -> String {
    let Some(ids) = ids else { return "refused by the template".into() };
    let texts: Vec<String> = ids.iter().map(u32::to_string).collect();
    format!("[… {} …]", texts.join(" "))
}
