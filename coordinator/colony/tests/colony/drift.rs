//! Prompts of another kind are told from more of the same.

use crate::world::*;
use uspx_colony::campaign::MindPlan;
use uspx_colony::drift::Drift;
use uspx_colony::resample::Resampled;
use uspx_colony::*;
use uspx_domain::Unit;

/// What was said of the newest prompts at each version of the mask.
type Said = Vec<Option<Drift>>;

fn said(service: &Service) -> Option<Drift> {
    let state = service.colony.state();
    Drift::of(state, &Resampled::of(state)?)
}

/// A campaign whose prompts need what they need together, some of them more of all of it; then so many are added, of the
/// same kind or of one that needs other units.
fn added(seed: u64, new: u32, is_other: bool) -> Said {
    let mut config = campaign("drift");
    (config.mind, config.student, config.seed) = (MindPlan::default(), None, seed);
    (config.probe.exact_pairs, config.probe.exact_least) = (1280, 1280);
    config.trust.duplicates = Share::percent(0);
    let mut world = World::new(config);
    world.hardness = 0.5;
    let mut service = run(&world);
    assert_eq!(said(&service), None, "all are of one age");
    if is_other {
        let moved =
            |(unit, effect): (Unit, f64)| (Unit { index: (unit.index + 2) % 16, ..unit }, effect);
        world.later = Some((420, effects(seed + 1000).into_iter().map(moved).collect()));
    }
    let more = (0..new).map(|at| PromptEntry::of(&prompt(&format!("new{at}")), Split::Train));
    world.config.prompts.extend(more);
    let mut told = Vec::new();
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    let mut seen = service.masks.len();
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        service.answer(world.answer(&task, &worker));
        if service.masks.len() > seen {
            seen = service.masks.len();
            told.push(said(&service));
        }
    }
    told
}

/// In how many of so many seeds it is ever said, whenever a mask is drawn.
fn flagged(seeds: u64, new: u32, is_other: bool) -> usize {
    let is_said = |said: &Option<Drift>| said.as_ref().is_some_and(|drift| drift.drifted);
    let ever = |seed: &u64| {
        let told = added(*seed, new, is_other);
        let last = told.last().cloned().flatten().unwrap();
        assert_eq!((last.newest, last.older, last.generation), (new, 300, 1));
        // Each is the best where it is drawn for.
        let (older, newest, mask) = (last.by_older, last.by_newest, last.by_mask);
        assert!(
            older.on_older <= mask.on_older + 1e-12 && newest.on_newest <= mask.on_newest + 1e-12
        );
        assert!((last.change - (older.on_newest - older.on_older)).abs() < 1e-12);
        told.iter().any(is_said)
    };
    (0..seeds).filter(ever).count()
}

#[test]
fn more_of_the_same_is_no_drift() {
    // In 4 of 120 it is said (60 seeds of each): of 40 more than 3 would be a surprise.
    let said = [20, 100].map(|new| flagged(20, new, false));
    assert!(said.iter().sum::<usize>() <= 3, "{said:?}");
}

#[test]
fn another_kind_is() {
    for new in [20, 100] {
        assert_eq!(flagged(5, new, true), 5, "{new}");
    }
}

#[test]
fn few_new_prompts_are_not_judged() {
    let told = added(1, 5, true);
    assert!(told.iter().all(Option::is_none), "{told:?}");
}
