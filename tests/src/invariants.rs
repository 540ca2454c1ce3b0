//! Every invariant of ARCHITECTURE.md names where it is tested, and there its tests are, under its
//! name.

use std::path::Path;

/// The numbered paragraphs below `## Invariants`, each with its number.
fn invariants(text: &str) -> Vec<(usize, String)> {
    let chapter = text
        .split("\n## ")
        .find(|chapter| chapter.starts_with("Invariants"))
        .expect("a chapter on them");
    let mut found: Vec<(usize, String)> = Vec::new();
    for line in chapter.lines() {
        let number = line.split_once(". ").and_then(|(number, _)| number.parse().ok());
        match (number, found.last_mut()) {
            (Some(number), _) => found.push((number, line.to_owned())),
            (None, Some((_, paragraph))) => paragraph.push_str(line),
            _ => {}
        }
    }
    found
}

/// The files of tests that a paragraph names.
fn named(paragraph: &str) -> impl Iterator<Item = &str> {
    let quoted = paragraph.split('`').skip(1).step_by(2);
    quoted.filter(|words| {
        words.contains("tests/") && words.ends_with(".rs") && !words.ends_with("invariants.rs")
    })
}

#[test]
fn every_invariant_has_tests_of_its_name_where_the_architecture_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let all = invariants(&std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let numbers: Vec<usize> = all.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
    for (number, paragraph) in all {
        assert!(named(&paragraph).next().is_some(), "invariant {number} names no test");
        for file in named(&paragraph) {
            let text =
                std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(
                text.contains(&format!("fn invariant_{number}_")),
                "{file} has no test of invariant {number}"
            );
        }
    }
}
