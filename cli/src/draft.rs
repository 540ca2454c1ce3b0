//! A folder or a file on its way: written beside its place under another name, and put there whole or
//! not at all.

use crate::error::{CliError, Exit, Result};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile, TempDir};

/// The folder that is being written. Dropped before [`Draft::keep`], it is gone.
pub struct Draft {
    folder: TempDir,
    out: PathBuf,
}

impl Draft {
    /// A draft of `out`, on the same disk. Work can take hours: that its result can be written is
    /// known before.
    ///
    /// # Errors
    /// `out` holds something already, or its parent cannot be written to.
    pub fn of(out: &Path) -> Result<Self> {
        if out.exists() && !is_empty(out) {
            let message = format!("{} is there already", out.display());
            return Err(CliError::new(Exit::BadInput, message)
                .help("name a folder that is not there yet: --out DIR"));
        }
        let parent = parent(out);
        let mut builder = Builder::new();
        builder.prefix(".uspx-");
        // What it will be when it is done: readable as the person's other folders.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let folder = builder.tempdir_in(parent).map_err(|e| CliError::file(parent, &e))?;
        Ok(Self { folder, out: out.to_owned() })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// Those of the disk; nothing is there then.
    pub fn keep(self) -> Result<()> {
        std::fs::rename(self.path(), &self.out).map_err(|e| CliError::file(&self.out, &e))?;
        // There is nothing left under the old name.
        let _ = self.folder.keep();
        Ok(())
    }
}

/// The file that is being written. Dropped before [`FileDraft::keep`], it is gone.
pub struct FileDraft {
    file: NamedTempFile,
    out: PathBuf,
}

impl FileDraft {
    /// A draft of `out`, on the same disk.
    ///
    /// # Errors
    /// `out` is a folder, or its parent cannot be written to.
    pub fn of(out: &Path) -> Result<Self> {
        if out.is_dir() {
            let message = format!("{} is a folder", out.display());
            return Err(CliError::new(Exit::BadInput, message).help("name a file: --out FILE"));
        }
        let mut builder = Builder::new();
        builder.prefix(".uspx-");
        // What it will be when it is done: readable as the person's other files.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(parent(out)).map_err(|e| CliError::file(out, &e))?;
        Ok(Self { file, out: out.to_owned() })
    }

    /// Writes all of it and puts it in its place, over what is there.
    ///
    /// # Errors
    /// Those of the disk; what was there stays.
    pub fn keep(self, content: &[u8]) -> Result<()> {
        let failed = |e: &std::io::Error| CliError::file(&self.out, e);
        std::fs::write(self.file.path(), content).map_err(|e| failed(&e))?;
        self.file.persist(&self.out).map_err(|e| failed(&e.error))?;
        Ok(())
    }
}

fn parent(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out.json");
        drop(FileDraft::of(&out).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        for text in ["first", "second"] {
            FileDraft::of(&out).unwrap().keep(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&out).unwrap(), text);
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(FileDraft::of(place.path()).is_err(), "a folder is no file");
        assert!(FileDraft::of(&place.path().join("no/out.json")).is_err());
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let (out, entries) =
            (place.path().join("out"), || fs::read_dir(place.path()).unwrap().count());
        let draft = Draft::of(&out).unwrap();
        fs::write(draft.path().join("half"), "x").unwrap();
        assert!(!out.exists());
        drop(draft);
        assert_eq!(entries(), 0, "a draft that is given up leaves nothing");

        fs::create_dir(&out).unwrap();
        let draft = Draft::of(&out).unwrap();
        fs::write(draft.path().join("whole"), "x").unwrap();
        draft.keep().unwrap();
        assert_eq!((fs::read(out.join("whole")).unwrap(), entries()), (b"x".to_vec(), 1));
        assert!(Draft::of(&out).is_err(), "what is there is never written over");
        assert!(Draft::of(&place.path().join("no/parent")).is_err());
    }
}
