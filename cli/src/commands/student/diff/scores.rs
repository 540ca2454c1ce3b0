//! What two releases are worth beside one another. Each was judged in its own campaign, so where the
//! prompts are others the figures tell less than the gate's did; how many there were is told.

use super::Headings;
use crate::commands::student::published::Report;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use std::collections::BTreeSet;
use uspx_colony::report::title;
use uspx_colony::{CampaignReport, Contender};

/// The figures of both.
#[derive(Debug, Serialize)]
pub struct Scores {
    /// Prompts that the models of each were compared on.
    pub compared_prompts: (Option<u32>, Option<u32>),
    pub scores: Vec<Change>,
    /// Of the student that the gate judged.
    pub tags: Vec<Change>,
}

/// Bits per byte of one model, or on one tag's prompts.
#[derive(Debug, Serialize)]
pub struct Change {
    pub name: String,
    pub first: Option<f64>,
    pub second: Option<f64>,
    /// Negative: the second is better.
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
        Self { compared_prompts: prompts.into(), scores: scores(both), tags: tags(both) }
    }

    /// For a person.
    pub fn show(&self, headings: &Headings) -> Result<()> {
        for (what, changes) in [("bits per byte", &self.scores), ("of its tags", &self.tags)] {
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

fn scores(both: [Option<&CampaignReport>; 2]) -> Vec<Change> {
    // What each was to beat is the release before it, not itself.
    let judged = both.into_iter().flatten().flat_map(|figures| &figures.students);
    let contenders: BTreeSet<Contender> =
        judged.map(|s| s.contender).filter(|who| *who != Contender::Published).collect();
    let bits = |figures: Option<&CampaignReport>, who| {
        figures?.students.iter().find(|s| s.contender == who).map(|s| s.bits_per_byte)
    };
    let one = |who| Change::new(title(who, None), both.map(|figures| bits(figures, who)).into());
    contenders.into_iter().map(one).collect()
}

fn tags(both: [Option<&CampaignReport>; 2]) -> Vec<Change> {
    let gates = both.map(|figures| figures.and_then(|f| f.gate.as_ref()));
    let tags: BTreeSet<&String> = gates.iter().flatten().flat_map(|g| g.tags.keys()).collect();
    let one = |tag: &String| {
        let bits = gates.map(|gate| gate.and_then(|g| g.tags.get(tag)).map(|t| t.new));
        Change::new(tag.clone(), bits.into())
    };
    tags.into_iter().map(one).collect()
}
