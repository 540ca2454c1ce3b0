//! What a folder remembers of having been rolled back: the newest release that it was rolled back
//! from, which a plain pull is not to bring again.
//!
//! It is in force while an earlier release is in use, so it is written before the switch to that: a
//! crash between the two leaves words without meaning, never a release in use that nobody asked for.

use crate::error::ArtifactError;
use crate::pointer;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use uspx_domain::ReleaseNumber;

const NAME: &str = "rolled-back-from";

/// The newest release that the folder was rolled back from; `None` where it was not, or something
/// newer is in use by now.
pub fn rolled_back_from(dest: &Path) -> Option<ReleaseNumber> {
    let words = fs::read_to_string(dest.join(NAME)).ok()?;
    let from = words.trim().parse().ok()?;
    pointer::read(dest).filter(|in_use| *in_use < from).map(|_| from)
}

/// Notes it, or takes the note away.
pub(crate) fn note(dest: &Path, from: Option<ReleaseNumber>) -> Result<(), ArtifactError> {
    let path = dest.join(NAME);
    let noted = match from {
        Some(release) => pointer::text(dest, &release.to_string(), &path),
        None => forget(&path),
    };
    noted.and_then(|()| pointer::sync_folder(dest)).map_err(ArtifactError::io("note in", &path))
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_force_while_an_earlier_release_is_in_use() {
        let dest = tempfile::tempdir().unwrap();
        let dest = dest.path();
        note(dest, Some(3)).unwrap();
        assert_eq!(rolled_back_from(dest), None, "nothing is in use");
        for (in_use, wanted) in [(3, None), (1, Some(3)), (2, Some(3)), (4, None)] {
            pointer::write(dest, in_use).unwrap();
            assert_eq!(rolled_back_from(dest), wanted, "{in_use}");
        }
        pointer::write(dest, 1).unwrap();
        fs::write(dest.join(NAME), "rubbish").unwrap();
        assert_eq!(rolled_back_from(dest), None);
        note(dest, None).unwrap();
        note(dest, None).unwrap();
        assert!(!dest.join(NAME).exists());
    }
}
