//! Votes and likelihoods, against what was counted by hand.

use super::*;
use crate::labels::TokenLabel;
use uspx_domain::{Digest, Fingerprint};

fn prompt(id: &str, reference: Option<&str>) -> Prompt {
    let reference = reference.map(str::to_owned);
    Prompt { id: id.into(), prompt: "list".into(), reference, ..Prompt::default() }
}

fn text(prompt: &Prompt, answer: &str) -> PromptLabels {
    PromptLabels::text(prompt.clone(), answer.into())
}

/// A prompt with its targets and samples.
fn answers(prompt: &Prompt, targets: &[&str], samples: &[&str]) -> Answers {
    let all = |texts: &[&str]| texts.iter().map(|answer| text(prompt, answer)).collect();
    Answers { prompt: prompt.clone(), targets: all(targets), samples: all(samples) }
}

fn texts(all: &[PromptLabels]) -> Vec<&str> {
    all.iter().map(|answer| answer.answer.as_str()).collect()
}

fn judged(one: Answers, least: f32) -> (Answers, Vec<Skipped>) {
    let samples = 4;
    let (mut kept, skipped) = consistent(vec![one], Votes { samples, least });
    (kept.remove(0), skipped)
}

#[test]
fn a_reference_stays_with_enough_votes_and_is_named_without() {
    let asked = prompt("a", Some("ls"));
    let one = || answers(&asked, &["ls"], &["ls\n", "dir", "dir", "dir"]);
    let (kept, skipped) = judged(one(), 0.25);
    assert_eq!((texts(&kept.targets), skipped), (vec!["ls"], vec![]));
    let (kept, skipped) = judged(one(), 0.5);
    // The reference gives way to nothing; the answer that most samples give stays one of them.
    assert_eq!((texts(&kept.targets), texts(&kept.samples)), (vec![], vec!["dir"; 3]));
    let reason = SkipReason::Inconsistent { agreeing: 1, samples: 4 };
    assert_eq!(skipped, [Skipped { id: "a".into(), reason }]);
}

#[test]
fn the_teacher_s_answer_gives_way_to_that_of_most_samples() {
    let asked = prompt("a", None);
    let (kept, skipped) = judged(answers(&asked, &["ls"], &["dir", "x", "dir", "ls"]), 0.5);
    assert_eq!((texts(&kept.targets), skipped), (vec!["dir"], vec![]));
    let (kept, skipped) = judged(answers(&asked, &["ls"], &["dir", "x", "dir", "ls"]), 0.75);
    let reason = SkipReason::Inconsistent { agreeing: 2, samples: 4 };
    assert_eq!(skipped, [Skipped { id: "a".into(), reason }]);
    assert!(kept.targets.is_empty() && kept.samples.is_empty());
    // Of equals it stays.
    let (kept, _) = judged(answers(&asked, &["ls"], &["dir", "ls", "dir", "ls"]), 0.5);
    assert_eq!(texts(&kept.targets), ["ls"]);
}

#[test]
fn an_answer_that_was_cut_off_has_no_vote_and_a_missing_sample_is_for_none() {
    let asked = prompt("a", None);
    let mut one = answers(&asked, &["ls"], &["ls", "ls", "ls"]);
    one.samples[0].ended = false;
    // Two of the four that were asked for.
    assert_eq!(texts(&judged(one.clone(), 0.5).0.targets), ["ls"]);
    assert!(judged(one.clone(), 0.51).0.targets.is_empty());
    one.targets[0].ended = false;
    assert!(judged(one, 0.75).0.targets.is_empty());
}

#[test]
fn shares_are_not_lost_to_rounding() {
    for (agreeing, samples) in [(7, 10), (3, 10), (1, 3), (2, 3), (9, 10)] {
        let least = agreeing as f32 / samples as f32;
        let votes = Votes { samples, least };
        assert!(votes.is_enough(agreeing) && !votes.is_enough(agreeing - 1), "{least}");
    }
}

/// Labels of two tokens a prompt.
fn labels(prompts: &[(&Prompt, &str, [f32; 2])]) -> Labels {
    let token =
        |log_prob| TokenLabel { piece: 0, start: 0, end: 0, log_prob, top: vec![], tail: 1.0 };
    let label = |(prompt, answer, log_probs): &(&Prompt, &str, [f32; 2])| PromptLabels {
        tokens: log_probs.map(token).into(),
        ..text(prompt, answer)
    };
    let (teacher, vocabulary) = (Fingerprint(Digest::of(b"t")), Digest::of(b"v"));
    Labels { teacher, vocabulary, pieces: vec![], prompts: prompts.iter().map(label).collect() }
}

#[test]
fn only_references_are_judged_by_their_nats_per_byte() {
    let (a, b, c) = (prompt("a", Some("ls")), prompt("b", Some("cd ..")), prompt("c", None));
    let mut all = labels(&[
        (&a, "ls", [-3.0, -1.002]),
        (&b, "cd ..", [-4.0, -1.0]),
        (&b, "dir", [-9.0, -9.0]),
        (&c, "ls", [-9.0, -9.0]),
    ]);
    let unlabelled = PromptLabels { tokens: vec![], ..text(&a, "ls") };
    all.prompts.push(unlabelled);
    let skipped = likely(&mut all, 2.0);
    let reason = SkipReason::Unlikely { millinats: 2001 };
    assert_eq!(skipped, [Skipped { id: "a".into(), reason }]);
    assert_eq!(texts(&all.prompts), ["cd ..", "dir", "ls", "ls"]);
    assert_eq!(
        reason.to_string(),
        "the teacher finds its reference unlikely, at 2.001 nats per byte"
    );
}

#[test]
fn only_the_person_s_own_prompts_are_named() {
    let skipped = |id: &str| Skipped { id: id.into(), reason: SkipReason::Empty };
    let left = of_prompts(&[prompt("a", None)], vec![skipped("sample-1-a"), skipped("a")]);
    assert_eq!(left, [skipped("a")]);
}
