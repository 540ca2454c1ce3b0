//! Sizes from speeds, whatever is said.

use super::*;
use uspx_domain::Digest;

fn model() -> Fingerprint {
    Fingerprint(Digest::of(b"teacher"))
}

fn holds() -> BTreeSet<Fingerprint> {
    [model()].into()
}

fn speed(work: &str, tokens_per_second: f64) -> Speed {
    Speed {
        model: model(),
        work: work.into(),
        tokens_per_second,
        prompt_tokens: 40.0,
        batch_tokens: 4000,
        streamed: false,
    }
}

fn measured(speeds: &[Speed]) -> Measured {
    speeds.iter().map(|s| ((s.model, s.work.clone()), s.clone())).collect()
}

fn load(work: &str, items: usize, usual: u32) -> Load<'_> {
    Load { model: model(), work, item: Item::Prompt(1), items, usual }
}

/// The size where each of these workers has said this.
fn size(workers: &[&[Speed]], load: &Load<'_>) -> u32 {
    let holds = holds();
    let measured: Vec<Measured> = workers.iter().map(|w| measured(w)).collect();
    let speaks = Speaks::here();
    let able = |m| Able { speaks: &speaks, holds: &holds, rests: false, measured: Some(m) };
    let speeds = Speeds(measured.iter().map(able).collect());
    speeds.size(load)
}

#[test]
fn where_nothing_is_known_the_usual_holds_but_none_is_idle() {
    assert_eq!(Speeds::default().size(&load("trace", 2000, 250)), 250);
    assert_eq!(size(&[&[], &[]], &load("trace", 10, 250)), 5, "each gets some");
    assert_eq!(size(&[&[], &[]], &load("trace", 0, 250)), 1);
    let other = Speed { model: Fingerprint(Digest::of(b"student")), ..speed("trace", 1.0) };
    assert_eq!(size(&[&[other]], &load("trace", 2000, 250)), 250);
    for work in ["label", "answer"] {
        assert_eq!(size(&[&[speed("trace", 1.0)]], &load(work, 2000, 125)), 125);
    }
    assert_eq!(size(&[&[speed("answer", 1.0)]], &load("judge", 2000, 250)), 250);
}

#[test]
fn a_task_takes_about_forty_seconds() {
    // A second a prompt.
    let slow = [speed("trace", 40.0)];
    assert_eq!(size(&[&slow, &slow], &load("trace", 2000, 250)), 40);
    assert_eq!(size(&[&slow], &load("atp", 2000, 64)), 8, "five times as dear");
    let both = [speed("trace", 40.0), speed("atp", 20.0)];
    assert_eq!(size(&[&both], &load("atp", 2000, 64)), 20);
    let each = Load { item: Item::Unit(10), ..load("ablate", 1000, 16) };
    assert_eq!(size(&[&slow], &each), 4);
    // Of two, the slower one counts.
    let quick = speed("trace", 4000.0);
    assert_eq!(size(&[&[speed("trace", 40.0)], &[quick]], &load("trace", 2000, 250)), 40);
}

#[test]
fn quick_workers_get_larger_tasks_only_of_much_work() {
    let quick = [speed("trace", 4e6)];
    assert_eq!(size(&[&quick, &quick], &load("trace", 1900, 250)), 250);
    assert_eq!(size(&[&quick, &quick], &load("trace", 8000, 250)), 1000);
    assert_eq!(size(&[&quick, &quick], &load("trace", 100_000, 250)), 2000);
    assert_eq!(size(&[&quick, &quick], &load("trace", 100, 250)), 50, "each gets some");
}

#[test]
fn a_worker_that_streams_gets_a_full_batch() {
    // 100 prompts fill a batch, and take 400 seconds.
    let streamed = [Speed { streamed: true, ..speed("trace", 10.0) }];
    assert_eq!(size(&[&streamed], &load("trace", 2000, 64)), 100);
    assert_eq!(size(&[&streamed, &streamed], &load("trace", 64, 250)), 32, "but not idle");
    assert_eq!(size(&[&streamed], &load("atp", 2000, 64)), 20, "a fifth fills a batch");
    assert_eq!(size(&[&streamed], &load("answer", 2000, 64)), 100, "it tells losses alone");
    let units = Load { item: Item::Unit(32), ..load("ablate", 1000, 16) };
    assert_eq!(size(&[&streamed], &units), 1, "the round's prompts fill it");
}

#[test]
fn whatever_a_worker_says_sizes_stay_within_bounds() {
    let extremes = [1e-300, 1e-9, 1.0, 1e9, 9.9e11];
    for rate in extremes {
        for prompt_tokens in extremes {
            for (batch_tokens, streamed) in [(0, true), (u32::MAX, true), (1, false)] {
                let said = Speed { prompt_tokens, batch_tokens, streamed, ..speed("trace", rate) };
                let said = [said];
                for items in [0, 1, 7, 1_000_000] {
                    let size = size(&[&said, &said], &load("trace", items, 64));
                    let least = if items > 7 { 4 } else { 1 };
                    assert!((least..=512).contains(&size), "{said:?} {items}: {size}");
                }
            }
        }
    }
}
