//! Exact runs that go where they tell most, and scores that rest on cheap ones.

use crate::world::*;
use std::collections::{BTreeMap, BTreeSet};
use uspx_colony::campaign::MindPlan;
use uspx_colony::mask::{Budget, build};
use uspx_colony::*;
use uspx_domain::*;

fn led(name: &str) -> CampaignConfig {
    let mut config = campaign(name);
    config.mind = MindPlan::default();
    config
}

/// The prompts that each unit was asked of, round by round.
fn rounds(service: &Service) -> Vec<BTreeMap<Unit, Vec<u32>>> {
    let opened = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { stage: Stage::Explore, tasks, .. } => Some(tasks),
        _ => None,
    });
    let round = |tasks: &Vec<PlannedTask>| {
        let mut asked: BTreeMap<Unit, Vec<u32>> = BTreeMap::new();
        for task in tasks {
            let Work::Ablate(ablate) = &task.work else { panic!("{task:?}") };
            for cut in &ablate.cuts {
                let Cut::Unit(unit) = cut else { panic!("{cut:?}") };
                asked.entry(*unit).or_default().extend(&ablate.prompts);
            }
        }
        asked
    };
    opened.map(round).collect()
}

#[test]
fn the_first_round_is_on_all_units_alike_and_the_others_go_on_where_units_stopped() {
    let mut config = led("rounds");
    config.probe.exact_least = config.probe.exact_pairs;
    let (budget, first) = (config.probe.exact_pairs, config.mind.first);
    let (service, world) = honest(config);
    let rounds = rounds(&service);
    let units = shape().count(UnitKind::Expert);
    let each = first.of(budget as usize) / units;
    assert_eq!(rounds[0].len(), units);
    assert!(rounds[0].values().all(|prompts| prompts.len() == each));
    let mut seen: BTreeMap<Unit, BTreeSet<u32>> = BTreeMap::new();
    for (unit, prompts) in rounds.iter().flatten() {
        for prompt in prompts {
            assert!(seen.entry(*unit).or_default().insert(*prompt), "{unit} sees {prompt} twice");
        }
    }
    let spent: u64 = seen.values().map(|prompts| prompts.len() as u64).sum();
    assert_eq!(spent, service.colony.state().explored().pairs);
    assert!(spent <= budget + 8 && spent + 8 > budget, "{spent} of {budget}");
    assert_eq!(rounds.len(), 1 + world.config.mind.rounds as usize);

    // Who is open is looked at: those that got more lie nearer to the cut.
    let mask = service.colony.state().mask().unwrap();
    let away = |unit: &Unit| (world.effects[unit] - mask.cut).abs();
    let more = |(unit, prompts): (&Unit, &BTreeSet<u32>)| (prompts.len() > each, *unit);
    let (open, clear): (Vec<_>, Vec<_>) = seen.iter().map(more).partition(|(more, _)| *more);
    let mean =
        |of: &[(bool, Unit)]| of.iter().map(|(_, unit)| away(unit)).sum::<f64>() / of.len() as f64;
    assert!(!open.is_empty() && !clear.is_empty());
    assert!(mean(&open) < mean(&clear), "{} {}", mean(&open), mean(&clear));
}

/// Whatever comes and goes; retired prompts are not asked any more.
#[test]
fn no_unit_sees_a_prompt_twice_when_prompts_come_and_go() {
    let mut config = led("more");
    (config.probe.exact_pairs, config.probe.exact_least) = (1280, 1280);
    let (mut service, mut world) = honest(config);
    let before = rounds(&service).len();
    let new = (420..440).map(|at| PromptEntry::of(&prompt(&format!("p{at}")), Split::Train));
    world.config.prompts.extend(new);
    let gone: Vec<u32> = world.config.split(Split::Train).into_iter().step_by(9).collect();
    for at in &gone {
        world.config.prompts[*at as usize].split = Split::Retired;
    }
    (world.config.probe.exact_pairs, world.config.probe.exact_least) = (2560, 2560);
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    service.run(&world);
    let rounds = rounds(&service);
    assert!(rounds.len() > before);
    let later = || rounds.iter().skip(before).flat_map(|round| round.values()).flatten();
    assert!(later().all(|at| !gone.contains(at)));
    let mut seen: BTreeSet<(Unit, u32)> = BTreeSet::new();
    for (unit, at) in rounds.iter().flatten().flat_map(|(u, p)| p.iter().map(move |at| (*u, *at))) {
        assert!(seen.insert((unit, at)), "{unit} sees {at} twice");
    }
    let mut replayed = State::default();
    service.ledger.iter().for_each(|record| replayed.fold(record));
    assert_eq!(replayed.digest().unwrap(), service.colony.state().digest().unwrap());
}

/// What is added is a stratum of its own: it gets its share of the exact runs, and what was spent on prompts that are still
/// there counts on.
#[test]
fn new_prompts_get_their_share_of_exact_runs_and_old_ones_no_more() {
    let mut config = led("share");
    (config.probe.exact_pairs, config.probe.exact_least) = (1280, 1280);
    config.mind.memory = 0;
    let (mut service, mut world) = honest(config);
    let before = rounds(&service).len();
    let old = world.config.split(Split::Train);
    let new = (0..old.len()).map(|at| prompt(&format!("new{at}")));
    world.config.prompts.extend(new.map(|p| PromptEntry::of(&p, Split::Train)));
    for at in old.iter().step_by(2) {
        world.config.prompts[*at as usize].split = Split::Retired;
    }
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    service.run(&world);
    let merged = service.colony.state().campaign().unwrap();
    let generation = |at: u32| merged.prompts[at as usize].generation;
    let strata = mix::strata(service.colony.state());
    assert_eq!(strata.len(), 2);
    assert!((strata[1].weight - 2.0 / 3.0).abs() < 0.05, "{}", strata[1].weight);
    let rounds = rounds(&service);
    let later = || rounds.iter().skip(before).flat_map(|round| round.values()).flatten();
    let on_new = later().filter(|at| generation(**at) == 1).count() as u64;
    let share = strata[1].share_of(1280);
    assert!((share..share + 8).contains(&on_new), "{on_new} of {share}");
    assert_eq!(
        later().count() as u64,
        on_new,
        "a third is old, which half of all runs were spent on"
    );

    // What stands of a unit is what its strata say, by weight.
    let parts = controlled::parts(service.colony.state(), controlled::Say::Typical).unwrap();
    for (unit, own) in &parts.scores {
        let (mut mean, mut square) = (0.0, 0.0);
        for (score, stratum) in own.iter().zip(&strata) {
            mean += stratum.weight * score.mean;
            square += (stratum.weight * score.error).powi(2);
        }
        let score = service.colony.state().mask().unwrap().scores[unit];
        assert!((score.mean - mean).abs() < 1e-12 && (score.error - square.sqrt()).abs() < 1e-12);
    }
}

/// True effects of the units that a mask wrongly cuts, less those that it wrongly keeps.
fn lost(service: &Service, world: &World) -> f64 {
    let truth = truth(&world.config, &world.effects);
    let kept = Budget::of(&world.config).kept(&service.colony.state().mask().unwrap().mask);
    let sum = |units: &BTreeSet<Unit>| units.iter().map(|unit| world.effects[unit]).sum::<f64>();
    sum(&truth) - sum(&kept)
}

#[test]
fn it_finds_a_better_mask_for_as_many_pairs_than_rounds_by_the_pheromone() {
    let (mut by_worth, mut by_pheromone) = (0.0, 0.0);
    for seed in 0..8 {
        let of = |rounds| {
            let mut config = led("beside");
            config.seed = seed;
            (config.probe.exact_pairs, config.probe.exact_least) = (640, 640);
            (config.probe.round_pairs, config.probe.round_prompts) = (160, 8);
            config.probe.candidates = 0;
            config.mind.rounds = rounds;
            let (service, world) = honest(config);
            lost(&service, &world)
        };
        by_worth += of(4);
        by_pheromone += of(0);
    }
    assert!(by_worth < by_pheromone, "{by_worth} {by_pheromone}");
}

/// Taken from the answers themselves.
#[test]
fn effects_and_cheap_scores_are_known_prompt_by_prompt() {
    let mut config = led("corrected");
    config.probe.evaporation = Share::percent(100);
    (config.probe.exact_pairs, config.probe.exact_least) = (1280, 1280);
    config.trust.duplicates = Share::percent(0);
    let (service, world) = honest(config);
    let state = service.colony.state();
    let mut control: BTreeMap<Unit, BTreeMap<u32, f64>> = BTreeMap::new();
    let patched: Vec<u32> = service
        .ledger
        .iter()
        .filter_map(|record| match record {
            Record::EpochOpened { stage: Stage::Patch, tasks, .. } => Some(tasks),
            _ => None,
        })
        .flatten()
        .flat_map(|task| task.work.prompts().to_vec())
        .collect();
    let patch = PlannedTask::new(
        Digest([0; 32]),
        (1, 0),
        (
            world.config.teacher,
            Purpose::Evidence,
            Work::Estimate(Estimate {
                prompts: patched.clone(),
                estimator: Estimator::ATP,
                kinds: vec![UnitKind::Expert],
                baseline: Baseline::Mean,
            }),
        ),
    );
    let Outcome::Scores(deposit) = world.outcome(&patch) else { panic!() };
    for column in &deposit.columns {
        let values = patched.iter().copied().zip(column.values.iter().copied().map(f64::from));
        control.insert(column.unit, values.collect());
    }
    for unit in shape().units(UnitKind::Expert) {
        let asked: BTreeSet<u32> = rounds(&service)
            .iter()
            .flat_map(|round| round.get(&unit).cloned().unwrap_or_default())
            .collect();
        let known: BTreeSet<u32> = state.by_prompt().effects(unit).map(|(at, _)| at).collect();
        assert_eq!(known, asked, "{unit}");
        for at in &patched {
            let (value, _) = state.by_prompt().control.get(unit, *at).unwrap();
            assert!((value - control[&unit][at]).abs() < 1e-6, "{unit} {at}");
        }
    }
    let version = state.mask().unwrap();
    assert!(version.scores.values().all(|s| s.mean.is_finite() && s.error >= 0.0));
    let kept = build(&Budget::of(&world.config), &version.scores);
    assert_eq!(Budget::of(&world.config).kept(&version.mask), kept, "nothing is held back");
}

/// A campaign that has published, and these train prompts more.
fn grown(name: &str, more: u32) -> (Service, World) {
    let (mut service, mut world) = honest(led(name));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let new = (0..more).map(|at| prompt(&format!("new{at}")));
    world.config.prompts.extend(new.map(|p| PromptEntry::of(&p, Split::Train)));
    assert_eq!(service.want(&world.config), Amending::GoesOn);
    service.run(&world);
    (service, world)
}

#[test]
fn another_student_is_made_when_enough_prompts_are_new() {
    let train = led("count").split(Split::Train).len() as u32;
    let distils = |service: &Service| {
        let of = |r: &&Record| matches!(r, Record::EpochOpened { stage: Stage::Distil, .. });
        service.ledger.iter().filter(of).count()
    };
    // The second is no better than the first, which the gate says.
    let is_refused = |service: &Service| matches!(service.ending, Some(Ending::Refused(_)));
    let (service, _) = grown("enough", train / 10 + 1);
    assert!(is_refused(&service) && distils(&service) == 2, "{:?}", service.ending);

    // Too few: they are measured, and the student stays; a person's word makes another.
    let (mut service, world) = grown("few", train / 20);
    assert_eq!((service.ending.clone(), distils(&service)), (Some(Ending::Measured), 1));
    let left = (train / 10 - train / 20) as usize;
    assert_eq!(service.colony.state().still_lacks(), Some(left));
    let step = service.colony.step(Event::Build);
    assert_eq!(step.records.first(), Some(&Record::StudentAsked));
    service.ending = None;
    service.take(step);
    service.run(&world);
    assert!(is_refused(&service) && distils(&service) == 2, "{:?}", service.ending);
    assert_eq!(service.colony.step(Event::Build).records, [], "there is nothing to make");
    let mut replayed = State::default();
    service.ledger.iter().for_each(|record| replayed.fold(record));
    assert_eq!(replayed.digest().unwrap(), service.colony.state().digest().unwrap());
}
