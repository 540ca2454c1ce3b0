//! Sparse autoencoders in a campaign: a task a layer, and nothing rests on them.

use crate::world::*;
use uspx_colony::*;
use uspx_domain::*;

fn with_layers(name: &str, layers: &[u32]) -> CampaignConfig {
    let mut config = campaign(name);
    config.sae.layers = layers.to_vec();
    config
}

/// The layers whose training was asked for since the ledger had so many records.
fn trained(service: &Service, since: usize) -> Vec<u32> {
    let mut layers = Vec::new();
    for record in &service.ledger[since..] {
        if let Record::EpochOpened { tasks, .. } = record {
            let of = |task: &PlannedTask| match &task.work {
                Work::Sae(sae) => Some(sae.layer),
                _ => None,
            };
            layers.extend(tasks.iter().filter_map(of));
        }
    }
    layers
}

fn stages(service: &Service, since: usize) -> Vec<Stage> {
    let stage = |record: &Record| match record {
        Record::EpochOpened { stage, .. } => Some(*stage),
        _ => None,
    };
    service.ledger[since..].iter().filter_map(stage).collect()
}

/// Invariant 1 holds for their ledgers too.
fn replays(service: &Service) {
    let mut replayed = State::default();
    service.ledger.iter().for_each(|r| replayed.fold(r));
    assert_eq!(replayed.digest().unwrap(), service.colony.state().digest().unwrap());
}

#[test]
fn each_layer_is_a_task_of_its_own_after_the_mask_and_before_the_student() {
    let (service, world) = honest(with_layers("saes", &[0, 3]));
    assert_eq!(service.ending, Some(Ending::Published(1)));
    assert_eq!(trained(&service, 0), [0, 3]);
    let stages = stages(&service, 0);
    let at = stages.iter().position(|s| *s == Stage::Sae).unwrap();
    assert_eq!((stages[at - 1], stages[at + 1]), (Stage::JudgeMasks, Stage::Label));
    let report = report(service.colony.state()).unwrap();
    let worth: Vec<(u32, u32)> = report.saes.iter().map(|s| (s.layer, s.summary.dead)).collect();
    assert_eq!(worth, [(0, 0), (3, 3)], "each layer has its own");
    assert!((report.saes[0].recovered - 0.9).abs() < 1e-6);
    // Trained on the train prompts, judged by those for choices, and the gate's are not touched.
    let prompts = |task: &PlannedTask| match &task.work {
        Work::Sae(sae) => Some((sae.prompts.clone(), sae.judged)),
        _ => None,
    };
    let tasks = service.ledger.iter().find_map(|r| match r {
        Record::EpochOpened { stage: Stage::Sae, tasks, .. } => Some(tasks),
        _ => None,
    });
    let (all, judged) = prompts(&tasks.unwrap()[0]).unwrap();
    let wanted = world.config.split(Split::Train).into_iter();
    assert_eq!(all, wanted.chain(world.config.split(Split::Validation)).collect::<Vec<_>>());
    assert_eq!(judged, 40);
    replays(&service);
}

#[test]
fn one_that_cannot_be_trained_holds_nothing_up() {
    let world = World::new(with_layers("hopeless", &[1, 2]));
    let mut service = Service::default();
    service.found(&world.config);
    service.see("a");
    service.see("b");
    while service.ending.is_none() {
        let (worker, task) = service.queues.remove(0);
        match &task.work {
            Work::Sae(sae) if sae.layer == 1 => {
                service.answer(failed(&task, &worker, FailureReason::NotFinite))
            }
            _ => service.answer(world.answer(&task, &worker)),
        };
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
    let saes = &service.colony.state().results().saes;
    assert_eq!(saes.keys().copied().collect::<Vec<_>>(), [2]);
    replays(&service);
}

#[test]
fn workers_that_do_not_speak_it_are_not_asked_and_hold_nothing_up() {
    let world = World::new(with_layers("old", &[1]));
    let mut service = Service::default();
    service.found(&world.config);
    let mut speaks = Speaks::here();
    speaks.jobs.remove("sae");
    service.hear("old", speaks);
    while service.ending.is_none() {
        if service.queues.is_empty() {
            assert_eq!(service.colony.state().stage(), Some(Stage::Sae));
            service.event(Event::NobodySpeaks);
            continue;
        }
        let (worker, task) = service.queues.remove(0);
        assert_ne!(task.work.kind(), "sae");
        service.answer(world.answer(&task, &worker));
    }
    assert_eq!(service.ending, Some(Ending::Published(1)));
}

#[test]
fn more_layers_are_trained_beside_a_campaign_that_is_over_and_it_ends_as_it_did() {
    let (mut service, mut world) = honest(campaign("beside"));
    let published = service.colony.state().published().cloned();
    for (layers, asked) in [(vec![1, 2], vec![1, 2]), (vec![1, 3], vec![3]), (vec![], vec![])] {
        world.config.sae.layers.clone_from(&layers);
        let before = service.ledger.len();
        assert_eq!(service.want(&world.config), Amending::GoesOn);
        // A restart in the middle of it publishes nothing again.
        service.event(Event::Started);
        service.run(&world);
        assert_eq!(trained(&service, before), asked);
        assert!(stages(&service, before).iter().all(|s| *s == Stage::Sae), "{layers:?}");
        assert_eq!(service.ending, Some(Ending::Published(1)));
        assert_eq!(service.colony.state().published(), published.as_ref());
        let there = service.colony.state().results().saes.keys().copied().collect::<Vec<_>>();
        assert_eq!(there, layers);
        replays(&service);
    }
    // Another recipe trains them anew.
    world.config.sae.layers = vec![1];
    service.want(&world.config);
    service.run(&world);
    world.config.sae.recipe.features = 2048;
    let before = service.ledger.len();
    service.want(&world.config);
    service.run(&world);
    assert_eq!(trained(&service, before), [1]);
}

#[test]
fn a_mask_alone_and_a_refusal_end_as_they_did_too() {
    let mut world = World::new(campaign("mask"));
    let student = world.config.student.take();
    let mut service = run(&world);
    world.config.sae.layers = vec![0];
    service.want(&world.config);
    service.run(&world);
    assert_eq!(service.ending, Some(Ending::Measured));
    (world.config.student, world.gain) = (student, -0.1);
    service.want(&world.config);
    service.run(&world);
    assert!(matches!(service.ending, Some(Ending::Refused(_))));
    let refused = service.ending.clone();
    world.config.sae.layers = vec![0, 1];
    let before = service.ledger.len();
    service.want(&world.config);
    service.run(&world);
    assert_eq!((service.ending.clone(), trained(&service, before)), (refused, vec![1]));
    replays(&service);
}

#[test]
fn layers_that_are_not_there_or_named_twice_are_refused() {
    let error = |layers: &[u32]| with_layers("bad", layers).check().unwrap_err().to_string();
    assert!(error(&[4]).contains("its layers are 0 to 3"), "{}", error(&[4]));
    assert!(error(&[1, 1]).contains("name each layer once"));
    let mut config = with_layers("bad", &[1]);
    config.sae.recipe.k = 0;
    assert!(config.check().unwrap_err().to_string().contains("k must"));
}

/// Campaigns from before there were any keep their bytes, and so their tasks' names.
#[test]
fn a_campaign_without_any_is_the_bytes_that_it_was() {
    let bytes = rmp_serde::to_vec_named(&campaign("old")).unwrap();
    assert!(!bytes.windows(4).any(|w| w == b"\xa3sae"));
    let with = rmp_serde::to_vec_named(&with_layers("new", &[1])).unwrap();
    assert!(with.windows(4).any(|w| w == b"\xa3sae"));
}
