//! What two runs would agree on, foretold by one, against two runs.

use crate::world::{self, World};
use uspx_colony::campaign::MindPlan;
use uspx_colony::mask::{Budget, jaccard};
use uspx_colony::resample::Resampled;
use uspx_colony::{CampaignConfig, State};

/// Runs of the same units on prompts of their own: their masks' mean overlap, and the mean of what
/// each foretells.
fn overlaps(config: impl Fn(u64) -> CampaignConfig) -> (f64, f64) {
    let effects = world::effects(5);
    let run = |seed| {
        let mut world = World::new(config(seed));
        world.effects = effects.clone();
        let service = world::run(&world);
        let state = service.colony.state();
        let foretold = Resampled::of(state).unwrap().overlap(&world.config);
        (Budget::of(&world.config).kept(&state.mask().unwrap().mask), foretold)
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
    let led = || CampaignConfig { mind: MindPlan::default(), ..world::campaign("c") };
    let (of_led, foretold_of_led) = overlaps(|seed| seeded(led(), seed));
    println!("led rounds: seen {of_led:.3}, foretold {foretold_of_led:.3}");
    assert!((of_led - foretold_of_led).abs() < 0.12, "{of_led} {foretold_of_led}");
    let (scarce, of_scarce) = overlaps(|seed| seeded(world::service::small("c"), seed));
    println!("few prompts: seen {scarce:.3}, foretold {of_scarce:.3}");
    assert!((scarce - of_scarce).abs() < 0.12, "{scarce} {of_scarce}");
    assert!(of_scarce < foretold, "fewer prompts, less agreement");
}

#[test]
fn it_is_made_of_the_state_alone_and_is_the_same_again() {
    let (service, world) = world::honest(world::service::small("c"));
    let first = Resampled::of(service.colony.state()).unwrap();
    assert!((0.0..=1.0).contains(&first.overlap(&world.config)));
    let mut state = State::default();
    state.fold(&service.ledger[0]);
    assert_eq!(Resampled::of(&state), None, "nothing is measured yet");
    service.ledger[1..].iter().for_each(|record| state.fold(record));
    assert_eq!(Resampled::of(&state), Some(first));
}
