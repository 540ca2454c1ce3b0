//! The plots of a report, in the units of an SVG view box of [`WIDTH`] × [`HEIGHT`]: a line for each
//! way over the fractions kept, the default's with its band.

use super::figures::{TargetFigures, WayFigures};
use super::target::Role;
use uspx_colony::bootstrap::Estimate;
use uspx_colony::faithfulness::Place;

pub(super) const WIDTH: f64 = 440.0;
pub(super) const HEIGHT: f64 = 300.0;
/// Room for numbers and words at the left and below.
pub(super) const LEFT: f64 = 54.0;
const BELOW: f64 = 46.0;
/// The lower edge of the frame.
pub(super) const FLOOR: f64 = HEIGHT - BELOW;
/// Room above and at the right.
pub(super) const AIR: f64 = 12.0;
/// What of faithfulness is shown, at most: worse is below the frame.
const WORST: f64 = -1.0;
const BEST: f64 = 1.25;

/// One plot.
pub(super) struct Plot {
    pub title: String,
    /// For a clip path of its own.
    pub id: String,
    /// What stands at the left.
    pub axis: &'static str,
    pub lines: Vec<Line>,
    /// The corners of the default's band.
    pub band: String,
    /// The default's places.
    pub dots: Vec<Mark>,
    /// Where the loss turns steep: from here, over so much.
    pub cliff: Option<(String, String)>,
    /// Levels to compare with.
    pub levels: Vec<Level>,
    pub across: Vec<Mark>,
    pub up: Vec<Mark>,
}

/// One way.
pub(super) struct Line {
    pub class: &'static str,
    pub title: String,
    /// As SVG writes them.
    pub points: String,
}

/// A place with its meaning.
pub(super) struct Mark {
    pub x: String,
    pub y: String,
    pub title: String,
}

/// A level, and where its name stands: where curves are not.
pub(super) struct Level {
    pub y: String,
    pub title: &'static str,
    pub x: String,
    /// As SVG's `text-anchor` says it.
    pub anchor: &'static str,
}

/// What is drawn of a place.
type Figure = fn(&Place) -> Estimate;

/// What is shown: all fractions, and values from the first to the second.
struct Plane(f64, f64);

fn pixels(x: f64) -> String {
    format!("{x:.1}")
}

impl Plane {
    fn x(kept: f64) -> f64 {
        LEFT + kept * (WIDTH - LEFT - AIR)
    }

    /// A point far outside is drawn just outside.
    fn y(&self, value: f64) -> f64 {
        let part = ((value - self.0) / (self.1 - self.0)).clamp(-1.0, 2.0);
        FLOOR - part * (FLOOR - AIR)
    }

    fn point(&self, kept: f64, value: f64) -> String {
        format!("{:.1},{:.1}", Self::x(kept), self.y(value))
    }

    fn line(&self, way: &WayFigures, figure: Figure) -> Line {
        let known = way.places().iter().filter(|place| figure(place).value.is_finite());
        let points: Vec<String> =
            known.map(|place| self.point(place.kept, figure(place).value)).collect();
        Line { class: class(way.role), title: way.name.to_owned(), points: points.join(" ") }
    }

    fn band(&self, way: &WayFigures, figure: Figure) -> String {
        let known = |p: &&Place| figure(p).low.is_finite() && figure(p).high.is_finite();
        let there = way.places().iter().filter(known).map(|p| self.point(p.kept, figure(p).low));
        let back = way.places().iter().rev().filter(known);
        let back = back.map(|p| self.point(p.kept, figure(p).high));
        there.chain(back).collect::<Vec<_>>().join(" ")
    }

    fn dots(&self, way: &WayFigures, figure: Figure) -> Vec<Mark> {
        let inside = |p: &&Place| (self.0..=self.1).contains(&figure(p).value);
        let dot = |place: &Place| {
            let Estimate { value, low, high } = figure(place);
            let title = format!(
                "{}: {:.1} % kept, {value:.3} [{low:.3}, {high:.3}]",
                way.name,
                place.kept * 100.0
            );
            Mark { x: pixels(Self::x(place.kept)), y: pixels(self.y(value)), title }
        };
        way.places().iter().filter(inside).map(dot).collect()
    }

    /// The whole model, which curves end at: its name stands at the left.
    fn whole(&self) -> Level {
        let (x, y) = (pixels(LEFT + 6.0), pixels(self.y(1.0)));
        Level { y, title: "whole model", x, anchor: "start" }
    }

    /// The model without any of the units, which curves begin at or above: at the right.
    fn empty(&self, value: f64) -> Option<Level> {
        let (x, y) = (pixels(WIDTH - AIR - 6.0), pixels(self.y(value)));
        let inside = (self.0..=self.1).contains(&value);
        inside.then_some(Level { y, title: "none of them", x, anchor: "end" })
    }

    fn up(&self) -> Vec<Mark> {
        let step = step((self.1 - self.0) / 6.0);
        let places = if step < 0.1 { 2 } else { 1 };
        let first = (self.0 / step).ceil() as i64;
        let all = (first..).map(|n| n as f64 * step).take_while(|v| *v <= self.1 + 1e-9);
        let mark = |value: f64| Mark {
            x: pixels(LEFT - 8.0),
            y: pixels(self.y(value)),
            title: format!("{:.places$}", value + 0.0),
        };
        all.map(mark).collect()
    }
}

/// The least of 1, 2, 5, 10, .. times a power of ten that is no less.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-6).log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= least);
    fits.unwrap_or(10.0 * power)
}

fn across() -> Vec<Mark> {
    let mark = |n: u32| {
        let kept = f64::from(n) / 4.0;
        Mark { x: pixels(Plane::x(kept)), y: pixels(FLOOR + 16.0), title: format!("{}", n * 25) }
    };
    (0..=4).map(mark).collect()
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Default => "default",
        Role::Exact => "exact",
        Role::Random => "random",
        Role::Score => "score",
    }
}

/// The order in which lines are drawn: what matters most last.
fn drawn(ways: &[WayFigures]) -> impl Iterator<Item = &WayFigures> {
    let order = [Role::Score, Role::Random, Role::Exact, Role::Default];
    order.into_iter().flat_map(|role| ways.iter().filter(move |way| way.role == role))
}

/// Faithfulness by every way; the same frame for all targets.
pub(super) fn faithfulness(number: usize, target: &TargetFigures, all: &[TargetFigures]) -> Plot {
    let figure: Figure = |place| place.faithfulness;
    let ways = all.iter().flat_map(|target| &target.ways);
    let values = ways.flat_map(WayFigures::places).map(|p| figure(p).value);
    let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    let low = values.iter().copied().fold(0.0, f64::min).max(WORST);
    let high = values.iter().copied().fold(1.0, f64::max).min(BEST);
    let plane = Plane(low - 0.02, high + 0.05);
    let default = target.default();
    Plot {
        title: target.title(),
        id: format!("f{number}"),
        axis: "faithfulness f",
        lines: drawn(&target.ways).map(|way| plane.line(way, figure)).collect(),
        band: default.map(|way| plane.band(way, figure)).unwrap_or_default(),
        dots: default.map(|way| plane.dots(way, figure)).unwrap_or_default(),
        cliff: None,
        levels: [plane.whole()].into_iter().chain(plane.empty(0.0)).collect(),
        across: across(),
        up: plane.up(),
    }
}

/// The default's loss above the whole model's, with its cliff.
pub(super) fn rise(number: usize, target: &TargetFigures) -> Plot {
    let figure: Figure = |place| place.rise;
    let default = target.default();
    let places = default.into_iter().flat_map(WayFigures::places).map(figure);
    let ends = places.flat_map(|e| [e.value, e.low, e.high]).filter(|v| v.is_finite());
    let empty = target.empty_loss - target.whole_loss;
    let all: Vec<f64> = ends.chain([empty, 0.0]).filter(|v| v.is_finite()).collect();
    let low = all.iter().copied().fold(0.0, f64::min);
    let high = all.iter().copied().fold(1e-6, f64::max);
    let plane = Plane(low - 0.02 * (high - low), high * 1.05);
    let cliff = target.cliff.as_ref().map(|cliff| {
        let (from, to) = (Plane::x(cliff.falls), Plane::x(cliff.holds));
        (pixels(from), pixels(to - from))
    });
    Plot {
        title: target.title(),
        id: format!("r{number}"),
        axis: "loss rise, nats per token",
        lines: default.map(|way| plane.line(way, figure)).into_iter().collect(),
        band: default.map(|way| plane.band(way, figure)).unwrap_or_default(),
        dots: default.map(|way| plane.dots(way, figure)).unwrap_or_default(),
        cliff,
        levels: plane.empty(empty).into_iter().collect(),
        across: across(),
        up: plane.up(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_at_round_numbers_within_the_frame() {
        assert_eq!([0.13, 0.2, 0.6, 3.0].map(step), [0.2, 0.2, 1.0, 5.0]);
        let titles = |plane: Plane| -> Vec<String> {
            plane.up().into_iter().map(|mark| mark.title).collect()
        };
        assert_eq!(titles(Plane(-0.02, 1.1)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(titles(Plane(-1.0, 1.3)), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
    }

    #[test]
    fn a_frame_is_filled_from_its_floor_up() {
        let plane = Plane(0.0, 2.0);
        assert_eq!(plane.point(0.0, 0.0), format!("{LEFT:.1},{FLOOR:.1}"));
        assert_eq!(plane.point(1.0, 2.0), format!("{:.1},{AIR:.1}", WIDTH - AIR));
        assert!(plane.y(-1e9) > HEIGHT && plane.y(1e9) < 0.0, "outside, and finite");
        assert!(plane.empty(3.0).is_none() && plane.empty(1.0).is_some());
    }
}
