//! What two releases are worth beside one another. Each was judged in its own campaign, so where the
//! prompts are others the figures tell less than the gate's did; how many there were is told.

use super::Headings;
use crate::commands::student::published::Report;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use std::collections::BTreeSet;
use uspx_colony::gate::TagReport;
use uspx_colony::report::{StudentReport, title};
use uspx_colony::{CampaignReport, Contender};

/// The figures of both.
#[derive(Debug, Serialize)]
pub struct Scores {
    /// Prompts that the models of each were compared on.
    pub compared_prompts: (Option<u32>, Option<u32>),
    pub scores: Vec<Change>,
    /// Shares of prompts that the models answer with the reference.
    pub exact_match: Vec<Change>,
    /// Of the student that the gate judged.
    pub tags: Vec<Change>,
    /// Of its right answers.
    pub tags_exact_match: Vec<Change>,
}

/// Bits per byte of one model, or on one tag's prompts; or shares of right answers.
#[derive(Debug, Serialize)]
pub struct Change {
    pub name: String,
    pub first: Option<f64>,
    pub second: Option<f64>,
    /// The second less the first: of bits per byte negative where the second is better.
    pub change: Option<f64>,
}

impl Change {
    fn new(name: String, (first, second): (Option<f64>, Option<f64>)) -> Self {
        let change = first.zip(second).map(|(first, second)| second - first);
        Self { name, first, second, change }
    }

    fn cells(&self) -> [String; 4] {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
        let change = self.change.map_or_else(|| "-".to_owned(), |v| format!("{v:+.3}"));
        [self.name.clone(), cell(self.first), cell(self.second), change]
    }
}

impl Scores {
    /// Of two reports.
    pub fn of(first: &Report, second: &Report) -> Self {
        let both = [first.figures.as_ref(), second.figures.as_ref()];
        let prompts = both.map(|figures| figures.map(|f| f.compared_prompts));
        let told = |changes: Vec<Change>| -> Vec<Change> {
            changes.into_iter().filter(|c| c.first.or(c.second).is_some()).collect()
        };
        Self {
            compared_prompts: prompts.into(),
            scores: scores(both, |s| Some(s.bits_per_byte)),
            exact_match: told(scores(both, |s| s.exact_match)),
            tags: tags(both, |t| Some(t.new)),
            tags_exact_match: told(tags(both, |t| t.answers.map(|answers| answers.new))),
        }
    }

    /// For a person.
    pub fn show(&self, headings: &Headings) -> Result<()> {
        let tables = [
            ("bits per byte", &self.scores),
            ("of its tags", &self.tags),
            ("right answers", &self.exact_match),
            ("right answers, by tag", &self.tags_exact_match),
        ];
        for (what, changes) in tables {
            if changes.is_empty() {
                continue;
            }
            let mut table = headings.table(what);
            for change in changes {
                table.add_row(change.cells());
            }
            output::line(&table.to_string())?;
        }
        match self.compared_prompts {
            (Some(first), Some(second)) if first != second => output::paragraph(&format!(
                "judged on {first} held-out prompts, then on {second}: other prompts are harder or \
                 easier"
            )),
            _ => Ok(()),
        }
    }
}

fn scores(
    both: [Option<&CampaignReport>; 2],
    figure: fn(&StudentReport) -> Option<f64>,
) -> Vec<Change> {
    // What each was to beat is the release before it, not itself.
    let judged = both.into_iter().flatten().flat_map(|figures| &figures.students);
    let contenders: BTreeSet<Contender> =
        judged.map(|s| s.contender).filter(|who| *who != Contender::Published).collect();
    let of = |figures: Option<&CampaignReport>, who| {
        figures?.students.iter().find(|s| s.contender == who).and_then(figure)
    };
    let one = |who| Change::new(title(who, None), both.map(|figures| of(figures, who)).into());
    contenders.into_iter().map(one).collect()
}

fn tags(both: [Option<&CampaignReport>; 2], figure: fn(&TagReport) -> Option<f64>) -> Vec<Change> {
    let gates = both.map(|figures| figures.and_then(|f| f.gate.as_ref()));
    let tags: BTreeSet<&String> = gates.iter().flatten().flat_map(|g| g.tags.keys()).collect();
    let one = |tag: &String| {
        let of = gates.map(|gate| gate.and_then(|g| g.tags.get(tag)).and_then(figure));
        Change::new(tag.clone(), of.into())
    };
    tags.into_iter().map(one).collect()
}
