//! The mask as a picture: a row a layer, a cell a unit, in the units of an SVG view box.

use super::Report;
use super::plot::pixels;
use std::collections::BTreeMap;
use uspx_colony::report::UnitReport;

/// More cells are no picture; what each layer keeps is told in a table.
const MOST_CELLS: usize = 20_000;
/// The width of all cells, where they are many.
const WIDTH: f64 = 880.0;
/// The side of a cell, at least and at most.
const SIDE: (f64, f64) = (3.0, 16.0);
/// Room for the layers' numbers.
const LABEL: f64 = 34.0;

/// The picture.
pub(super) struct HeatMap {
    pub width: String,
    pub height: String,
    pub side: String,
    pub rows: Vec<Row>,
}

/// One layer.
pub(super) struct Row {
    pub layer: u32,
    /// The baseline of its number.
    pub baseline: String,
    pub y: String,
    pub cells: Vec<Cell>,
}

/// One unit.
pub(super) struct Cell {
    pub x: String,
    /// `kept` or `cut`.
    pub class: &'static str,
    /// How sure the mask is of it.
    pub opacity: String,
    pub title: String,
}

impl HeatMap {
    /// The mask's picture; none where there is no mask, or one of too many units.
    pub(super) fn of(report: &Report) -> Option<Self> {
        if report.units.is_empty() || report.units.len() > MOST_CELLS {
            return None;
        }
        let mut layers: BTreeMap<u32, Vec<&UnitReport>> = BTreeMap::new();
        report.units.iter().for_each(|u| layers.entry(u.unit.layer).or_default().push(u));
        let widest = layers.values().map(Vec::len).max().unwrap_or(1) as f64;
        let step = (WIDTH / widest).clamp(SIDE.0, SIDE.1);
        let row = |(at, (layer, units)): (usize, (u32, Vec<&UnitReport>))| {
            let y = at as f64 * step;
            let cells =
                units.into_iter().enumerate().map(|(x, u)| cell(u, LABEL + x as f64 * step));
            let baseline = pixels(y + 0.8 * step);
            Row { layer, y: pixels(y), baseline, cells: cells.collect() }
        };
        Some(Self {
            width: pixels(LABEL + widest * step),
            height: pixels(layers.len() as f64 * step),
            side: pixels(0.85 * step),
            rows: layers.into_iter().enumerate().map(row).collect(),
        })
    }
}

fn cell(u: &UnitReport, x: f64) -> Cell {
    let class = if u.kept { "kept" } else { "cut" };
    let title = format!(
        "{} {} of layer {}: {class}, score {:.4} [{:.4}, {:.4}], {:.0} % sure",
        u.unit.kind,
        u.unit.index,
        u.unit.layer,
        u.score.mean,
        u.interval.0,
        u.interval.1,
        u.confidence * 100.0
    );
    // Half sure is a toss.
    let opacity = format!("{:.2}", 0.15 + 0.85 * (2.0 * u.confidence - 1.0).clamp(0.0, 1.0));
    Cell { x: pixels(x), class, opacity, title }
}
