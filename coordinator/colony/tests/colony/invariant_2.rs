//! Invariant 2: the colony is pure. It never awaits, reads a clock, opens a file or makes its own
//! randomness, and nothing that it decides uses a float function whose last bit depends on the
//! machine's math library.

use std::fs;
use std::path::{Path, PathBuf};

/// What no file of this crate may say outside its tests.
const FORBIDDEN: [&str; 39] = [
    "async ",
    ".await",
    "std::time",
    "Instant",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "std::io",
    "std::process",
    "tokio",
    "HashMap",
    "HashSet",
    "RandomState",
    "rand::rng",
    "thread_rng",
    "from_os_rng",
    "from_entropy",
    "getrandom",
    "println!",
    "static mut",
    "unsafe ",
    ".exp(",
    ".exp2(",
    ".ln(",
    ".log(",
    ".log2(",
    ".log10(",
    ".powf(",
    ".powi(",
    ".sin(",
    ".cos(",
    ".tan(",
    ".tanh(",
    ".mul_add(",
    ".cbrt(",
    ".hypot(",
    "Mutex",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The source without its unit tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn offences(text: &str) -> Vec<&'static str> {
    let code = code(text);
    FORBIDDEN.iter().copied().filter(|word| code.contains(word)).collect()
}

#[test]
fn invariant_2_colony_is_pure() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "the sources were not found");
    for file in files {
        let found = offences(&fs::read_to_string(&file).unwrap());
        assert!(found.is_empty(), "{} says {found:?}", file.display());
    }
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    assert_eq!(offences("let x = y.ln();\n"), [".ln("]);
    assert!(offences("// let x = y.ln();\n#[cfg(test)]\nmod tests { std::fs::read() }").is_empty());
}

/// The dependencies are the ones named, none of which waits or looks at the world.
#[test]
fn invariant_2_colony_depends_on_nothing_that_waits() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split('[').next().unwrap();
    let names: Vec<&str> = dependencies
        .lines()
        .filter_map(|l| l.split('.').next())
        .filter(|n| !n.is_empty())
        .collect();
    assert_eq!(
        names,
        ["uspx-domain", "serde", "serde_bytes", "thiserror", "rand_chacha", "rmp-serde", "blake3"]
    );
}
