//! What masks cost on held-out prompts, by each way to rank units, beside the default's.

use crate::Prompts;
use crate::cells::Cells;
use crate::losses::{Losses, losses, mask};
use crate::paired::{Difference, difference};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};

/// The default, which no method names.
const DEFAULT: &str = "default";
/// Ways to rank units by one forward pass.
const CHEAP: [&str; 4] = ["frequency", "saliency", "reap", "easy-ep"];
/// Ways by gradients, and by all single units.
const DEARER: [&str; 7] = ["atp", "relp", "eap-ig", "reroute", "reroute-ig", "ensemble", "exact"];
/// What the default may lose to in no cell, significantly.
const PEERS: [&str; 5] = ["reap", "easy-ep", "frequency", "atp", "exact"];

/// How much is cut, and how it is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Budget {
    spread: &'static str,
    keep: &'static str,
}

const BUDGETS: [Budget; 4] = [
    Budget { spread: "global", keep: "0.75" },
    Budget { spread: "global", keep: "0.5" },
    Budget { spread: "uniform", keep: "0.75" },
    Budget { spread: "uniform", keep: "0.5" },
];

/// One model at one budget: losses of the whole model and under each method's mask.
struct Setting {
    model: String,
    budget: Budget,
    whole: Losses,
    masked: BTreeMap<&'static str, Losses>,
}

/// Measures, prints the tables, and adds the figures.
///
/// # Errors
/// Those of the runs.
pub fn measure(
    cells: &Cells,
    models: &[PathBuf],
    prompts: &Prompts,
    counts: (usize, usize),
    report: &mut Report,
) -> Result<()> {
    let mut settings = Vec::new();
    for model in models {
        for budget in BUDGETS {
            let setting = setting(cells, model, budget, prompts, counts)?;
            table(&setting);
            settings.push(setting);
        }
    }
    for peer in PEERS {
        never_worse(&settings, peer, report);
    }
    for peer in CHEAP.into_iter().chain(DEARER) {
        let bound = if CHEAP.contains(&peer) { Bound::Below(0.0) } else { Bound::None };
        on_average(&settings, peer, bound, report);
    }
    Ok(())
}

fn setting(
    cells: &Cells,
    model: &Path,
    budget: Budget,
    prompts: &Prompts,
    (fit, heldout): (usize, usize),
) -> Result<Setting> {
    let judged = |mask: Option<&Path>| losses(cells, model, (&prompts.heldout, heldout), mask);
    let mut masked = BTreeMap::new();
    for method in [DEFAULT].into_iter().chain(CHEAP).chain(DEARER) {
        let mut flags = vec!["--keep", budget.keep, "--spread", budget.spread];
        if method != DEFAULT {
            flags.extend(["--method", method]);
        }
        let mask = mask(cells, model, (&prompts.fit, fit), &flags)?;
        masked.insert(method, judged(Some(&mask))?);
    }
    Ok(Setting { model: name(model), budget, whole: judged(None)?, masked })
}

/// The last two parts of a folder's path.
pub fn name(model: &Path) -> String {
    let parts: Vec<_> = model.iter().rev().take(2).map(|p| p.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// Rises over the whole model, and how the default differs from each.
fn table(setting: &Setting) {
    let Budget { spread, keep } = setting.budget;
    println!("\n{}, {keep} kept, {spread}: nats per token above the whole model", setting.model);
    let Some(own) = setting.masked.get(DEFAULT) else { return };
    for (method, losses) in &setting.masked {
        let rise = difference(&[(losses, &setting.whole)]);
        let beside = difference(&[(own, losses)]);
        println!(
            "  {method:<12} {:>7.3} [{:>6.3}, {:>6.3}]   the default less it {:>+7.3} [{:>+6.3}, {:>+6.3}]",
            rise.mean, rise.low, rise.high, beside.mean, beside.low, beside.high
        );
    }
}

fn pairs<'a>(settings: &'a [Setting], peer: &str) -> Vec<(&'a Losses, &'a Losses)> {
    let pair = |s: &'a Setting| Some((s.masked.get(DEFAULT)?, s.masked.get(peer)?));
    settings.iter().filter_map(pair).collect()
}

/// In how many settings the default loses more than a peer, its interval above zero.
fn never_worse(settings: &[Setting], peer: &str, report: &mut Report) {
    let found: Vec<(String, Difference)> = settings
        .iter()
        .filter_map(|s| {
            let pair = (s.masked.get(DEFAULT)?, s.masked.get(peer)?);
            let Budget { spread, keep } = s.budget;
            Some((format!("{} {keep} {spread}", s.model), difference(&[pair])))
        })
        .collect();
    let worse = found.iter().filter(|(_, d)| d.low > 0.0).count();
    let detail: serde_json::Map<String, Value> =
        found.into_iter().map(|(name, d)| (name, json!(d))).collect();
    report.put(Figure::new(
        format!("settings worse than {peer}"),
        worse as f64,
        "settings",
        Bound::Below(1.0),
        json!({ "settings": detail }),
    ));
}

/// The upper end of the interval of the default's loss less a peer's, the mean over all settings.
fn on_average(settings: &[Setting], peer: &str, bound: Bound, report: &mut Report) {
    let found = difference(&pairs(settings, peer));
    report.put(Figure::new(
        format!("on average less {peer}, upper end"),
        found.high,
        "nats",
        bound,
        json!({ "difference": found }),
    ));
}
