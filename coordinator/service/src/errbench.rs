//! Prompts that a person adds to a colony: files in its state folder, which it takes while it runs or at its next start.
//! They stay there, and are read again at every start, since the ledger has ids and digests alone.

use crate::ServiceError;
use crate::status::write_file;
use std::path::{Path, PathBuf};
use uspx_domain::{Digest, Prompt};
use uspx_runtime::folders;

/// The folder, below the state folder.
const FOLDER: &str = "errbench";
/// What ends the name of a file that is to be taken, and of one that was.
const NEW: &str = "new.json";
const TAKEN: &str = "json";

fn folder(state: &Path) -> PathBuf {
    state.join(FOLDER)
}

/// Leaves prompts for the coordinator of that state folder, and gives the file's place. Those that it has already
/// change nothing; one under the name of another takes its place.
///
/// # Errors
/// The folder cannot be written.
pub fn add(state: &Path, prompts: &[Prompt]) -> Result<PathBuf, ServiceError> {
    let folder = folder(state);
    folders::make_private(&folder).map_err(ServiceError::file(&folder))?;
    let text = serde_json::to_vec(prompts).map_err(|e| ServiceError::file(&folder)(e.into()))?;
    // In the order that they came.
    let number = files(state)?.len();
    let name: String = Digest::of(&text).to_string().chars().take(16).collect();
    let path = folder.join(format!("{number:06}-{name}.{NEW}"));
    write_file(&path, &text)?;
    Ok(path)
}

/// Whether what was left has not been taken yet.
pub fn is_waiting(file: &Path) -> bool {
    file.exists()
}

/// All files, in the order that they came.
fn files(state: &Path) -> Result<Vec<PathBuf>, ServiceError> {
    let folder = folder(state);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(ServiceError::file(&folder))?,
    };
    let paths = entries.map(|entry| entry.map(|e| e.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(ServiceError::file(&folder))?;
    paths.retain(|path| path.extension().is_some_and(|end| end == TAKEN));
    paths.sort();
    Ok(paths)
}

fn is_new(path: &Path) -> bool {
    path.to_string_lossy().ends_with(NEW)
}

/// The prompts that were left.
///
/// # Errors
/// A file that cannot be read, or is damaged.
pub(crate) fn read(state: &Path) -> Result<Vec<Prompt>, ServiceError> {
    let mut prompts = Vec::new();
    for path in files(state)? {
        let text = std::fs::read(&path).map_err(ServiceError::file(&path))?;
        let own: Vec<Prompt> =
            serde_json::from_slice(&text).map_err(|e| ServiceError::file(&path)(e.into()))?;
        prompts.extend(own);
    }
    Ok(prompts)
}

/// Whether there are new ones.
pub(crate) fn any_new(state: &Path) -> bool {
    files(state).is_ok_and(|files| files.iter().any(|path| is_new(path)))
}

/// Puts what is new aside, where it cannot be read.
///
/// # Errors
/// Those of the disk.
pub(crate) fn put_aside(state: &Path) -> Result<(), ServiceError> {
    rename_new(state, "damaged")
}

/// Notes that all are taken.
///
/// # Errors
/// Those of the disk.
pub(crate) fn taken(state: &Path) -> Result<(), ServiceError> {
    rename_new(state, TAKEN)
}

fn rename_new(state: &Path, end: &str) -> Result<(), ServiceError> {
    for path in files(state)?.into_iter().filter(|path| is_new(path)) {
        let name = path.with_extension("").with_extension(end);
        std::fs::rename(&path, &name).map_err(ServiceError::file(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(id: &str, text: &str) -> Prompt {
        Prompt { id: id.into(), prompt: text.into(), ..Prompt::default() }
    }

    #[test]
    fn what_is_left_is_new_once_and_stays() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        assert_eq!(read(state).unwrap(), []);
        let [one, two] = [prompt("a", "first"), prompt("b", "second")];
        let file = add(state, std::slice::from_ref(&one)).unwrap();
        assert!(is_waiting(&file) && any_new(state));
        assert_eq!(read(state).unwrap(), std::slice::from_ref(&one));
        taken(state).unwrap();
        assert!(!is_waiting(&file) && !any_new(state));
        add(state, std::slice::from_ref(&two)).unwrap();
        assert_eq!(read(state).unwrap(), [one, two]);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let state = tempfile::tempdir().unwrap();
        let file = add(state.path(), &[prompt("a", "first")]).unwrap();
        std::fs::write(&file, "{").unwrap();
        assert!(read(state.path()).unwrap_err().to_string().contains("errbench"));
        put_aside(state.path()).unwrap();
        assert_eq!(read(state.path()).unwrap(), []);
    }
}
