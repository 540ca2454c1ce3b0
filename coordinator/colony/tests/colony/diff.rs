//! What changed between two versions of the mask, against the ledger itself.

use crate::world::*;
use std::collections::{BTreeMap, BTreeSet};
use uspx_colony::campaign::MindPlan;
use uspx_colony::diff::{Flipped, Versions, diff};
use uspx_colony::mask::Budget;
use uspx_colony::*;
use uspx_domain::*;

fn led(name: &str, pairs: u64) -> CampaignConfig {
    let mut config = campaign(name);
    config.mind = MindPlan::default();
    (config.probe.exact_pairs, config.probe.exact_least) = (pairs, pairs);
    config
}

fn versions(ledger: &[Record], wanted: &[u32]) -> Versions {
    let mut versions = Versions::of(wanted.iter().copied());
    ledger.iter().for_each(|record| versions.note(record));
    versions
}

/// The masks that the ledger decided, in order.
fn decided(ledger: &[Record]) -> Vec<Mask> {
    let of = |record: &Record| match record {
        Record::EpochClosed { decision, .. } => Some(decision.as_ref()?.mask.clone()),
        _ => None,
    };
    ledger.iter().filter_map(of).collect()
}

/// Exact effects per token as answers have them, up to the close of an epoch.
fn effects(ledger: &[Record], epoch: u32) -> BTreeMap<(Unit, u32), f64> {
    let (mut tasks, mut effects) = (BTreeMap::new(), BTreeMap::new());
    for record in ledger {
        match record {
            Record::EpochOpened { epoch: opened, .. } if *opened > epoch => break,
            Record::EpochOpened { tasks: new, .. } => tasks.extend(new.iter().map(|t| (t.id, t))),
            Record::Accepted { answer } => {
                let Work::Ablate(ablate) = &tasks[&answer.task].work else { continue };
                let Outcome::Losses(rows) = &answer.outcome else { panic!() };
                for (cut, row) in ablate.cuts.iter().zip(&rows[1..]) {
                    let Cut::Unit(unit) = cut else { continue };
                    for (i, at) in ablate.prompts.iter().enumerate() {
                        let rise = f64::from(row.nats[i]) - f64::from(rows[0].nats[i]);
                        effects
                            .entry((*unit, *at))
                            .or_insert(rise / f64::from(row.prompts[i].tokens));
                    }
                }
            }
            _ => {}
        }
    }
    effects
}

#[test]
fn units_that_changed_sides_are_told_with_what_they_rest_on() {
    let (service, _) = honest(led("sides", 2560));
    let masks = decided(&service.ledger);
    let last = masks.len() as u32;
    let found = versions(&service.ledger, &[1, last, last + 1]);
    assert_eq!((found.last(), found.state(last + 1)), (Some(last), None));
    let (then, now) = (found.state(1).unwrap(), found.state(last).unwrap());
    let told = diff(then, now, 3).unwrap();
    assert_eq!((told.then.version, told.now.version), (1, last));

    let config = now.campaign().unwrap();
    let kept = |mask: &Mask| Budget::of(config).kept(mask);
    let (old, new) = (kept(&masks[0]), kept(&masks[masks.len() - 1]));
    let named = |kept: bool| -> BTreeSet<Unit> {
        let units = told.changed.iter().filter(|c| c.kept == kept);
        units.map(|c| c.unit.parse().unwrap()).collect()
    };
    assert_eq!(named(true), new.difference(&old).copied().collect());
    assert_eq!(named(false), old.difference(&new).copied().collect());
    assert!(!named(true).is_empty(), "cheap scores and exact effects agree of nothing");

    let effects = effects(&service.ledger, u32::MAX);
    for unit in &told.changed {
        let drawn = now.mask().unwrap();
        let score = drawn.scores[&unit.unit.parse().unwrap()];
        assert_eq!(unit.now.unwrap().mean, drawn.basis.told(score.mean));
        let of = |need: &why::Need| {
            let at = config.prompts.iter().position(|p| p.id == need.prompt).unwrap() as u32;
            effects[&(unit.unit.parse().unwrap(), at)]
        };
        assert!(unit.needed_by.len() <= 3 && unit.needed_by.is_sorted_by(|a, b| a.rise >= b.rise));
        assert!(unit.needed_by.iter().all(|n| n.rise > 0.0 && (n.rise - of(n)).abs() < 1e-5));
    }
    assert_eq!(diff(now, now, 3).unwrap().changed, []);
    assert_eq!(diff(&State::default(), now, 3), None);
}

#[test]
fn prompts_are_told_of_which_the_evidence_says_otherwise_now() {
    let mut config = led("prompts", 1280);
    config.mask.hysteresis = 0.0;
    // Units all alike: each round's evidence draws another mask.
    let mut world = World::new(config);
    world.effects.values_mut().for_each(|effect| *effect = 0.02);
    let service = run(&world);
    let last = decided(&service.ledger).len() as u32;
    let all: Vec<u32> = (3..=last).collect();
    let found = versions(&service.ledger, &all);
    let now = found.state(last).unwrap();
    let turned: usize =
        (3..last).map(|then| turned(&service.ledger, (found.state(then).unwrap(), now))).sum();
    assert!(turned > 0, "the evidence turns no prompt");
}

/// Checks the prompts that are told of two versions, and counts those that turned.
fn turned(ledger: &[Record], (then, now): (&State, &State)) -> usize {
    let told = diff(then, now, usize::MAX).unwrap();
    let gains = |state: &State| {
        let mut gains: BTreeMap<u32, f64> = BTreeMap::new();
        for ((unit, at), effect) in effects(ledger, state.epoch()) {
            let side = told.changed.iter().find(|c| c.unit == unit.to_string());
            if let Some(changed) = side {
                *gains.entry(at).or_default() += if changed.kept { effect } else { -effect };
            }
        }
        gains
    };
    let (old, new) = (gains(then), gains(now));
    let config = now.campaign().unwrap();
    let near = |told: Option<f64>, own: Option<&f64>| match (told, own) {
        (Some(told), Some(own)) => (told - own).abs() < 1e-5,
        (told, own) => told.is_none() && own.is_none(),
    };
    for prompt in &told.flipped {
        let at = config.prompts.iter().position(|p| p.id == prompt.prompt).unwrap() as u32;
        let is_right = near(prompt.then, old.get(&at)) && near(Some(prompt.now), new.get(&at));
        assert!(is_right, "{prompt:?}");
        assert!(prompt.then != Some(prompt.now) && prompt.tried > 0);
    }
    let by = |f: &Flipped| (f.now - f.then.unwrap_or(0.0)).abs();
    let turned = told.flipped.iter().filter(|f| f.has_turned()).count();
    assert!(told.flipped.iter().take(turned).all(Flipped::has_turned), "they come first");
    for part in [&told.flipped[..turned], &told.flipped[turned..]] {
        assert!(part.is_sorted_by(|a, b| by(a) >= by(b)));
    }
    let first = &told.flipped[..told.flipped.len().min(1)];
    assert_eq!(diff(then, now, 1).unwrap().flipped, first);
    turned
}

#[test]
fn versions_are_those_of_the_latest_campaign() {
    let (mut service, mut world) = honest(led("before", 640));
    let before = versions(&service.ledger, &[1]);
    world.config.name = "after".into();
    service.ending = None;
    service.found(&world.config);
    service.run(&world);
    let after = versions(&service.ledger, &[1]);
    let epoch = |of: &Versions| of.state(1).unwrap().epoch();
    assert!(epoch(&after) > epoch(&before));
}
