//! What the tests across crates share; the tests are in the folders beside `src`.

#[cfg(test)]
mod invariants;
pub mod moto;
mod need;

use libtest_mimic::Trial;
pub use need::Need;
use std::path::{Path, PathBuf};

/// The `uspx` binary of this build: it stands beside the test binaries' own folder.
///
/// # Panics
/// It was not built.
pub fn uspx() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let program = test
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in target/PROFILE/deps")
        .join("uspx");
    assert!(
        program.is_file(),
        "{} is not built: run `cargo build -p uspx` (make test does)",
        program.display()
    );
    program
}

/// The named functions of the module that calls it, as tests under their paths. One that is left
/// out is never used, which the compiler tells.
#[macro_export]
macro_rules! trials {
    ($($(#[$when:meta])? $name:ident),+ $(,)?) => {
        Vec::from([$($(#[$when])? $crate::trial(concat!(module_path!(), "::", stringify!($name)), $name)),+])
    };
}

/// A test by its path, without the name of its binary.
pub fn trial(path: &str, test: fn()) -> Trial {
    let name = path.split_once("::").map_or(path, |(_, rest)| rest);
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
