//! A colony whose prompts change: half of them give way to another domain's, and the mask is to be as good on the new
//! mix as one that is found from nothing, for a part of the cost. And one whose prompts come and go within their
//! domain: its mask is to stay.

use crate::answers::Answers;
use crate::arms::{Found, Judged, half, judge, loss};
use crate::crowd::Crowd;
use crate::explored::{Drawn, Explored, Tried, Wanted, places};
use crate::matrix::Matrix;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_colony::mask::Budget;
use uspx_colony::{Dice, Rule, Share};
use uspx_domain::{Prompt, Unit, UnitKind};

/// Share of all pairs that a campaign from nothing may ask for.
const BUDGET: f64 = 0.1;
/// What a campaign that goes on may ask for, as shares of that; the first is the one that is promised.
const LATER: [(&str, f64); 3] = [("at 30 %", 0.3), ("at 15 %", 0.15), ("at 50 %", 0.5)];
/// From nothing, on the new mix.
const SCRATCH: &str = "from nothing";
/// The mask from before.
const STALE: &str = "as before";
/// How often prompts come and go within their domain, and what part of them each time.
const STEPS: usize = 6;
const PART: usize = 10;

/// A model and its prompts.
pub struct Bench<'a> {
    /// The model's folder.
    pub model: &'a Path,
    /// Prompts that campaigns begin with, and others of the domain that they drift to.
    pub fit: [&'a [Prompt]; 2],
    /// Prompts that masks are judged on, of both.
    pub heldout: [&'a [Prompt]; 2],
    /// Where records are kept.
    pub work: &'a Path,
    /// The share of the units kept.
    pub keep: f64,
    /// Campaigns.
    pub seeds: u64,
}

/// Measures, and adds the figures.
///
/// # Errors
/// Those of the model and the colony.
pub fn measure(bench: &Bench<'_>, name: &str, report: &mut Report) -> Result<()> {
    let mut answers = Answers::open(bench.model)?;
    let fit = bench.fit.concat();
    let matrix = Matrix::of(&mut answers, &fit, bench.work)?;
    let (shape, model) = (answers.shape.clone(), answers.model);
    let kind = UnitKind::Expert;
    let keep = Share::nearest(bench.keep);
    let budget = Budget { model, shape: &shape, kind, keep, rule: Rule::Global, parts: 1 };
    let mut tried = Tried::new();
    let places = places(&fit);
    let mut explored = Explored {
        answers: &mut answers,
        matrix: &matrix,
        prompts: &fit,
        places: &places,
        tried: &mut tried,
        crowd: &Crowd::alone()?,
    };
    let (mut found, mut flapped) = (Found::new(), Vec::new());
    for seed in 1..=bench.seeds {
        let own = half(bench.fit[0].len(), seed);
        let pairs = (BUDGET * (own.len() * shape.count(kind)) as f64) as usize;
        let wanted = Wanted { order: &own, pairs, keep: bench.keep, seed };
        let mut begun = Drawn::default();
        explored.run(&mut begun, wanted)?;
        for (name, mask) in drifted(&mut explored, bench, wanted, &begun)? {
            found.entry(name).or_default().push(budget.kept(&mask));
        }
        flapped.extend(flaps(&mut explored, bench, (wanted, begun), &budget)?);
    }
    let both = bench.heldout.map(|prompts| prompts.len()).into_iter().min().unwrap_or(0);
    let heldout = bench.heldout.map(|prompts| prompts.get(..both).unwrap_or(prompts)).concat();
    let mut judged = Judged::new();
    judge(&mut answers, &heldout, (&budget, &found), &mut judged)?;
    figures(name, (&found, &judged), report);
    let share = flapped.iter().sum::<f64>() / flapped.len().max(1) as f64 * 100.0;
    let detail = json!({ "versions": flapped.len() });
    let what = format!("{name}: units that change sides in a version, without drift");
    report.put(Figure::new(what, share, "percent", Bound::Below(1.0), detail));
    Ok(())
}

/// Masks for the new mix.
fn drifted(
    explored: &mut Explored<'_>,
    bench: &Bench<'_>,
    wanted: Wanted<'_>,
    begun: &Drawn,
) -> Result<Vec<(&'static str, uspx_domain::Mask)>> {
    let Wanted { order, seed, .. } = wanted;
    let mut other: Vec<usize> = (0..bench.fit[1].len()).map(|at| bench.fit[0].len() + at).collect();
    Dice::new(seed, "other domain", 0).shuffle(&mut other);
    let (stays, comes) = (order.len() / 2, order.len() - order.len() / 2);
    let mix: Vec<usize> =
        order.iter().take(stays).chain(other.iter().take(comes)).copied().collect();
    let tokens = |of: &[usize]| of.iter().map(|at| explored.matrix.tokens_of(*at)).sum::<f64>();
    let new = tokens(mix.get(stays..).unwrap_or(&[])) / tokens(&mix);
    let mut masks = vec![(STALE, begun.mask()?)];
    for (name, share) in LATER {
        let mut drawn = begun.clone();
        let spent = drawn.pairs();
        // What is left to a campaign is what its new half lacks of its share, which goes by tokens.
        let pairs = (share * wanted.pairs as f64 / new) as usize;
        explored.run(&mut drawn, Wanted { order: &mix, pairs, ..wanted })?;
        let more = (drawn.pairs() - spent) as f64 / wanted.pairs as f64;
        println!("  seed {seed} {name}: {:.1} % of the cost from nothing", more * 100.0);
        masks.push((name, drawn.mask()?));
    }
    let mut drawn = Drawn::default();
    explored.run(&mut drawn, Wanted { order: &mix, ..wanted })?;
    masks.push((SCRATCH, drawn.mask()?));
    Ok(masks)
}

/// What part of the units changes sides from version to version while some prompts give way to others of their domain.
fn flaps(
    explored: &mut Explored<'_>,
    bench: &Bench<'_>,
    (wanted, mut drawn): (Wanted<'_>, Drawn),
    budget: &Budget<'_>,
) -> Result<Vec<f64>> {
    let begun = drawn.versions.len();
    let mut all = half(bench.fit[0].len(), wanted.seed);
    let others: BTreeSet<usize> = all.iter().copied().collect();
    all.extend((0..bench.fit[0].len()).filter(|at| !others.contains(at)));
    let (size, part) = (wanted.order.len(), wanted.order.len() / PART);
    for step in 1..=STEPS {
        let now: Vec<usize> = all.iter().skip(step * part).take(size).copied().collect();
        explored.run(&mut drawn, Wanted { order: &now, ..wanted })?;
    }
    let kept: Vec<BTreeSet<Unit>> =
        drawn.versions.iter().skip(begun - 1).map(|mask| budget.kept(mask)).collect();
    let units = budget.shape.count(budget.kind) as f64;
    let apart = |pair: &[BTreeSet<Unit>]| match pair {
        [a, b] => a.symmetric_difference(b).count() as f64 / units,
        _ => 0.0,
    };
    Ok(kept.windows(2).map(apart).collect())
}

fn figures(name: &str, (found, judged): (&Found, &Judged), report: &mut Report) {
    let mean = |way: &str| {
        let kept = found.get(way).into_iter().flatten();
        let losses: Vec<f64> = kept.filter_map(|k| judged.get(k)).map(loss).collect();
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    };
    let table: BTreeMap<&str, f64> = found.keys().map(|way| (*way, mean(way))).collect();
    println!("\n{name}: held-out loss on the new mix");
    table.iter().for_each(|(way, loss)| println!("  {way:<16} {loss:.4}"));
    let what = format!("{name}: after a drift, {} of the cost, beside from nothing", LATER[0].0);
    let ratio = mean(LATER[0].0) / mean(SCRATCH);
    report.put(Figure::new(what, ratio, "times", Bound::Below(1.05), json!(table)));
}
