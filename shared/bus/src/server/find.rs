//! Where the nats-server program is, and whether it is new enough.

use super::ServerError;
use crate::version::{OLDEST_SERVER, is_new_enough, of_program_output};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the program.
const PROGRAM: &str = if cfg!(windows) { "nats-server.exe" } else { "nats-server" };

/// Finds a program that is new enough: the one that `USPX_NATS_SERVER` names and no other; else the
/// first good one of `PATH`, and of `.tools/` in the working directory, the program's own, and
/// those above them.
///
/// # Errors
/// [`ServerError::NotFound`], [`ServerError::TooOld`], [`ServerError::NotRunnable`].
pub fn find_program() -> Result<PathBuf, ServerError> {
    match env::var_os("USPX_NATS_SERVER") {
        Some(named) if !named.is_empty() => check(Path::new(&named)),
        _ => first_good(candidates()),
    }
}

/// A good one further down is better than complaining of a bad one further up.
pub(super) fn first_good(
    candidates: impl IntoIterator<Item = PathBuf>,
) -> Result<PathBuf, ServerError> {
    let mut complaint = ServerError::NotFound { needed: OLDEST_SERVER };
    for candidate in candidates.into_iter().filter(|path| path.is_file()) {
        match check(&candidate) {
            Ok(good) => return Ok(good),
            Err(bad) => complaint = bad,
        }
    }
    Err(complaint)
}

fn candidates() -> Vec<PathBuf> {
    let on_path = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let above = starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(".tools"));
    on_path.into_iter().chain(above).map(|folder| folder.join(PROGRAM)).collect()
}

/// Asks a program for its version.
fn check(path: &Path) -> Result<PathBuf, ServerError> {
    let not_runnable = |reason: String| ServerError::NotRunnable { path: path.to_owned(), reason };
    let output =
        Command::new(path).arg("--version").output().map_err(|e| not_runnable(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match of_program_output(&text) {
        Some(version) if is_new_enough(version) => Ok(path.to_owned()),
        Some(version) => Err(ServerError::TooOld {
            path: path.to_owned(),
            found: version.to_owned(),
            needed: OLDEST_SERVER,
        }),
        None => Err(not_runnable("`--version` does not name a version".to_owned())),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fake(folder: &Path, name: &str, says: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn one_that_is_too_old_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let old = fake(folder.path(), "old", "nats-server: v2.9.10");
        let error = first_good([old.clone()]).unwrap_err();
        assert!(
            matches!(&error, ServerError::TooOld { path, found, .. } if *path == old && found == "2.9.10")
        );
        let text = error.to_string();
        assert!(
            text.contains("2.9.10")
                && text.contains("2.10.27")
                && text.contains("get-nats-server.sh"),
            "{text}"
        );
    }

    #[test]
    fn a_good_one_is_found_behind_a_bad_one() {
        let folder = tempfile::tempdir().unwrap();
        let old = fake(folder.path(), "old", "nats-server: v2.9.10");
        let mute = fake(folder.path(), "mute", "");
        let good = fake(folder.path(), "good", "nats-server: v2.11.3");
        assert_eq!(
            first_good([folder.path().join("none"), old, mute, good.clone()]).unwrap(),
            good
        );
    }

    #[test]
    fn none_is_said_with_the_remedy() {
        let error = first_good([PathBuf::from("/nowhere/nats-server")]).unwrap_err();
        assert!(
            matches!(error, ServerError::NotFound { .. })
                && error.to_string().contains("get-nats-server.sh")
        );
    }
}
