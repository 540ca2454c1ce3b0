//! Words as they come: an answer is printed token by token.

use crate::error::Result;
use crate::output;
use uspx_model::chat::Chat;

/// Prints text as tokens come; a character whose bytes are not all there yet waits.
pub struct Shown {
    ids: Vec<u32>,
    printed: usize,
    quiet: bool,
    /// Whether somebody still reads, or why nothing more can be printed.
    reader: Result<bool>,
}

impl Shown {
    /// Nothing is printed yet, and nothing will be where it is to be `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { ids: Vec::new(), printed: 0, quiet, reader: Ok(true) }
    }

    /// Takes the next token.
    pub fn push(&mut self, chat: &Chat, id: u32) {
        self.ids.push(id);
        if self.quiet {
            return;
        }
        let text = chat.answer_text(&self.ids);
        if !text.ends_with('\u{fffd}') {
            self.print(&text);
        }
    }

    fn print(&mut self, text: &str) {
        if let (false, Some(new)) = (self.quiet || self.is_over(), text.get(self.printed..)) {
            self.reader = output::piece(new);
            self.printed = text.len();
        }
    }

    /// Whether nothing more can be printed.
    pub fn is_over(&self) -> bool {
        !matches!(self.reader, Ok(true))
    }

    /// The tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Ends the line; `false` where nobody reads it.
    pub fn end(mut self, chat: &Chat) -> Result<bool> {
        self.print(&chat.answer_text(&self.ids));
        if self.quiet || self.is_over() { self.reader } else { output::piece("\n") }
    }
}
