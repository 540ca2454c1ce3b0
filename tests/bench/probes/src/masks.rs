//! What masks cost on held-out prompts, by each way to rank units, beside the default's.

use crate::Prompts;
use crate::losses::{losses, mask};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::paired::Losses;
use uspx_bench_engine::paired::{Difference, difference};

/// The default, which no method names.
const DEFAULT: &str = "default";

/// A kind of unit, and the ways to rank its units.
#[derive(Debug)]
struct Units {
    kind: &'static str,
    /// Ways by one forward pass, which the default is better than on average.
    cheap: &'static [&'static str],
    /// Ways by gradients, and by all single units where these are few.
    dearer: &'static [&'static str],
    /// What the default may lose to in no setting, significantly.
    peers: &'static [&'static str],
}

const EXPERTS: Units = Units {
    kind: "expert",
    cheap: &["frequency", "saliency", "reap", "easy-ep"],
    dearer: &["atp", "eap-ig", "relp", "reroute", "reroute-ig", "ensemble", "exact"],
    peers: &["reap", "easy-ep", "frequency", "atp", "exact"],
};
const HEADS: Units = Units {
    kind: "head",
    cheap: &["norm"],
    dearer: &["atp", "eap-ig", "relp", "atp-star", "ensemble", "exact"],
    peers: &["norm", "atp", "exact"],
};
const CHANNELS: Units = Units {
    kind: "channel",
    cheap: &["magnitude", "energy"],
    dearer: &["atp", "eap-ig", "relp"],
    peers: &["magnitude", "energy", "atp"],
};

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

/// Units of one model at one budget: losses of the whole model and under each method's mask.
struct Setting {
    model: String,
    kind: &'static str,
    budget: Budget,
    whole: Losses,
    masked: BTreeMap<&'static str, Losses>,
}

/// Measures, prints the tables, and adds the figures: of experts on models that have them, of heads
/// on these and on dense ones, of channels on dense ones.
///
/// # Errors
/// Those of the runs.
pub fn measure(
    cells: &Cells,
    (models, dense): (&[PathBuf], &[PathBuf]),
    prompts: &Prompts,
    counts: (usize, usize),
    report: &mut Report,
) -> Result<()> {
    let all: Vec<PathBuf> = models.iter().chain(dense).cloned().collect();
    for (units, models) in [(&EXPERTS, models), (&HEADS, &all), (&CHANNELS, dense)] {
        let mut settings = Vec::new();
        for (model, budget) in models.iter().flat_map(|m| BUDGETS.map(|budget| (m, budget))) {
            let setting = setting(cells, model, (units, budget), prompts, counts)?;
            table(&setting);
            settings.push(setting);
        }
        for peer in units.peers {
            never_worse(&settings, units, peer, report);
        }
        for peer in units.cheap.iter().chain(units.dearer) {
            let bound = if units.cheap.contains(peer) { Bound::Below(0.0) } else { Bound::None };
            on_average(&settings, units, (peer, bound), report);
        }
    }
    Ok(())
}

fn setting(
    cells: &Cells,
    model: &Path,
    (units, budget): (&Units, Budget),
    prompts: &Prompts,
    (fit, heldout): (usize, usize),
) -> Result<Setting> {
    let judged = |mask: Option<&Path>| losses(cells, model, (&prompts.heldout, heldout), mask);
    let mut masked = BTreeMap::new();
    for method in [&DEFAULT].into_iter().chain(units.cheap).chain(units.dearer) {
        let mut flags =
            vec!["--units", units.kind, "--keep", budget.keep, "--spread", budget.spread];
        if *method != DEFAULT {
            flags.extend(["--method", method]);
        }
        let mask = mask(cells, model, (&prompts.fit, fit), &flags)?;
        masked.insert(*method, judged(Some(&mask))?);
    }
    Ok(Setting { model: name(model), kind: units.kind, budget, whole: judged(None)?, masked })
}

/// The last two parts of a folder's path.
pub fn name(model: &Path) -> String {
    let parts: Vec<_> = model.iter().rev().take(2).map(|p| p.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// Rises over the whole model, and how the default differs from each.
fn table(setting: &Setting) {
    let Budget { spread, keep } = setting.budget;
    println!(
        "\n{}, {keep} of {}s kept, {spread}: nats per token above the whole model",
        setting.model, setting.kind
    );
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
fn never_worse(settings: &[Setting], units: &Units, peer: &str, report: &mut Report) {
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
        format!("{}s: settings worse than {peer}", units.kind),
        worse as f64,
        "settings",
        Bound::Below(1.0),
        json!({ "settings": detail }),
    ));
}

/// The upper end of the interval of the default's loss less a peer's, the mean over all settings.
fn on_average(
    settings: &[Setting],
    units: &Units,
    (peer, bound): (&str, Bound),
    report: &mut Report,
) {
    let found = difference(&pairs(settings, peer));
    report.put(Figure::new(
        format!("{}s: on average less {peer}, upper end", units.kind),
        found.high,
        "nats",
        bound,
        json!({ "difference": found }),
    ));
}
