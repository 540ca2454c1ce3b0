//! What `probe patch` prints: what is surely needed, what surely not, what is undecided, and the
//! units that cost most.

use super::PatchReport;
use crate::error::Result;
use crate::grid::Grid;
use crate::output;

/// Units that are listed where not all are asked for.
const TOP: usize = 20;
/// An effect matters from this part of the clean loss on.
const MATTERS: f64 = 1e-3;
/// Standard errors to either side of a 95 % interval.
pub(super) const Z: f64 = 1.96;

/// What the interval of a unit's effect says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It lies above what matters.
    Needed,
    /// It lies below.
    NotNeeded,
    /// It does not tell, as of a single prompt.
    Undecided,
}

/// One unit's effect.
struct Effect {
    layer: usize,
    index: usize,
    mean: f64,
    error: f64,
}

impl Effect {
    fn verdict(&self, margin: f64) -> Verdict {
        if self.mean - Z * self.error > margin {
            Verdict::Needed
        } else if self.mean + Z * self.error < margin {
            Verdict::NotNeeded
        } else {
            Verdict::Undecided
        }
    }
}

/// Prints the effects of each kind of unit.
pub(super) fn print(report: &PatchReport, all: bool) -> Result<()> {
    let margin = MATTERS * report.clean_loss;
    for (kind, grid) in &report.effects {
        let effects = effects(grid, report.stderr.get(kind));
        output::paragraph(&format!(
            "{kind}s on {} prompts: needed where the 95 % interval of the loss rise lies above \
             {margin:.4} (a thousandth of the clean loss), not needed where it lies below.",
            report.prompts
        ))?;
        output::line(&verdicts(&effects, grid.len(), margin).to_string())?;
        output::line("")?;
        output::line(&heading(kind, effects.len(), all))?;
        output::line(&costliest(kind, effects, all).to_string())?;
        output::line("")?;
    }
    output::paragraph(&format!(
        "clean loss {:.4}, {:.1} s, {:.2} forward and {:.2} backward passes a prompt",
        report.clean_loss, report.seconds, report.forwards, report.backwards
    ))
}

fn effects(grid: &Grid, errors: Option<&Grid>) -> Vec<Effect> {
    let error = |layer: usize, index: usize| errors?.get(layer)?.get(index).copied();
    let of = |(layer, row): (usize, &Vec<f64>)| {
        let each = move |(index, mean): (usize, &f64)| {
            let error = error(layer, index).unwrap_or(f64::NAN);
            Effect { layer, index, mean: *mean, error }
        };
        row.iter().enumerate().map(each).collect::<Vec<_>>()
    };
    grid.iter().enumerate().flat_map(of).collect()
}

/// How many of each layer are what; layers that were not asked for have no row.
fn verdicts(effects: &[Effect], layers: usize, margin: f64) -> output::Table {
    let mut table = output::table(&["layer", "needed", "not needed", "undecided"]);
    for layer in 0..layers {
        let of = |wanted| {
            let own = effects.iter().filter(|e| e.layer == layer);
            own.filter(|e| e.verdict(margin) == wanted).count()
        };
        let counts = [Verdict::Needed, Verdict::NotNeeded, Verdict::Undecided].map(of);
        if counts.iter().any(|n| *n > 0) {
            table.add_row([layer].into_iter().chain(counts).map(|n| n.to_string()));
        }
    }
    table
}

fn heading(kind: &str, units: usize, all: bool) -> String {
    if all || units <= TOP {
        return format!("all {units} {kind}s, by what they cost when cut:");
    }
    format!("the {TOP} of {units} {kind}s that cost most when cut (--all lists all):")
}

fn costliest(kind: &str, mut effects: Vec<Effect>, all: bool) -> output::Table {
    effects.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    let mut table = output::table(&["unit", "nats per token", "95 %"]);
    for e in effects.iter().take(if all { usize::MAX } else { TOP }) {
        let interval = match e.error.is_nan() {
            true => "-".to_owned(),
            false => format!("[{:+.4}, {:+.4}]", e.mean - Z * e.error, e.mean + Z * e.error),
        };
        let unit = format!("{kind}:{}.{}", e.layer, e.index);
        table.add_row([unit, format!("{:+.4}", e.mean), interval]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(mean: f64, error: f64) -> Effect {
        Effect { layer: 0, index: 0, mean, error }
    }

    #[test]
    fn an_interval_decides_only_where_it_clears_what_matters() {
        assert_eq!(effect(0.5, 0.1).verdict(0.01), Verdict::Needed);
        assert_eq!(effect(0.0, 0.001).verdict(0.01), Verdict::NotNeeded);
        assert_eq!(effect(0.0, 0.1).verdict(0.01), Verdict::Undecided);
        assert_eq!(
            effect(0.5, f64::NAN).verdict(0.01),
            Verdict::Undecided,
            "one prompt tells nothing"
        );
        assert_eq!(effect(0.0, 0.0).verdict(0.01), Verdict::NotNeeded, "never routed to");
    }

    #[test]
    fn the_dearest_are_listed_first_and_no_more_than_asked_for() {
        let grid: Grid = vec![(0..30).map(f64::from).collect(), vec![]];
        let found = effects(&grid, Some(&vec![vec![0.5; 30], vec![]]));
        assert_eq!(verdicts(&found, 2, 1.5).to_string().lines().count(), 3, "a row a layer");
        let some = costliest("expert", found, false).to_string();
        assert_eq!(some.lines().count(), 2 + TOP);
        assert!(some.lines().nth(2).unwrap().starts_with("expert:0.29"), "{some}");
        let all = costliest("expert", effects(&grid, None), true).to_string();
        assert_eq!(all.lines().count(), 2 + 30);
    }
}
