//! Lines from a person, edited and remembered; or from a pipe, as they are.

use crate::error::{CliError, Exit, Result};
use crate::{output, state};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use uspx_runtime::folders;

/// Lines that are remembered.
const REMEMBERED: usize = 1000;

/// Where lines come from.
pub enum Prompter {
    /// A person at a terminal.
    Person(Box<Person>),
    /// A pipe, or a person whose output goes elsewhere.
    Plain {
        /// Whether a person is to be asked.
        asks: bool,
    },
}

/// A person's line editor.
pub struct Person {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

/// What came.
pub enum Read {
    /// A line.
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// Ctrl-D, or the pipe's end.
    End,
}

impl Prompter {
    /// The one that fits standard input and output.
    pub fn new() -> Self {
        let asks = std::io::stdin().is_terminal();
        if !asks || !std::io::stdout().is_terminal() {
            return Self::Plain { asks };
        }
        match Person::new() {
            Ok(person) => Self::Person(Box::new(person)),
            Err(error) => {
                tracing::debug!(%error, "no line editing");
                Self::Plain { asks }
            }
        }
    }

    /// Whether a person writes.
    pub fn is_person(&self) -> bool {
        matches!(self, Self::Person(_) | Self::Plain { asks: true })
    }

    /// The next line.
    pub fn read(&mut self) -> Result<Read> {
        match self {
            Self::Person(person) => person.read(),
            Self::Plain { asks } => plain(*asks),
        }
    }
}

fn plain(asks: bool) -> Result<Read> {
    if asks {
        output::remark("> ");
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read.map_err(|e| CliError::new(Exit::BadInput, e))? {
        0 => Ok(Read::End),
        _ => Ok(Read::Line(line)),
    }
}

impl Person {
    fn new() -> rustyline::Result<Self> {
        let config = Config::builder().max_history_size(REMEMBERED)?.build();
        let mut editor = DefaultEditor::with_config(config)?;
        let history = history_file();
        if let Some(Err(error)) = history.as_ref().map(|path| editor.load_history(path)) {
            tracing::debug!(%error, "no history yet");
        }
        Ok(Self { editor, history })
    }

    fn read(&mut self) -> Result<Read> {
        match self.editor.readline("> ") {
            Ok(line) => {
                self.remember(&line);
                Ok(Read::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Read::Interrupted),
            Err(ReadlineError::Eof) => Ok(Read::End),
            Err(error) => Err(CliError::new(Exit::BadInput, error)),
        }
    }

    /// At once, so that no end of the process loses it. A line that cannot be remembered is worth
    /// no error.
    fn remember(&mut self, line: &str) {
        let Self { editor, history } = self;
        let kept = editor.add_history_entry(line).and_then(|is_new| match &*history {
            Some(path) if is_new => editor.append_history(path),
            _ => Ok(()),
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "a line is not remembered");
        }
    }
}

/// What the person wrote is theirs alone: the file is made before the editor writes to it, readable
/// by nobody else. None where it cannot be made.
fn history_file() -> Option<PathBuf> {
    let path = state::folder()?.join("chat-history");
    let made = make_private(&path);
    made.inspect_err(|error| tracing::debug!(%error, "no history")).ok().map(|()| path)
}

fn make_private(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), folders::make_private)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}
