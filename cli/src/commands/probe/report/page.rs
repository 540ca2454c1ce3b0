//! The report as one page that needs nothing else: no script, no font, no network. Whatever the
//! template prints is escaped.

use super::agreement::{Agreement, Alike};
use super::figures::{Figures, TargetFigures, WayFigures, number, percent, plural, with_interval};
use super::plot::{self, AIR, FLOOR, HEIGHT, LEFT, Plot, WIDTH};
use super::target::Role;
use askama::Template;
use uspx_coordinator::PAGE_STYLE;

#[derive(Template)]
#[template(path = "faithfulness.html")]
struct Page<'a> {
    figures: &'a Figures,
    style: &'static str,
    summaries: Vec<String>,
    faithfulness: Vec<Plot>,
    rises: Vec<Plot>,
    targets: Vec<Section>,
    costs: Vec<Vec<String>>,
    skipped: Vec<String>,
    width: f64,
    height: f64,
    left: f64,
    air: f64,
    inner_width: f64,
    inner_height: f64,
    middle_x: f64,
    middle_y: f64,
}

/// The tables of a target.
struct Section {
    title: String,
    losses: String,
    /// Fractions kept, for people.
    grid: String,
    curves: Vec<Row>,
    agreement: Option<AgreementTable>,
    /// Headings and rows of f at each fraction.
    headings: Vec<String>,
    places: Vec<Row>,
    /// Rows of the default's loss and rise at each fraction.
    losses_at: Vec<Vec<String>>,
}

struct Row {
    class: &'static str,
    cells: Vec<String>,
}

struct AgreementTable {
    words: String,
    rows: Vec<Row>,
}

/// The page.
///
/// # Errors
/// None is known; the template's signature has one.
pub(super) fn page(figures: &Figures) -> Result<String, askama::Error> {
    let targets = &figures.targets;
    let plots = targets.iter().enumerate();
    Page {
        figures,
        style: PAGE_STYLE,
        summaries: targets.iter().map(TargetFigures::summary).collect(),
        faithfulness: plots.clone().map(|(n, t)| plot::faithfulness(n, t, targets)).collect(),
        rises: plots.map(|(n, t)| plot::rise(n, t)).collect(),
        targets: targets.iter().map(section).collect(),
        costs: costs(figures),
        skipped: figures.skipped.iter().map(ToString::to_string).collect(),
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        air: AIR,
        inner_width: WIDTH - LEFT - AIR,
        inner_height: FLOOR - AIR,
        middle_x: (LEFT + WIDTH - AIR) / 2.0,
        middle_y: (FLOOR + AIR) / 2.0,
    }
    .render()
}

fn class(role: Role) -> &'static str {
    if role == Role::Default { "own" } else { "" }
}

fn section(target: &TargetFigures) -> Section {
    let mut sorted: Vec<&WayFigures> = target.ways.iter().collect();
    sorted.sort_by(|a, b| a.curve.cmd.value.total_cmp(&b.curve.cmd.value));
    let curves = sorted.iter().map(|way| Row {
        class: class(way.role),
        cells: vec![name(way), with_interval(&way.curve.cmd), with_interval(&way.curve.cpr)],
    });
    let places = sorted.iter().map(|way| {
        let each = way.places().iter().map(|place| number(place.faithfulness.value));
        Row { class: class(way.role), cells: [name(way)].into_iter().chain(each).collect() }
    });
    let units = target.units.iter().zip(&target.kinds);
    let units: Vec<String> = units.map(|(n, kind)| format!("{n} {}", plural(*kind))).collect();
    let (first, last) = (target.kept.first().copied(), target.kept.last().copied());
    Section {
        title: target.title(),
        losses: format!(
            "{}. Loss of the whole model {}, without any of them {} nats per response token.",
            units.join(", "),
            number(target.whole_loss),
            number(target.empty_loss)
        ),
        grid: format!(
            "{} fractions from {} to {}",
            target.kept.len(),
            percent(first.unwrap_or(f64::NAN)),
            percent(last.unwrap_or(f64::NAN))
        ),
        curves: curves.collect(),
        agreement: target.agreement.as_ref().map(agreement),
        headings: target.kept.iter().map(|kept| percent(*kept)).collect(),
        places: places.collect(),
        losses_at: losses_at(target),
    }
}

fn name(way: &WayFigures) -> String {
    match way.role {
        Role::Default => format!("{} (default)", way.name),
        Role::Exact => format!("{} (oracle)", way.name),
        Role::Random | Role::Score => way.name.to_owned(),
    }
}

/// Fraction kept, units, loss, rise, f of the default.
fn losses_at(target: &TargetFigures) -> Vec<Vec<String>> {
    let places = target.default().into_iter().flat_map(WayFigures::places);
    let row = |(place, units): (&uspx_colony::faithfulness::Place, &Vec<usize>)| {
        let units: Vec<String> = units.iter().map(ToString::to_string).collect();
        vec![
            percent(place.kept),
            units.join(" + "),
            number(place.loss),
            with_interval(&place.rise),
            with_interval(&place.faithfulness),
        ]
    };
    places.zip(&target.kept_units).map(row).collect()
}

fn agreement(found: &Agreement) -> AgreementTable {
    let (exact, blocks) = (found.scores.iter().any(|s| s.with_exact.is_some()), found.blocks);
    let drawn = match found.of_groups {
        true => format!("{blocks} groups of prompts (a value a prompt would be too much)"),
        false => format!("{blocks} prompts"),
    };
    let against = match exact {
        true => "Exact effects were measured on the same prompts.",
        false => "Exact effects of these units were not measured.",
    };
    let row = |s: &super::agreement::Scored| {
        let cells = |alike: &Option<Alike>| match alike {
            Some(alike) => [with_interval(&alike.spearman), with_interval(&alike.overlap)],
            None => [number(f64::NAN), number(f64::NAN)],
        };
        let name = s.name.to_owned();
        let all = [name].into_iter().chain(cells(&s.with_exact)).chain(cells(&s.between_halves));
        Row { class: if s.is_default { "own" } else { "" }, cells: all.collect() }
    };
    let words = format!(
        "{against} Intervals are from draws of {drawn}; a draw knows fewer of them, so that its \
         scores agree less and values lie near the upper ends. K is {}, a quarter of the units. Halves: the \
         mean over {} random halvings, and 95 % of them.",
        found.top, found.halvings
    );
    AgreementTable { words, rows: found.scores.iter().map(row).collect() }
}

fn costs(figures: &Figures) -> Vec<Vec<String>> {
    let row = |cost: &super::evidence::Cost| {
        vec![
            format!("{} of {}", cost.estimator, plural(cost.kind)),
            format!("{:.2}", cost.forwards),
            format!("{:.2}", cost.backwards),
            format!("{:.2}", cost.forward_equivalents),
            format!("{:.1}", cost.seconds),
        ]
    };
    figures.costs.iter().map(row).collect()
}
