//! A person's word to a running coordinator: a file in its state folder, which it takes and
//! removes. The folder's owner is whoever may say it.

use crate::ServiceError;
use crate::status::write_file;
use std::path::{Path, PathBuf};

/// What a person can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Try now whatever waits: rests end, a release that is held or waits is tried again.
    Retry,
    /// Give up whatever waits: tasks that nobody can do now, and a release that cannot be stored.
    Abandon,
    /// Make another student now, however few prompts are new and whatever keeps it back.
    Build,
    /// Make no student until [`Word::Resume`]; measuring goes on.
    Hold,
    /// Make students again.
    Resume,
}

impl Word {
    const ALL: [Self; 5] = [Self::Retry, Self::Abandon, Self::Build, Self::Hold, Self::Resume];

    fn text(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Abandon => "abandon",
            Self::Build => "build",
            Self::Hold => "hold",
            Self::Resume => "resume",
        }
    }
}

fn place(state: &Path) -> PathBuf {
    state.join("word")
}

/// Says it to the coordinator of that state folder.
///
/// # Errors
/// The folder cannot be written.
pub fn say(state: &Path, word: Word) -> Result<(), ServiceError> {
    write_file(&place(state), word.text().as_bytes())
}

/// Whether what was said has not been taken yet.
pub fn is_waiting(state: &Path) -> bool {
    place(state).exists()
}

/// Takes what was said, once.
pub(crate) fn take(state: &Path) -> Option<Word> {
    let path = place(state);
    let text = std::fs::read_to_string(&path).ok()?;
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(%error, "a person's word cannot be taken");
        return None;
    }
    let word = Word::ALL.into_iter().find(|word| word.text() == text.trim());
    if word.is_none() {
        tracing::warn!("the file `word` says nothing that a coordinator understands");
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_taken_once_and_nonsense_is_none() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(take(state.path()), None);
        for word in Word::ALL {
            say(state.path(), word).unwrap();
            assert!(is_waiting(state.path()));
            assert_eq!((take(state.path()), take(state.path())), (Some(word), None));
        }
        std::fs::write(place(state.path()), "rm -rf").unwrap();
        assert_eq!(take(state.path()), None);
        assert!(!is_waiting(state.path()));
    }
}
