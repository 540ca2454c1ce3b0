//! What the tests across crates share; the tests are in the folders beside `src`.

use std::path::{Path, PathBuf};

/// The `uspx` binary of this build: it stands beside the test binaries' own folder.
///
/// # Panics
/// It was not built.
pub fn uspx() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let program = test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps").join("uspx");
    assert!(program.is_file(), "{} is not built: run `cargo build -p uspx` (make test does)", program.display());
    program
}
