//! The report as one page that needs nothing else: no script, no font, no network.

use super::Report;
use super::content::{Content, StudentRow};
use super::heat_map::HeatMap;
use super::plot::{Bar, Curve, FLOOR, HEIGHT, LEFT, SPAN, Strip, WIDTH, bars};
use askama::Template;

/// What the template reads. Whatever it prints is escaped.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    content: &'a Content,
    students: Vec<(&'a StudentRow, Bar)>,
    kind: &'static str,
    map: Option<HeatMap>,
    /// What each layer keeps, and of how many, where there is no picture.
    layers: Vec<(usize, u32, u32)>,
    curve: Option<Curve>,
    strip: Option<Strip>,
    width: f64,
    height: f64,
    left: f64,
    floor: f64,
    span: f64,
}

/// `report.html`.
///
/// # Errors
/// None is known; the template's signature has one.
pub(super) fn page(report: &Report) -> Result<String, askama::Error> {
    let (content, mask) = (Content::of(report), report.figures.mask.as_ref());
    let map = HeatMap::of(report);
    let layers = mask.filter(|_| map.is_none()).map(|m| m.layers.iter().copied());
    let layers = layers.into_iter().flatten().enumerate();
    Page {
        title: format!("Campaign {} of colony {}", report.figures.campaign, report.colony),
        students: content.students.iter().zip(bars(&report.figures.students)).collect(),
        content: &content,
        kind: mask.map_or("unit", |m| m.kind.name()),
        map,
        layers: layers.map(|(layer, (kept, units))| (layer, kept, units)).collect(),
        curve: Curve::of(report),
        strip: mask.and_then(Strip::of),
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        floor: FLOOR,
        span: SPAN,
    }
    .render()
}
