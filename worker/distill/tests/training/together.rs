//! Several machines that train one adapter: rehearsed on one, and round by round as tasks.

use super::{labels, open};
use std::path::Path;
use std::slice::from_ref;
use uspx_distill::together::Told;
use uspx_distill::together::part::{PartRequest, Said, end, take_part};
use uspx_distill::{
    DistilRequest, DistillError, Distilled, Exchanged, Labels, Sharing, distil, load_adapter,
    recipe_teacher,
};
use uspx_domain::DistilRecipe;
use uspx_model::NoProgress;

fn recipe() -> DistilRecipe {
    let recipe = recipe_teacher();
    DistilRecipe {
        rank: 4,
        alpha: 8.0,
        epochs: 3,
        batch_tokens: 384,
        teacher_weight: 0.5,
        ..recipe
    }
}

/// The same as a coordinator asks three machines: a third of a step for each.
fn part() -> DistilRecipe {
    DistilRecipe { batch_tokens: 128, ..recipe() }
}

fn sharing() -> Sharing {
    Sharing { steps: 5, told: 0.02, ..Sharing::among(3) }
}

/// Judged on what it learns from.
fn train() -> &'static [Labels] {
    from_ref(&labels().0)
}

fn trained(sharing: Option<Sharing>) -> Distilled {
    let recipe = recipe();
    let request = DistilRequest { sharing, ..DistilRequest::new(train(), train(), &recipe) };
    distil(&mut open("student"), &request, &NoProgress).unwrap()
}

#[test]
fn several_machines_learn_most_of_what_one_does_and_say_little() {
    let (alone, shared) = (trained(None), trained(Some(sharing())));
    let gain = |made: &Distilled| made.summary.before - made.summary.after;
    assert!(gain(&shared) > 0.5 * gain(&alone), "{:?} {:?}", shared.summary, alone.summary);
    assert_eq!(shared.summary.before, alone.summary.before);
    assert_eq!(shared.pace.tokens, alone.pace.tokens);
    let told = shared.exchanged;
    assert!(told.rounds > 3 && told.bytes > 0, "{told:?}");
    // As much as it was allowed to, and the words' own frames.
    assert!(told.bytes < told.per_step / 40, "{told:?}");
    assert_eq!(alone.exchanged, Exchanged::default());
    load_adapter(&mut open("student"), &shared.adapter).unwrap();
    // The same once more, to the bit.
    assert_eq!(trained(Some(sharing())).adapter, shared.adapter);
}

fn after<'a>(recipe: &'a DistilRecipe, rounds: &'a [(usize, Vec<Told>)]) -> PartRequest<'a> {
    let (train, sharing) = (train(), sharing());
    PartRequest { train, validation: train, recipe, sharing, rounds }
}

/// A round's words by machines that keep what is theirs in files of a folder; those of `lost` are not heard.
fn round(
    request: &PartRequest<'_>,
    (machines, lost): (usize, &[usize]),
    folder: &Path,
) -> (Vec<Told>, Vec<Said>) {
    let part = |at: usize| {
        let file = folder.join(at.to_string());
        take_part(&mut open("student"), request, ((at, machines), Some(&file)), &NoProgress)
    };
    let all = (0..machines).map(|at| part(at).unwrap());
    let said: Vec<Said> =
        all.enumerate().filter(|(at, _)| !lost.contains(at)).map(|(_, said)| said).collect();
    (said.iter().map(|s| s.told.clone()).collect(), said)
}

#[test]
fn rounds_that_are_tasks_make_what_the_rehearsal_makes() {
    let (recipe, folder) = (part(), tempfile::tempdir().unwrap());
    let mut rounds = Vec::new();
    let (rehearsed, mut passes) = (trained(Some(sharing())), 0);
    assert_eq!(rehearsed.summary.best_epoch, recipe.epochs, "made once");
    loop {
        let (told, said) = round(&after(&recipe, &rounds), (3, &[]), folder.path());
        assert_eq!(said[0].loss.is_some(), said[0].epoch > passes, "judged once a pass");
        passes = said[0].epoch;
        assert!(said[1..].iter().all(|s| s.loss.is_none() && s.left == said[0].left));
        rounds.push((3, told));
        if said[0].left == 0 {
            break;
        }
    }
    let made = end(&mut open("student"), &after(&recipe, &rounds), &NoProgress).unwrap();
    assert_eq!((made.exchanged, made.summary), (rehearsed.exchanged, rehearsed.summary));
    assert!(made.adapter == rehearsed.adapter, "not the same adapter");
    let over =
        take_part(&mut open("student"), &after(&recipe, &rounds), ((0, 1), None), &NoProgress);
    assert!(matches!(over, Err(DistillError::Recipe(_))), "{over:?}");
}

#[test]
fn machines_come_go_and_are_lost_and_their_memories_too() {
    let (recipe, folder) = (part(), tempfile::tempdir().unwrap());
    let mut rounds = Vec::new();
    for (machines, lost) in [(2, &[][..]), (4, &[1, 2]), (1, &[0]), (3, &[])] {
        let (told, _) = round(&after(&recipe, &rounds), (machines, lost), folder.path());
        rounds.push((machines, told));
        // Damaged, and another student's: that machine begins anew.
        std::fs::write(folder.path().join("0"), b"no memory").unwrap();
    }
    let made = |rounds: &[_]| end(&mut open("student"), &after(&recipe, rounds), &NoProgress);
    let summary = made(&rounds).unwrap().summary;
    assert!(summary.after < summary.before, "{summary:?}");
    // Words that are none cost no more than the share of who says them.
    rounds[3].1.push(Told { bytes: b"no words".to_vec(), tokens: 9 });
    assert_eq!(made(&rounds).unwrap().summary, summary);
}

#[test]
fn nobody_to_share_with_is_refused() {
    let recipe = recipe();
    for sharing in [Sharing::among(0), Sharing { steps: 0, ..Sharing::among(2) }] {
        let sharing = Some(sharing);
        let request = DistilRequest { sharing, ..DistilRequest::new(train(), train(), &recipe) };
        let refused = distil(&mut open("student"), &request, &NoProgress);
        assert!(matches!(refused, Err(DistillError::Recipe(_))), "{refused:?}");
    }
}
