//! The plots of a report, in the units of an SVG view box of [`WIDTH`] × [`HEIGHT`]: the curve with
//! its cliff, the mask among random ones, a model's interval.

use super::Report;
use uspx_colony::report::{MaskReport, StudentReport};

pub(super) const WIDTH: f64 = 640.0;
pub(super) const HEIGHT: f64 = 240.0;
/// Room for numbers at the left and below.
pub(super) const LEFT: f64 = 56.0;
const BELOW: f64 = 28.0;
/// Where nothing is lost.
pub(super) const FLOOR: f64 = HEIGHT - BELOW;
/// Room above and at the right.
const AIR: f64 = 14.0;
/// The width of a model's interval.
pub(super) const SPAN: f64 = 200.0;

/// A place with its meaning.
pub(super) struct Mark {
    pub x: String,
    pub y: String,
    pub title: String,
}

/// Loss rise by the share pruned.
pub(super) struct Curve {
    /// The points of the line, as SVG writes them.
    pub line: String,
    pub points: Vec<Mark>,
    /// The mask of the day, with the ends of its interval.
    pub mask: Option<(Mark, Option<(String, String)>)>,
    /// The cliff, from here over so much.
    pub cliff: Option<(String, String)>,
    /// Numbers along the axes.
    pub shares: Vec<Mark>,
    pub rises: Vec<Mark>,
}

/// A length as SVG writes it.
pub(super) fn pixels(x: f64) -> String {
    format!("{x:.1}")
}

/// What is shown of a plane, from 0 to these.
struct Plane {
    share: f64,
    low: f64,
    high: f64,
}

impl Plane {
    fn x(&self, share: f64) -> f64 {
        LEFT + share / self.share * (WIDTH - LEFT - AIR)
    }

    fn y(&self, rise: f64) -> f64 {
        let part = (rise - self.low) / (self.high - self.low);
        FLOOR - part * (FLOOR - AIR)
    }

    fn mark(&self, (share, rise): (f64, f64)) -> Mark {
        let title = format!("{:.0} % pruned: {rise:+.3}", share * 100.0);
        Mark { x: pixels(self.x(share)), y: pixels(self.y(rise)), title }
    }

    fn of(mask: &MaskReport) -> Self {
        let rises = || mask.curve.iter().map(|p| p.1).chain(mask.rise).chain([0.0]);
        let ends = mask.rise_interval.into_iter().flat_map(|(low, high)| [low, high]);
        let all: Vec<f64> = rises().chain(ends).collect();
        let low = all.iter().copied().fold(0.0, f64::min);
        let high = all.iter().copied().fold(low + 1e-6, f64::max);
        let share = mask.curve.iter().map(|p| p.0).chain([mask.pruned(), 0.1]).fold(0.0, f64::max);
        Self { share, low, high }
    }
}

impl Curve {
    /// The curve; none where there are no points.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let mask = report.figures.mask.as_ref().filter(|m| !m.curve.is_empty())?;
        let plane = Plane::of(mask);
        let all = || [(0.0, 0.0)].into_iter().chain(mask.curve.iter().copied());
        let point = |(share, rise)| format!("{:.1},{:.1}", plane.x(share), plane.y(rise));
        let interval = mask.rise_interval.map(|(a, b)| (pixels(plane.y(a)), pixels(plane.y(b))));
        let cliff = report.cliff.map(|c| {
            let (from, to) = (plane.x(c.before), plane.x(c.behind));
            (pixels(from), pixels(to - from))
        });
        Some(Self {
            line: all().map(point).collect::<Vec<_>>().join(" "),
            points: mask.curve.iter().map(|p| plane.mark(*p)).collect(),
            mask: mask.rise.map(|rise| (plane.mark((mask.pruned(), rise)), interval)),
            cliff,
            shares: all().map(|(share, _)| share_tick(&plane, share)).collect(),
            rises: [plane.low, plane.high].map(|rise| rise_tick(&plane, rise)).into(),
        })
    }
}

fn share_tick(plane: &Plane, share: f64) -> Mark {
    let title = format!("{:.0} %", share * 100.0);
    Mark { x: pixels(plane.x(share)), y: pixels(HEIGHT - 8.0), title }
}

fn rise_tick(plane: &Plane, rise: f64) -> Mark {
    Mark { x: pixels(LEFT - 8.0), y: pixels(plane.y(rise) + 4.0), title: format!("{rise:+.2}") }
}

/// The mask's rise among those of random masks.
pub(super) struct Strip {
    pub random: Vec<Mark>,
    pub mask: Mark,
    pub low: String,
    pub high: String,
}

impl Strip {
    pub(super) fn of(mask: &MaskReport) -> Option<Self> {
        let rise = mask.rise.filter(|_| !mask.random.is_empty())?;
        let all = || mask.random.iter().copied().chain([rise, 0.0]);
        let (low, high) =
            (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let room = WIDTH - 2.0 * AIR;
        let mark = |r: f64| Mark {
            x: pixels(AIR + (r - low) / (high - low).max(1e-9) * room),
            y: String::new(),
            title: format!("{r:+.3}"),
        };
        let random = mask.random.iter().map(|r| mark(*r)).collect();
        let end = |r: f64| format!("{r:+.2}");
        Some(Self { random, mask: mark(rise), low: end(low), high: end(high) })
    }
}

/// A model's bits per byte with their interval, on the axis that all models share.
pub(super) struct Bar {
    pub low: String,
    pub width: String,
    pub at: String,
}

/// One bar for each model.
pub(super) fn bars(students: &[StudentReport]) -> Vec<Bar> {
    let ends = |s: &StudentReport| s.interval.unwrap_or((s.bits_per_byte, s.bits_per_byte));
    let low = students.iter().map(|s| ends(s).0).fold(f64::INFINITY, f64::min);
    let high = students.iter().map(|s| ends(s).1).fold(low + 1e-9, f64::max);
    let place = |bits: f64| (bits - low) / (high - low) * (SPAN - 8.0) + 4.0;
    let bar = |s: &StudentReport| {
        let (from, to) = ends(s);
        Bar {
            low: pixels(place(from)),
            width: pixels((place(to) - place(from)).max(1.0)),
            at: pixels(place(s.bits_per_byte)),
        }
    };
    students.iter().map(bar).collect()
}
