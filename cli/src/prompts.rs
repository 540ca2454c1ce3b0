//! Prompt files as people have them, and what is to be said about their lines.

use crate::error::{CliError, Exit, Result};
use crate::output;
use std::path::{Path, PathBuf};
use uspx_domain::{Prompt, PromptFormat, PromptSet, Repetition};
use uspx_runtime::text;

/// Repeated lines that are named one by one.
const NAMED: usize = 3;

/// A prompt file that was named, and how it is to be read.
#[derive(Debug, Clone, Copy)]
pub struct PromptSource<'a> {
    /// The file.
    pub path: &'a Path,
    /// How it is written.
    pub format: PromptFormat,
    /// Whether to go on without lines that are not prompts.
    pub skip_bad: bool,
}

/// A prompt file that was read.
#[derive(Clone)]
pub struct PromptFile {
    /// The file.
    pub path: PathBuf,
    /// Its prompts.
    pub prompts: Vec<Prompt>,
    /// The line of each, counted from 1.
    pub lines: Vec<usize>,
}

impl<'a> PromptSource<'a> {
    /// A file that flags describe: of plain `text` or JSON lines, read on past bad lines or not.
    pub fn new(path: &'a Path, text: bool, skip_bad: bool) -> Self {
        let format = if text { PromptFormat::Text } else { PromptFormat::JsonLines };
        Self { path, format, skip_bad }
    }

    /// A file of JSON lines that must all be good.
    pub fn json(path: &'a Path) -> Self {
        Self::new(path, false, false)
    }

    /// Reads the file, and says what was skipped or repeated.
    pub fn read(&self) -> Result<PromptFile> {
        let text = text::read(self.path).map_err(|e| CliError::file(self.path, &e))?;
        let set = self.format.read(&text, self.skip_bad).map_err(|e| {
            CliError::new(Exit::BadInput, format!("{}: {e}", self.path.display())).help(self.help())
        })?;
        self.tell(&set);
        let PromptSet { prompts, lines, .. } = set;
        Ok(PromptFile { path: self.path.to_owned(), prompts, lines })
    }

    fn help(&self) -> &'static str {
        match self.format {
            PromptFormat::JsonLines => {
                "each line is {\"prompt\": .., \"reference\": ..} or {\"messages\": [{\"role\": .., \"content\": ..}, ..]}; \
                 --text takes each line as a prompt, --skip-bad goes on without bad lines"
            }
            PromptFormat::Text => "--text takes each line as a prompt",
        }
    }

    fn tell(&self, set: &PromptSet) {
        let path = self.path.display();
        for skipped in &set.skipped {
            output::note(&format!("skipped: {path}: {skipped}"));
        }
        for Repetition { line, first } in set.repeated.iter().take(NAMED) {
            output::note(&format!("{path}: line {line} repeats line {first}: they count once"));
        }
        let others = set.repeated.len().saturating_sub(NAMED);
        if others > 0 {
            output::note(&format!("{path}: so do {others} more lines repeat earlier ones"));
        }
    }
}
