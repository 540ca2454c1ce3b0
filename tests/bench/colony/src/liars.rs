//! A colony of many workers, a tenth of whom lie: what that makes of its mask, who is found out, and whom it wrongs.

use crate::answers::Answers;
use crate::arms::half;
use crate::crowd::{Crowd, Kind};
use crate::drift;
use crate::explored::{Drawn, Explored, Tried, Wanted, places};
use crate::matrix::Matrix;
use serde_json::json;
use std::collections::BTreeSet;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_colony::mask::Budget;
use uspx_colony::{Dice, Rule, Share};
use uspx_domain::{Unit, UnitKind};

/// Workers of a colony.
const WORKERS: usize = 20;
/// Those that lie.
const LIARS: usize = 2;
/// Every so manieth colony's liars collude: a tenth of all liars.
const COLLUDING: u64 = 10;
/// Share of tasks that may go out twice, in percent.
const TWICE: u32 = 10;
/// Prompts or units of a task: small, as of a large campaign only part of the tasks falls to each worker.
const BATCH: u32 = 1;
/// Share of all pairs that a campaign may ask for.
const BUDGET: f64 = 0.2;

/// What became of some campaigns.
#[derive(Default)]
struct Seen {
    /// Share of the kept units that a mask has in common with that of honest workers, by campaign.
    overlap: Vec<f64>,
    /// Liars, and those in quarantine.
    liars: [usize; 2],
    /// The same of honest workers.
    honest: [usize; 2],
    /// Tasks, and those issued twice.
    tasks: [u64; 2],
}

/// Measures, and adds the figures.
///
/// # Errors
/// Those of the model and the colony.
pub fn measure(bench: &drift::Bench<'_>, name: &str, report: &mut Report) -> Result<()> {
    let mut answers = Answers::open(bench.model)?;
    let [fit, _] = bench.fit;
    let matrix = Matrix::of(&mut answers, fit, bench.work)?;
    let (shape, model) = (answers.shape.clone(), answers.model);
    let (kind, keep) = (UnitKind::Expert, Share::nearest(bench.keep));
    let budget = Budget { model, shape: &shape, kind, keep, rule: Rule::Global, parts: 1 };
    let (mut tried, places) = (Tried::new(), places(fit));
    let (mut watched, mut believed) = (Seen::default(), Seen::default());
    for seed in 1..=bench.seeds.max(COLLUDING) {
        let order = half(fit.len(), seed);
        let pairs = (BUDGET * (order.len() * shape.count(kind)) as f64) as usize;
        let wanted = Wanted { order: &order, pairs, keep: bench.keep, seed };
        let mut run = |liars: bool, twice: u32| -> Result<(Drawn, Crowd)> {
            let crowd = Crowd::of(kinds(seed, liars), twice, Some(BATCH))?;
            let mut drawn = Drawn::default();
            let mut explored = Explored {
                answers: &mut answers,
                matrix: &matrix,
                prompts: fit,
                places: &places,
                tried: &mut tried,
                crowd: &crowd,
            };
            explored.run(&mut drawn, wanted)?;
            Ok((drawn, crowd))
        };
        let (honest, crowd) = run(false, TWICE)?;
        let truth = budget.kept(&honest.mask()?);
        watched.look(&honest, &crowd, None);
        let (drawn, crowd) = run(true, TWICE)?;
        watched.look(&drawn, &crowd, Some((&truth, &budget.kept(&drawn.mask()?))));
        let (drawn, crowd) = run(true, 0)?;
        believed.look(&drawn, &crowd, Some((&truth, &budget.kept(&drawn.mask()?))));
    }
    figures(name, &watched, &believed, report);
    Ok(())
}

/// Half of the honest workers run on other hardware.
fn kinds(seed: u64, liars: bool) -> Vec<Kind> {
    let honest = |at: usize| if at.is_multiple_of(2) { Kind::Honest } else { Kind::Elsewhere };
    let mut kinds: Vec<Kind> = (0..WORKERS).map(honest).collect();
    let lie = |at: usize| match seed.is_multiple_of(COLLUDING) {
        true => Kind::Colluding,
        false => {
            let mut kinds = Kind::LIARS.into_iter().cycle().skip(seed as usize * LIARS + at);
            kinds.next().unwrap_or(Kind::Random)
        }
    };
    kinds.iter_mut().take(LIARS).enumerate().filter(|_| liars).for_each(|(at, k)| *k = lie(at));
    Dice::new(seed, "who lies", 0).shuffle(&mut kinds);
    kinds
}

impl Seen {
    fn look(
        &mut self,
        drawn: &Drawn,
        crowd: &Crowd,
        masks: Option<(&BTreeSet<Unit>, &BTreeSet<Unit>)>,
    ) {
        for (worker, kind) in &crowd.workers {
            let counts = if kind.lies() { &mut self.liars } else { &mut self.honest };
            counts[0] += 1;
            counts[1] += usize::from(drawn.is_out(worker));
        }
        let [all, twice] = drawn.issued();
        self.tasks[0] += all;
        self.tasks[1] += twice;
        let shared = |(a, b): (&BTreeSet<Unit>, &BTreeSet<Unit>)| {
            a.intersection(b).count() as f64 / a.len().max(1) as f64
        };
        self.overlap.extend(masks.map(shared));
    }
}

fn figures(name: &str, watched: &Seen, believed: &Seen, report: &mut Report) {
    let lost = |seen: &Seen| {
        let mean = seen.overlap.iter().sum::<f64>() / seen.overlap.len().max(1) as f64;
        (1.0 - mean) * 100.0
    };
    let share = |[all, some]: [usize; 2]| some as f64 / all.max(1) as f64 * 100.0;
    let twice = watched.tasks[1] as f64 / watched.tasks[0].max(1) as f64 * 100.0;
    let mut put = |what: &str, value: f64, bound: Bound, detail: serde_json::Value| {
        report.put(Figure::new(format!("{name}: {what}"), value, "percent", bound, detail));
    };
    let detail =
        json!({ "where lies are believed": lost(believed), "campaigns": watched.overlap.len() });
    put("kept units that liars change", lost(watched), Bound::Below(2.0), detail);
    put("tasks issued twice", twice, Bound::Below(10.01), json!({ "tasks": watched.tasks[0] }));
    let [liars, out] = watched.liars;
    put(
        "liars in quarantine",
        share(watched.liars),
        Bound::None,
        json!({ "liars": liars, "out": out }),
    );
    let [honest, out] = watched.honest;
    let detail = json!({ "honest": honest, "out": out });
    put("honest workers in quarantine", share(watched.honest), Bound::Below(1.0), detail);
}
