//! The colony beside the other ways, over seeds: held-out loss and overlap with the exhaustive mask.

use crate::answers::Answers;
use crate::crowd::Crowd;
use crate::explored::{Drawn, Explored, Tried, Wanted, places};
use crate::failed;
use crate::matrix::Matrix;
use crate::ways::{Job, WAYS, exhaustive};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::paired::{Losses, difference};
use uspx_colony::mask::Budget;
use uspx_colony::{Dice, Rule, Share};
use uspx_domain::{Cut, Prompt, Unit, UnitKind};

/// Masks judged in one pass.
const AT_ONCE: usize = 16;
/// Where the colony is to be significantly better than all but the strong way.
const HEADLINE: f64 = 0.1;
/// How the colony's own mask is called.
const OURS: &str = "colony";
/// Every unit on every prompt.
const ALL: &str = "exhaustive";

/// A model, and the prompts of its campaigns.
pub struct Bench<'a> {
    /// The model's folder.
    pub model: &'a Path,
    /// Prompts that masks are found on.
    pub fit: &'a [Prompt],
    /// Prompts that they are judged on.
    pub heldout: &'a [Prompt],
    /// Where records are kept.
    pub work: &'a Path,
}

/// What is measured of it.
pub struct Sizes<'a> {
    /// Shares of the units kept.
    pub keep: &'a [f64],
    /// Shares of all pairs spent.
    pub budgets: &'a [f64],
    /// Campaigns of each.
    pub seeds: u64,
}

/// The units that every way keeps, by seed.
pub type Found = BTreeMap<&'static str, Vec<BTreeSet<Unit>>>;

/// Measures, prints the tables, and adds the figures.
///
/// # Errors
/// Those of the model and the colony.
pub fn measure(bench: &Bench<'_>, sizes: &Sizes<'_>, report: &mut Report) -> Result<()> {
    let mut answers = Answers::open(bench.model)?;
    let matrix = Matrix::of(&mut answers, bench.fit, bench.work)?;
    let shape = answers.shape.clone();
    let model = answers.model;
    let places = places(bench.fit);
    let (mut tried, mut judged) = (Tried::new(), BTreeMap::new());
    for keep in sizes.keep {
        let budget = Budget {
            model,
            shape: &shape,
            kind: UnitKind::Expert,
            keep: Share::nearest(*keep),
            rule: Rule::Global,
            parts: 1,
        };
        for share in sizes.budgets {
            let mut found = Found::new();
            for seed in 1..=sizes.seeds {
                let order = half(bench.fit.len(), seed);
                let pairs = (share * (order.len() * shape.count(UnitKind::Expert)) as f64) as usize;
                let mut explored = Explored {
                    answers: &mut answers,
                    matrix: &matrix,
                    prompts: bench.fit,
                    places: &places,
                    tried: &mut tried,
                    crowd: &Crowd::alone()?,
                };
                let mut drawn = Drawn::default();
                explored.run(&mut drawn, Wanted { order: &order, pairs, keep: *keep, seed })?;
                found.entry(OURS).or_default().push(budget.kept(&drawn.mask()?));
                let job = Job { matrix: &matrix, budget: &budget, prompts: &order, pairs };
                found.entry(ALL).or_default().push(exhaustive(job));
                for way in &WAYS {
                    let mut dice = Dice::new(seed, way.name, 0);
                    found.entry(way.name).or_default().push((way.keep)(job, &mut dice));
                }
            }
            judge(&mut answers, bench.heldout, (&budget, &found), &mut judged)?;
            let name = called(bench.model);
            let what = format!("{name} keep {keep} at {} %", share * 100.0);
            figures(&what, (*share - HEADLINE).abs() < 1e-9, (&found, &judged), report);
        }
    }
    Ok(())
}

/// What a pair is called whose teacher lies in this folder.
pub fn called(model: &Path) -> String {
    let name = model.parent().and_then(Path::file_name);
    name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// Half of the prompts, in an order that the seed draws.
pub fn half(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Dice::new(seed, "bench prompts", 0).shuffle(&mut order);
    order.truncate(count / 2);
    order
}

/// Held-out losses under masks, by the units that they keep; the whole model's under none.
pub type Judged = BTreeMap<BTreeSet<Unit>, Losses>;

/// Judges the masks that were not yet.
///
/// # Errors
/// Those of the model.
pub fn judge(
    answers: &mut Answers,
    heldout: &[Prompt],
    (budget, found): (&Budget<'_>, &Found),
    judged: &mut Judged,
) -> Result<()> {
    let all: BTreeSet<&BTreeSet<Unit>> = found.values().flatten().collect();
    let new: Vec<&BTreeSet<Unit>> =
        all.into_iter().filter(|kept| !judged.contains_key(*kept)).collect();
    for some in new.chunks(AT_ONCE) {
        let mask = |kept: &&BTreeSet<Unit>| Cut::Mask(budget.mask(kept.iter().copied()));
        let rows = answers.under(heldout, some.iter().map(mask).collect())?;
        if rows.len() != some.len() + 1 {
            return Err(failed("a mask was not judged"));
        }
        for (kept, row) in some.iter().zip(rows.into_iter().skip(1)) {
            let tokens = row.prompts.iter().map(|p| f64::from(p.tokens));
            let losses = row.nats.iter().copied().map(f64::from).zip(tokens).collect();
            judged.insert((*kept).clone(), losses);
        }
    }
    Ok(())
}

/// Loss per token.
pub fn loss(losses: &Losses) -> f64 {
    let (nats, tokens) = losses.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    nats / tokens
}

fn figures(what: &str, headline: bool, (found, judged): (&Found, &Judged), report: &mut Report) {
    let empty = Vec::new();
    let masks = |name: &str| found.get(name).unwrap_or(&empty);
    let of =
        |name: &str| masks(name).iter().filter_map(|kept| judged.get(kept)).collect::<Vec<_>>();
    let mean = |name: &str| {
        let all = of(name);
        all.iter().map(|l| loss(l)).sum::<f64>() / all.len().max(1) as f64
    };
    let overlap = |name: &str| {
        let pairs = masks(name).iter().zip(masks(ALL));
        let shared = pairs.map(|(a, b)| a.intersection(b).count() as f64 / b.len().max(1) as f64);
        shared.sum::<f64>() / masks(name).len().max(1) as f64
    };
    println!("\n{what}: held-out loss, and overlap with the exhaustive mask");
    for name in found.keys() {
        println!("  {name:<32} {:.4}   {:.3}", mean(name), overlap(name));
    }
    for (at, way) in WAYS.iter().enumerate() {
        let beside = |name: &str| {
            let pairs: Vec<(&Losses, &Losses)> = of(name).into_iter().zip(of(way.name)).collect();
            difference(&pairs)
        };
        let apart = beside(OURS);
        let detail = json!({ "difference": apart, "overlap": [overlap(OURS), overlap(way.name)] });
        let never = format!("{what}: colony less {}, lower end", way.name);
        report.put(Figure::new(never, apart.low, "nats/token", Bound::Below(0.0), detail));
        if headline && at > 0 {
            // Of a tenth of all bans no more can be asked than all of them reach.
            let whole = beside(ALL);
            let bound = if whole.high < 0.0 { Bound::Below(0.0) } else { Bound::None };
            let detail = json!({ "difference": apart, "every ban's": whole });
            let better = format!("{what}: colony less {}, upper end", way.name);
            report.put(Figure::new(better, apart.high, "nats/token", bound, detail));
        }
    }
    let ratio = mean(OURS) / mean(ALL);
    let detail = json!({ "colony": mean(OURS), "exhaustive": mean(ALL) });
    let bound = if headline { Bound::Below(1.02) } else { Bound::None };
    report.put(Figure::new(format!("{what}: beside exhaustive"), ratio, "times", bound, detail));
}
