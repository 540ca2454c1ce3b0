//! The report of a campaign, whatever its end: what was found, in figures and ids, never a prompt's
//! text (invariant 7).
//!
//! [`Report`] gathers it from the state; `content` (with `answers` and `table`) puts it into words and rows; `markdown` and
//! `html` (with `heat_map` and `plot`) set these. A release holds the same figures, and its model
//! card is set from the same rows.

mod answers;
mod content;
mod heat_map;
mod html;
mod markdown;
mod plot;
mod table;
#[cfg(test)]
mod tests;

use crate::ServiceError;
use crate::names::Names;
use crate::status::write_file;
use serde::Serialize;
use std::path::{Path, PathBuf};
use uspx_colony::advice::{Advice, advise};
use uspx_colony::cliff::{Cliff, cliff};
use uspx_colony::drift::Drift;
use uspx_colony::report::{UnitReport, ending_words, units};
use uspx_colony::resample::{Resampled, Stability};
use uspx_colony::{CampaignReport, Ending, ReleaseOrder, Split, State, report};
use uspx_domain::{Fingerprint, ReleaseNumber, student_name};

pub(crate) use markdown::card;

/// What all pages look like that uspx writes: CSS, light or dark as the reader has it, and for print.
pub const PAGE_STYLE: &str = include_str!("../../templates/page.css");

/// Where a report lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// For programs.
    pub json: PathBuf,
    /// For a terminal.
    pub markdown: PathBuf,
    /// For a browser: one page that needs nothing else.
    pub html: PathBuf,
}

impl Paths {
    fn within(folder: &Path) -> Self {
        let file = |end| folder.join("report").with_extension(end);
        Self { json: file("json"), markdown: file("md"), html: file("html") }
    }
}

/// What `report.json` says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    colony: String,
    /// How the campaign ended, in words; none while it runs.
    ending: Option<String>,
    /// The release that it made.
    release: Option<ReleaseNumber>,
    /// The release before.
    previous: Option<ReleaseNumber>,
    teacher: Fingerprint,
    /// What workers call it.
    teacher_name: Option<String>,
    /// None where no student is wanted.
    base: Option<Fingerprint>,
    /// What workers call it.
    base_name: Option<String>,
    /// What the released student is called in its files, where its base's name is known.
    student_name: Option<String>,
    prompts: Prompts,
    /// What would help; empty where there is nothing to say.
    advice: Vec<Advice>,
    stability: Option<Stability>,
    /// The newest prompts beside the older ones; none where all are of one age.
    drift: Option<Drift>,
    cliff: Option<Cliff>,
    figures: CampaignReport,
    units: Vec<UnitReport>,
}

/// How many prompts the campaign has, by what they may be used for.
#[derive(Debug, Clone, Copy, Serialize)]
struct Prompts {
    train: usize,
    validation: usize,
    gate: usize,
}

impl Report {
    /// The report of the state's campaign; none before one was founded.
    pub(crate) fn of((colony, names): (&str, &Names), state: &State) -> Option<Self> {
        let resampled = Resampled::of(state);
        let (campaign, figures) = (state.campaign()?, report(state)?);
        let prompts = |split| campaign.split(split).len();
        let published = state.published().map(|p| p.release);
        let name = |model| names.of(model).map(str::to_owned);
        Some(
            Self {
                colony: colony.to_owned(),
                ending: state.ending().map(ending_words),
                release: None,
                previous: published,
                teacher: campaign.teacher,
                teacher_name: name(campaign.teacher),
                base: campaign.student,
                base_name: campaign.student.and_then(name),
                student_name: None,
                prompts: Prompts {
                    train: prompts(Split::Train),
                    validation: prompts(Split::Validation),
                    gate: prompts(Split::Gate),
                },
                advice: advise(&figures, campaign.distil.tag_worse),
                stability: Stability::of(state, resampled.as_ref()),
                drift: resampled.and_then(|drawn| Drift::of(state, &drawn)),
                cliff: figures.mask.as_ref().and_then(|m| cliff(&m.curve)),
                units: units(state),
                figures,
            }
            .with_order(state.order().filter(|o| published == Some(o.release))),
        )
    }

    fn with_order(self, order: Option<&ReleaseOrder>) -> Self {
        match order {
            Some(order) => self.released(order),
            None => self,
        }
    }

    /// The same as the release of `order` says it.
    pub(crate) fn released(self, order: &ReleaseOrder) -> Self {
        let ending = Some(ending_words(&Ending::Published(order.release)));
        let named = |base: &String| student_name(base, Some(&order.adapter));
        let (release, student_name) = (Some(order.release), self.base_name.as_ref().map(named));
        Self { ending, release, student_name, previous: order.previous, ..self }
    }

    /// `report.json`.
    ///
    /// # Errors
    /// None is known; the encoder's signature has one.
    pub(crate) fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }
}

/// Writes all three into a folder, which is made where it is not there.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(folder: &Path, report: &Report) -> Result<Paths, ServiceError> {
    std::fs::create_dir_all(folder).map_err(ServiceError::file(folder))?;
    let paths = Paths::within(folder);
    let failed = |path: &Path, error: std::io::Error| ServiceError::file(path)(error);
    let json = report.json().map_err(|e| failed(&paths.json, e.into()))?;
    write_file(&paths.json, &json)?;
    write_file(&paths.markdown, markdown::report(report).as_bytes())?;
    let html = html::page(report).map_err(|e| failed(&paths.html, std::io::Error::other(e)))?;
    write_file(&paths.html, html.as_bytes())?;
    Ok(paths)
}
