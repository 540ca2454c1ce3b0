//! Folders of state: they hold prompts (labels on their way, scratch files of tasks), so they are
//! their owner's alone.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder, and those above it, with mode 0700. One that is there keeps the mode that a person
/// gave it.
///
/// # Errors
/// The disk's.
pub fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::make_private;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_made_is_private_and_what_is_there_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (open, state) = (home.path().join("open"), home.path().join("open/a/state"));
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&state).unwrap();
        make_private(&state).unwrap();
        assert_eq!((mode(&open), mode(&open.join("a")), mode(&state)), (0o755, 0o700, 0o700));
    }
}
