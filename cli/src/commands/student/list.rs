//! `uspx student list`: a row a release, the newest and the one in use marked; then refused students.

use super::published::{Published, Worth};
use super::refused::{self, Refused};
use crate::args::StudentListArgs;
use crate::commands::pull::{source, students};
use crate::error::{Exit, Result};
use crate::output;
use bytesize::ByteSize;
use serde::Serialize;
use std::path::Path;
use std::time::SystemTime;
use uspx_artifact::{Store, current, read_release, rolled_back_from};
use uspx_domain::{Manifest, ReleaseNumber};

/// What `--json` prints.
#[derive(Serialize)]
struct Listed<'a> {
    store: &'a str,
    newest: Option<ReleaseNumber>,
    into: &'a Path,
    /// The release in use there, whichever store it came from.
    current: Option<ReleaseNumber>,
    rolled_back_from: Option<ReleaseNumber>,
    releases: Vec<Row>,
    refused: Vec<Refused>,
}

/// One release of the store.
#[derive(Serialize)]
struct Row {
    release: ReleaseNumber,
    /// Since when the store has it.
    stored_at: String,
    bytes: Option<u64>,
    name: Option<String>,
    #[serde(flatten)]
    worth: Worth,
    newest: bool,
    /// Whether this very release lies in the folder, and whether it is in use there.
    here: bool,
    current: bool,
    /// Why nothing more is known of it.
    problem: Option<String>,
}

/// `uspx student list`.
pub async fn run(args: &StudentListArgs) -> Result<()> {
    let dest = students(args.into.as_deref())?;
    let url = source(args.store.as_deref(), &dest)?;
    let refused = args.state.as_deref().map(refused::of).transpose()?.unwrap_or_default();
    let releases = rows(&Store::open(&url)?, &dest).await?;
    let listed = Listed {
        store: &url,
        newest: releases.last().map(|row| row.release),
        into: &dest,
        // What is damaged there is for `pull --verify` to tell.
        current: current(&dest).ok().flatten().map(|local| local.manifest.release),
        rolled_back_from: rolled_back_from(&dest),
        releases,
        refused,
    };
    if args.json { output::json(&listed) } else { show(&listed) }
}

async fn rows(store: &Store, dest: &Path) -> Result<Vec<Row>> {
    let published = store.published().await?;
    let newest = published.keys().last().copied();
    let mut rows = Vec::new();
    for (release, since) in published {
        let mut row = Row::bare(release, since);
        row.newest = newest == Some(release);
        match Published::read(store, release).await {
            Ok(read) => row.fill(&read, dest),
            // One that is damaged hides no other.
            Err(error) if !error.ends_with(Exit::Unreachable) => {
                row.problem = Some(error.to_string())
            }
            Err(error) => return Err(error),
        }
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn bare(release: ReleaseNumber, since: SystemTime) -> Self {
        Self {
            release,
            stored_at: humantime::format_rfc3339_seconds(since).to_string(),
            bytes: None,
            name: None,
            worth: Worth::default(),
            newest: false,
            here: false,
            current: false,
            problem: None,
        }
    }

    fn fill(&mut self, read: &Published, dest: &Path) {
        self.bytes = Some(read.bytes());
        self.name.clone_from(&read.report.student_name);
        self.worth = read.report.worth();
        // Another store's release may have the same number.
        let same = |found: &Manifest| *found == read.manifest;
        self.here = read_release(dest, self.release).is_ok_and(|local| same(&local.manifest));
        let in_use = current(dest).ok().flatten();
        self.current = in_use.is_some_and(|local| same(&local.manifest));
    }

    /// `newest, in use`.
    fn marks(&self) -> String {
        let here = if self.current { "in use" } else { "here" };
        let marks = [(self.newest, "newest"), (self.here || self.current, here)];
        let told: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        told.join(", ")
    }
}

fn show(listed: &Listed<'_>) -> Result<()> {
    if listed.releases.is_empty() {
        output::paragraph(&format!("nothing is published in {} yet", listed.store))?;
    } else {
        output::line(&releases(&listed.releases).to_string())?;
        output::paragraph("bits per byte on held-out prompts; kept: of the teacher")?;
    }
    // Below the table: a column of them would leave the others no room.
    for row in &listed.releases {
        if let Some(words) = row.problem.as_ref().or(row.name.as_ref()) {
            output::paragraph(&format!("release {}: {words}", row.release))?;
        }
    }
    output::paragraph(&in_use(listed))?;
    if listed.refused.is_empty() { Ok(()) } else { show_refused(&listed.refused) }
}

fn releases(rows: &[Row]) -> output::Table {
    let mut headings = vec!["release", "stored", "size"];
    headings.extend(Worth::headings());
    headings.push("");
    let mut table = output::table(&headings);
    for row in rows {
        let size = row.bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string());
        let day = row.stored_at.split('T').next().unwrap_or_default();
        let mut cells = vec![row.release.to_string(), day.to_owned(), size];
        cells.extend(row.worth.cells());
        cells.push(row.marks());
        table.add_row(cells);
    }
    table
}

fn in_use(listed: &Listed<'_>) -> String {
    let into = listed.into.display();
    let Some(release) = listed.current else { return format!("in use in {into}: none") };
    let from = listed.rolled_back_from.map_or_else(String::new, |from| {
        format!(", rolled back from release {from}; uspx pull --newest takes the newest")
    });
    let foreign = !listed.releases.iter().any(|row| row.current);
    let of = if foreign { ", which is not of this store" } else { "" };
    format!("in use in {into}: release {release}{of}{from}")
}

fn show_refused(refused: &[Refused]) -> Result<()> {
    let mut headings = vec!["refused in epoch"];
    headings.extend(Worth::headings());
    headings.push("why");
    let mut table = output::table(&headings);
    for one in refused {
        let mut cells = vec![one.epoch.to_string()];
        cells.extend(one.worth.cells());
        cells.push(one.reason.clone());
        table.add_row(cells);
    }
    output::line(&table.to_string())
}
