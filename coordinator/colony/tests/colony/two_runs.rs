//! What two runs would agree on, foretold by one, against two runs.

use crate::world::{self, World};
use uspx_colony::mask::{Budget, jaccard};
use uspx_colony::{CampaignConfig, resample};

/// Runs of the same units on prompts of their own: their masks' mean overlap, and the mean of what
/// each foretells.
fn overlaps(config: impl Fn(u64) -> CampaignConfig) -> (f64, f64) {
    let effects = world::effects(5);
    let run = |seed| {
        let mut world = World::new(config(seed));
        world.effects = effects.clone();
        let service = world::run(&world);
        let mask = service.colony.state().mask().unwrap().mask.clone();
        let foretold = resample::overlap(&service.ledger).unwrap();
        (Budget::of(&world.config).kept(&mask), foretold)
    };
    let runs: Vec<_> = (0..6).map(run).collect();
    let pairs = || (0..6).flat_map(|a| (0..a).map(move |b| (a, b)));
    let seen = pairs().map(|(a, b)| jaccard(&runs[a].0, &runs[b].0)).sum::<f64>() / 15.0;
    (seen, runs.iter().map(|r| r.1).sum::<f64>() / 6.0)
}

fn seeded(mut config: CampaignConfig, seed: u64) -> CampaignConfig {
    config.seed = seed;
    config
}

#[test]
fn what_is_foretold_is_what_two_runs_agree_on() {
    let (seen, foretold) = overlaps(|seed| seeded(world::campaign("c"), seed));
    println!("many prompts: seen {seen:.3}, foretold {foretold:.3}");
    assert!((seen - foretold).abs() < 0.12, "{seen} {foretold}");
    let (scarce, of_scarce) = overlaps(|seed| seeded(world::service::small("c"), seed));
    println!("few prompts: seen {scarce:.3}, foretold {of_scarce:.3}");
    assert!((scarce - of_scarce).abs() < 0.12, "{scarce} {of_scarce}");
    assert!(of_scarce < foretold, "fewer prompts, less agreement");
}

#[test]
fn it_stands_in_the_ledger_alone_and_is_the_same_again() {
    let (service, _) = world::honest(world::service::small("c"));
    let first = resample::overlap(&service.ledger).unwrap();
    assert!((0.0..=1.0).contains(&first));
    assert_eq!(resample::overlap(&service.ledger), Some(first));
    assert_eq!(resample::overlap(&service.ledger[..1]), None, "nothing is measured yet");
}
