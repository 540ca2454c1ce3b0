//! Which answers of a prompt are learned.

use super::*;

fn prompt(id: &str, reference: Option<&str>) -> Prompt {
    let reference = reference.map(str::to_owned);
    Prompt { id: id.into(), prompt: "list".into(), reference, ..Prompt::default() }
}

fn said(prompt: &Prompt, answer: &str) -> Said {
    Ok(PromptLabels::text(prompt.clone(), answer.into()))
}

/// Ids and answers of what is learned.
fn learned(all: Vec<Answers>) -> Vec<(String, String)> {
    let lessons = all.into_iter().flat_map(Answers::lessons);
    lessons.map(|lesson| (lesson.prompt.id, lesson.answer)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, answer)| ((*id).to_owned(), (*answer).to_owned())).collect()
}

/// A prompt with a reference, one without, and one to which the teacher says nothing.
fn asked(target: Target) -> (Vec<Answers>, Vec<Skipped>) {
    let prompts = [prompt("a", Some("ls")), prompt("b", None), prompt("c", None)];
    let own = prompts.iter().filter(|p| target.asks(p)).map(|p| {
        let own = if p.id == "c" { Err(SkipReason::Empty) } else { said(p, "dir") };
        (p.id.clone(), vec![own])
    });
    gathered(&prompts, target, (own.collect(), HashMap::new()))
}

#[test]
fn a_target_is_the_reference_the_teacher_s_answer_or_both() {
    let left_out = vec![Skipped { id: "c".into(), reason: SkipReason::Empty }];
    for (target, wanted) in [
        (Target::Reference, &[("a", "ls"), ("b", "dir")][..]),
        (Target::Teacher, &[("a", "dir"), ("b", "dir")]),
        (Target::Both, &[("a", "ls"), ("teacher-a", "dir"), ("b", "dir")]),
    ] {
        let (all, skipped) = asked(target);
        assert_eq!((learned(all), &skipped), (pairs(wanted), &left_out), "{target:?}");
    }
}

#[test]
fn samples_are_lessons_of_their_own_unless_they_repeat_one() {
    let prompts = [prompt("a", Some("ls"))];
    let [only] = &prompts;
    let cut = PromptLabels { ended: false, ..PromptLabels::text(only.clone(), "ls".into()) };
    let drawn = ["ls", "dir", "dir", "ls -l"].iter().map(|answer| said(only, answer));
    let drawn = drawn.chain([Err(SkipReason::Unfinished { tokens: 3 }), Ok(cut)]).collect();
    let replies = (HashMap::new(), HashMap::from([("a".to_owned(), drawn)]));
    let (all, skipped) = gathered(&prompts, Target::Reference, replies);
    assert_eq!((all[0].samples.len(), skipped), (5, vec![]));
    let wanted =
        [("a", "ls"), ("sample-2-a", "dir"), ("sample-4-a", "ls -l"), ("sample-5-a", "ls")];
    assert_eq!(learned(all), pairs(&wanted));
}
