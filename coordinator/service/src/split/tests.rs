//! Splits, against a brute-force search for near-duplicates.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn prompt(id: usize, text: &str) -> Prompt {
    let id = id.to_string();
    Prompt { id, prompt: text.to_owned(), ..Prompt::default() }
}

fn prompts(texts: &[String]) -> Vec<Prompt> {
    texts.iter().enumerate().map(|(at, text)| prompt(at, text)).collect()
}

/// Texts that differ from one another.
fn different(count: usize) -> Vec<String> {
    (0..count).map(|n| Dice::new(1, &n.to_string(), 0).below(1 << 31)).map(spell).collect()
}

fn spell(mut number: u32) -> String {
    let mut text = String::new();
    for _ in 0..8 {
        text.push_str(["ka", "lo", "mi", "ru", "te", "so", "ni", "pa"][number as usize % 8]);
        number /= 7;
    }
    text
}

fn splits(
    prompts: Vec<Prompt>,
    known: impl Fn(&Prompt) -> Option<Split>,
) -> BTreeMap<String, Split> {
    let book = split(prompts, 3, known).unwrap().book;
    book.entries().into_iter().map(|e| (e.id, e.split)).collect()
}

fn count(splits: &BTreeMap<String, Split>, split: Split) -> usize {
    splits.values().filter(|s| **s == split).count()
}

#[test]
fn near_duplicates_stay_together_and_shares_are_kept() {
    let mut texts = different(400);
    let twins: Vec<String> = texts.iter().map(|t| format!("{} ", t.to_uppercase())).collect();
    texts.extend(twins);
    let found = splits(prompts(&texts), |_| None);
    for at in 0..400 {
        assert_eq!(found[&at.to_string()], found[&(at + 400).to_string()], "{at} and its twin");
    }
    let (gate, validation) = (count(&found, Split::Gate), count(&found, Split::Validation));
    assert!((110..=120).contains(&gate) && (34..=40).contains(&validation), "{gate} {validation}");
}

#[test]
fn a_prompt_keeps_its_split_when_others_are_added() {
    let texts = different(300);
    let before = splits(prompts(&texts[..200]), |_| None);
    let after = splits(prompts(&texts), |p| before.get(&p.id).copied());
    assert!(before.iter().all(|(id, split)| after[id] == *split));
    assert!((40..=45).contains(&count(&after, Split::Gate)), "{}", count(&after, Split::Gate));
    // A near-duplicate of a known prompt goes where that is.
    let gate = before.iter().find(|(_, split)| **split == Split::Gate).unwrap().0;
    let mut more = prompts(&texts[..200]);
    more.push(prompt(999, &format!("{}!", texts[gate.parse::<usize>().unwrap()])));
    assert_eq!(splits(more, |p| before.get(&p.id).copied())["999"], Split::Gate);
}

#[test]
fn three_different_prompts_are_the_least() {
    let texts =
        |texts: &[&str]| prompts(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
    let least = splits(texts(&["list files", "show the weather", "stop"]), |_| None);
    assert!([Split::Train, Split::Validation, Split::Gate].iter().all(|s| count(&least, *s) == 1));
    let alike = texts(&["list all the files", "List all the files!", "list  all the files"]);
    let error = split(alike, 0, |_| None).unwrap_err();
    assert!(matches!(error, ServiceError::TooFewPrompts { different: 1 }), "{error}");
}

/// Connected components of the near-duplicate graph, by comparing every pair.
fn brute(texts: &[String]) -> BTreeSet<BTreeSet<usize>> {
    let sets: Vec<BTreeSet<u64>> = texts.iter().map(|t| grams(t).into_iter().collect()).collect();
    let alike = |a: usize, b: usize| {
        let shared = sets[a].intersection(&sets[b]).count() as f64;
        shared / (sets[a].len() + sets[b].len()) as f64 >= 0.6 / 1.6 - 1e-12
    };
    let mut groups: Vec<BTreeSet<usize>> = Vec::new();
    for at in 0..texts.len() {
        let (joined, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.iter().any(|other| alike(at, *other)));
        groups = apart;
        groups.push(joined.into_iter().flatten().chain([at]).collect());
    }
    groups.into_iter().collect()
}

proptest! {
    #[test]
    fn the_prefix_filter_misses_no_pair(texts in prop::collection::vec("[ab ]{0,14}", 0..40)) {
        let views: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = clusters(&views).into_iter().map(|c| c.into_iter().collect()).collect();
        prop_assert_eq!(brute(&texts), found);
    }
}
