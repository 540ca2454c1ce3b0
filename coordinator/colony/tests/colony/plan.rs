//! What the planner plans: everything once, gate prompts for judgement only, budgets kept, names
//! that never change.

use crate::world::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use uspx_colony::plan::{Next, Speeds, plan};
use uspx_colony::*;
use uspx_domain::{Ablate, Cut, Work};

fn opened() -> &'static Vec<(Stage, Vec<PlannedTask>)> {
    static OPENED: OnceLock<Vec<(Stage, Vec<PlannedTask>)>> = OnceLock::new();
    let batch = |record: Record| match record {
        Record::EpochOpened { stage, tasks, .. } => Some((stage, tasks)),
        _ => None,
    };
    OPENED.get_or_init(|| {
        honest(campaign("planned")).0.ledger.into_iter().filter_map(batch).collect()
    })
}

fn of(stage: Stage) -> impl Iterator<Item = &'static PlannedTask> {
    opened().iter().filter(move |(s, _)| *s == stage).flat_map(|(_, tasks)| tasks)
}

#[test]
fn the_stages_come_in_order_and_names_are_unique() {
    let stages: Vec<Stage> = opened().iter().map(|(s, _)| *s).collect();
    assert!(stages.is_sorted(), "{stages:?}");
    assert_eq!(stages.iter().collect::<BTreeSet<_>>().len(), 8);
    let all: Vec<_> = opened().iter().flat_map(|(_, tasks)| tasks.iter().map(|t| t.id)).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

/// Whoever proposes and allocates, the golden campaign's epochs stay as they were, byte for byte.
#[test]
fn the_epochs_of_the_golden_campaign_are_pinned() {
    let bytes = rmp_serde::to_vec_named(opened()).unwrap();
    assert_eq!(uspx_domain::Digest::of(&bytes).hex(), GOLDEN);
}

const GOLDEN: &str = "caf666cff30a81967407e2a3a1ec81b832179858830fcf68a996f6e3926f3cd0";

#[test]
fn planning_again_gives_the_same_tasks() {
    let (service, _) = honest(campaign("again"));
    let mut state = State::default();
    let mut plans = 0;
    for record in &service.ledger {
        if let Record::EpochOpened { stage, tasks, .. } = record {
            assert_eq!(
                plan(&state, &Speeds::default()),
                Next::Open { stage: *stage, tasks: tasks.clone() }
            );
            plans += 1;
        }
        state.fold(record);
        if state.is_open() {
            assert_eq!(plan(&state, &Speeds::default()), Next::Wait);
        }
    }
    assert!(plans > 8);
}

#[test]
fn labels_have_the_bounds_of_the_campaign() {
    let mut config = campaign("bounds");
    (config.distil.max_new_tokens, config.distil.max_reasoning_tokens) = (7, 77);
    let opened = honest(config.clone()).0.ledger.into_iter().filter_map(|record| match record {
        Record::EpochOpened { stage: Stage::Label, tasks, .. } => Some(tasks),
        _ => None,
    });
    let tasks: Vec<PlannedTask> = opened.flatten().collect();
    let text = |id: &str| Some(prompt(id));
    let bounds = |task: &PlannedTask| match task.attach(&config, text).unwrap().work {
        Work::Label(label) => (label.max_new_tokens, label.max_reasoning_tokens),
        other => panic!("{}", other.name()),
    };
    assert!(!tasks.is_empty() && tasks.iter().all(|task| bounds(task) == (7, 77)));
}

#[test]
fn new_prompts_and_samples_are_asked_for_beside_train_prompts_alone() {
    let mut config = campaign("dreams");
    config.answers.samples = 4;
    config.seed = 77;
    config.dream = CampaignConfig::new("usual", (config.teacher, shape()), None, vec![]).dream;
    let (service, _) = honest(config);
    let of = |task: &PlannedTask| match (&task.purpose, &task.work) {
        (Purpose::Labels(split), Work::Label(label)) => {
            let drawn = (label.answering.samples, label.seed);
            assert_eq!(drawn, if *split == Split::Train { (4, 77) } else { (0, 0) });
            Some((*split, label.dreams.rounds))
        }
        _ => None,
    };
    let tasks = service.ledger.iter().filter_map(|record| match record {
        Record::EpochOpened { tasks, .. } => Some(tasks),
        _ => None,
    });
    let asked: Vec<(Split, u32)> = tasks.flatten().filter_map(of).collect();
    assert!(asked.iter().all(|(split, n)| *n == if *split == Split::Train { 8 } else { 0 }));
    assert!(asked.iter().any(|(_, n)| *n == 8) && asked.iter().any(|(_, n)| *n == 0));
    // A campaign from before there were any has none, and keeps its bytes.
    let old = campaign("old");
    let bytes = rmp_serde::to_vec_named(&old).unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"\xa5dream"));
    assert!(!bytes.windows(8).any(|w| w == b"\xa7answers"));
    let read: CampaignConfig = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(read, old);
}

#[test]
fn every_prompt_is_traced_and_labelled_once() {
    let config = campaign("planned");
    let places = |stage| of(stage).flat_map(|t| t.work.prompts().to_vec()).collect::<Vec<_>>();
    let mut traced = places(Stage::Trace);
    traced.sort_unstable();
    assert_eq!(traced, config.split(Split::Train));
    let mut labelled = places(Stage::Label);
    labelled.sort_unstable();
    assert_eq!(labelled, [config.split(Split::Train), config.split(Split::Validation)].concat());
}

#[test]
fn gate_prompts_are_for_judgement_only() {
    let config = campaign("planned");
    for (stage, tasks) in opened() {
        let splits: BTreeSet<Split> = tasks
            .iter()
            .flat_map(|t| t.work.prompts())
            .map(|at| config.prompts[*at as usize].split)
            .collect();
        match stage {
            Stage::JudgeMasks => assert_eq!(splits, [Split::Validation, Split::Gate].into()),
            Stage::JudgeStudents => assert_eq!(splits, [Split::Gate].into()),
            _ => assert!(!splits.contains(&Split::Gate), "{stage:?}"),
        }
    }
}

#[test]
fn every_mask_is_judged_once_on_every_gate_prompt() {
    let config = campaign("planned");
    let mut seen: BTreeMap<(TrialRole, u32), u32> = BTreeMap::new();
    for task in of(Stage::JudgeMasks) {
        let (Work::Ablate(ablate), Purpose::Trials(roles)) = (&task.work, &task.purpose) else {
            panic!("{} for {:?}", task.work.name(), task.purpose)
        };
        assert_eq!(roles.len(), ablate.cuts.len());
        for (cut, role) in ablate.cuts.iter().zip(roles) {
            let Cut::Mask(mask) = cut else { panic!("{cut:?}") };
            mask.check(&config.shape).unwrap();
            ablate.prompts.iter().for_each(|at| *seen.entry((*role, *at)).or_default() += 1);
        }
    }
    assert!(seen.values().all(|n| *n == 1));
    let gate = config.split(Split::Gate);
    let roles: BTreeSet<TrialRole> = seen.keys().map(|(role, _)| *role).collect();
    assert_eq!(roles.len(), 1 + 5 + 6);
    assert!(roles.iter().all(|role| gate.iter().all(|at| seen.contains_key(&(*role, *at)))));
}

#[test]
fn a_round_spends_its_budget_on_fresh_prompts() {
    let config = campaign("planned");
    let rounds: Vec<_> =
        opened().iter().filter(|(s, _)| *s == Stage::Explore).map(|(_, tasks)| tasks).collect();
    assert!(rounds.len() >= 2);
    let mut used = BTreeSet::new();
    for tasks in &rounds {
        let prompts: BTreeSet<u32> = tasks.iter().flat_map(|t| t.work.prompts().to_vec()).collect();
        if used.len() + prompts.len() <= config.split(Split::Train).len() {
            assert!(used.is_disjoint(&prompts), "a prompt came twice before all were used");
            used.extend(prompts);
        }
        let pairs: usize = tasks.iter().map(unit_pairs).sum();
        assert!(
            (0.9..=1.0).contains(&(pairs as f64 / f64::from(config.probe.round_pairs))),
            "{pairs}"
        );
        let all: BTreeSet<_> = tasks.iter().flat_map(units).collect();
        assert_eq!(all.len(), 64, "every unit is looked at in every round");
    }
}

fn units(task: &PlannedTask) -> Vec<uspx_domain::Unit> {
    let Work::Ablate(Ablate { cuts, .. }) = &task.work else { return Vec::new() };
    cuts.iter().filter_map(|c| if let Cut::Unit(u) = c { Some(*u) } else { None }).collect()
}

fn unit_pairs(task: &PlannedTask) -> usize {
    units(task).len() * task.work.prompts().len()
}

#[test]
fn a_campaign_that_cannot_work_is_refused() {
    let refused = |change: &dyn Fn(&mut CampaignConfig)| {
        let mut config = campaign("bad");
        change(&mut config);
        Colony::default().want(config, [0; 16]).unwrap_err()
    };
    assert_eq!(refused(&|c| c.prompts[1].id = "p0".into()), ConfigError::Twice("p0".into()));
    assert_eq!(
        refused(&|c| c.prompts.retain(|p| p.split != Split::Gate)),
        ConfigError::NoPrompts("gate")
    );
    assert_eq!(
        refused(&|c| c.shape.layers.clear()),
        ConfigError::NoUnits(uspx_domain::UnitKind::Expert)
    );
    assert!(matches!(refused(&|c| c.mask.keep = Share(0)), ConfigError::Range("mask.keep", _)));
    assert!(matches!(
        refused(&|c| c.trust.duplicates = Share::percent(11)),
        ConfigError::Range("trust.duplicates", _)
    ));
    assert!(matches!(
        refused(&|c| c.probe.trace_batch = Some(0)),
        ConfigError::Range("batch sizes", _)
    ));
}
