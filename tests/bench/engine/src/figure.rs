//! What was measured: figures with their bounds, as a table for people and one JSON object for
//! programs.

use crate::error::{BenchError, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How a figure must stand to its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At least this much.
    AtLeast(f64),
    /// Below this.
    Below(f64),
    /// Only reported.
    None,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::Below(bound) => value < bound,
            // A number that is none was not measured.
            Self::None => value.is_finite(),
        }
    }

    fn value(self) -> Option<f64> {
        match self {
            Self::AtLeast(bound) | Self::Below(bound) => Some(bound),
            Self::None => None,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::Below(bound) => format!("< {bound}"),
            Self::None => String::new(),
        }
    }
}

/// A figure that was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    bound: Bound,
    detail: Value,
}

impl Figure {
    /// A figure; `detail` is a JSON object with what it was made of.
    pub fn new(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        bound: Bound,
        detail: Value,
    ) -> Self {
        Self { name: name.into(), value, unit, bound, detail }
    }

    fn holds(&self) -> bool {
        self.bound.holds(self.value)
    }

    fn json(&self) -> Value {
        #[derive(Serialize)]
        struct Shown<'a> {
            value: f64,
            unit: &'a str,
            bound: Option<f64>,
            holds: bool,
        }
        let shown = Shown {
            value: self.value,
            unit: self.unit,
            bound: self.bound.value(),
            holds: self.holds(),
        };
        let mut found = json!(shown);
        if let (Some(found), Value::Object(detail)) = (found.as_object_mut(), &self.detail) {
            found.extend(detail.clone());
        }
        found
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Report {
    /// Adds a figure and shows it at once.
    pub fn put(&mut self, figure: Figure) {
        println!("{}", row(&figure));
        self.figures.push(figure);
    }

    /// A group of figures that could not be finished: it does not hold.
    pub fn fail(&mut self, name: &str, why: String) {
        println!("{name:<34} FAILED: {why}");
        self.failed.push((name.to_owned(), why));
    }

    /// A figure that cannot be measured on this machine.
    pub fn skip(&mut self, name: &str, why: String) {
        println!("{name:<34} SKIPPED: {why}");
        self.skipped.push((name.to_owned(), why));
    }

    /// How a group of figures ended: one that this machine has not the means for is skipped.
    pub fn ended(&mut self, group: &impl ValueEnum, done: Result<()>) {
        let name = group.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
        match done {
            Ok(()) => {}
            Err(error @ (BenchError::Absent(_) | BenchError::Disk { .. })) => {
                self.skip(&name, error.to_string());
            }
            Err(error) => self.fail(&name, error.to_string()),
        }
    }

    /// Whether all that was measured holds.
    pub fn pass(&self) -> bool {
        self.failed.is_empty() && self.figures.iter().all(Figure::holds)
    }

    /// The table again, and the JSON object as the last line.
    pub fn print(&self) {
        println!();
        self.figures.iter().for_each(|figure| println!("{}", row(figure)));
        println!("{}", self.json());
    }

    fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|f| (f.name.clone(), f.json())).collect();
        let named = |all: &[(String, String)]| -> Map<String, Value> {
            all.iter().map(|(name, why)| (name.clone(), why.clone().into())).collect()
        };
        json!({
            "figures": figures,
            "failed": named(&self.failed),
            "skipped": named(&self.skipped),
            "pass": self.pass(),
        })
    }
}

fn row(figure: &Figure) -> String {
    let Figure { name, value, unit, bound, .. } = figure;
    let holds = match (bound, figure.holds()) {
        (Bound::None, true) => "",
        (_, true) => "holds",
        (_, false) => "DOES NOT HOLD",
    };
    format!("{name:<34} {value:>10.3} {unit:<10} {:<10} {holds}", bound.shown())
}

/// The middle of an odd number of values, the mean of the middle two of an even one; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { (at(half.wrapping_sub(1)) + at(half)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, bound: Bound) -> Figure {
        Figure::new("f", value, "x", bound, json!({"more": 1}))
    }

    #[test]
    fn a_report_passes_when_every_figure_that_was_measured_holds() {
        let mut report = Report::default();
        report.put(figure(3.0, Bound::AtLeast(3.0)));
        report.put(figure(7.0, Bound::None));
        report.skip("gpu", "none here".into());
        assert!(report.pass());
        let json = report.json();
        assert_eq!(
            (json["figures"]["f"]["more"].as_i64(), json["skipped"]["gpu"].as_str()),
            (Some(1), Some("none here"))
        );
        report.put(figure(4.0, Bound::Below(4.0)));
        assert!(!report.pass());
    }

    #[test]
    fn what_could_not_be_finished_or_is_no_number_does_not_pass() {
        let mut report = Report::default();
        report.fail("memory", "killed".into());
        assert!(!report.pass());
        for bound in [Bound::AtLeast(1.0), Bound::Below(1.0), Bound::None] {
            let mut report = Report::default();
            report.put(figure(f64::NAN, bound));
            assert!(!report.pass(), "{bound:?}");
        }
    }

    #[test]
    fn medians() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
    }
}
