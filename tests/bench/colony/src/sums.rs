//! What the sums of 2.2 million channels take: room, and time to take a deposit in, beside reading and writing as many
//! bytes.

use serde_json::json;
use std::hint::black_box;
use std::time::Instant;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_colony::Share;
use uspx_colony::state::Trails;
use uspx_domain::{Deposit, Moments, PromptTokens, Statistic, UnitKind};
use uspx_runtime::memory::peak_rss;

/// Layers, and channels of all experts of one, of gpt-oss-20b.
const SHAPE: (u32, usize) = (24, 32 * 2_880);
/// Deposits taken in, of which the fastest counts.
const TURNS: usize = 5;
/// Bytes of a unit's three sums.
const UNIT: usize = 48;

/// Measures, and adds the figures. It comes before whatever takes more memory.
pub fn measure(report: &mut Report) {
    let (layers, channels) = SHAPE;
    let units = layers as usize * channels;
    let deposit = deposit();
    let before = peak_mb();
    let mut trails = Trails::default();
    trails.take_in(&deposit);
    let held = peak_mb() - before;
    let mut merged = f64::INFINITY;
    let mut closed = f64::INFINITY;
    for _ in 0..TURNS {
        merged = merged.min(seconds(|| trails.take_in(&deposit)));
        let gathered = trails.clone();
        closed = closed.min(seconds(|| trails.close(Share::percent(98), gathered)));
    }
    black_box(&trails);
    let mut sums = vec![1u8; units * UNIT];
    let mut moved = f64::INFINITY;
    for turn in 0..TURNS {
        let add = |byte: &mut u8| *byte = byte.wrapping_add(turn as u8 | 1);
        moved = moved.min(seconds(|| black_box(&mut sums).iter_mut().for_each(add)));
    }
    let detail = json!({ "units": units });
    let room = Figure::new("sums of 2.2 million channels", held, "MB", Bound::Below(200.0), detail);
    report.put(room);
    let detail = json!({ "milliseconds": merged * 1e3, "as many bytes": moved * 1e3 });
    let what = "a deposit on them, beside reading and writing as many bytes";
    report.put(Figure::new(what, merged / moved, "times", Bound::None, detail));
    let detail = json!({});
    report.put(Figure::new("an epoch's close on them", closed * 1e3, "ms", Bound::None, detail));
}

fn deposit() -> Deposit {
    let (layers, channels) = SHAPE;
    let prompts = vec![PromptTokens { id: "p".into(), tokens: 40 }];
    let moments = |layer| Moments {
        kind: UnitKind::Channel,
        layer,
        statistic: Statistic::ATP,
        x: vec![0.5; channels],
        xx: vec![0.25; channels],
        xt: vec![20.0; channels],
    };
    Deposit { prompts, columns: vec![], moments: (0..layers).map(moments).collect() }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// The most memory that this process ever held, in megabytes; not a number where the system does not say.
fn peak_mb() -> f64 {
    peak_rss().map_or(f64::NAN, |bytes| bytes as f64 / 1e6)
}
