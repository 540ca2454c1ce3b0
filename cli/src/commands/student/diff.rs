//! `uspx student diff`: what changed from one release to another. `mask` compares what is kept,
//! `scores` what the students are worth, `training` how they were made; sizes are told here.

mod mask;
mod scores;
mod training;

use super::published::Published;
use crate::args::StudentDiffArgs;
use crate::commands::mask::KindChange;
use crate::commands::pull::{source, students};
use crate::error::Result;
use crate::output;
use bytesize::ByteSize;
use scores::Scores;
use serde::Serialize;
use std::collections::BTreeMap;
use training::Training;
use uspx_artifact::Store;
use uspx_domain::{Manifest, ReleaseNumber};

/// What `--json` prints. Pairs are of the first release and the second.
#[derive(Serialize)]
struct Diff<'a> {
    store: &'a str,
    releases: (ReleaseNumber, ReleaseNumber),
    names: (Option<String>, Option<String>),
    same_teacher: bool,
    same_base: bool,
    /// By kind of unit; none where either has no mask, or they are of different teachers.
    mask: Option<Vec<KindChange>>,
    #[serde(flatten)]
    scores: Scores,
    /// Bytes of each part of the release.
    sizes: BTreeMap<String, (u64, u64)>,
    training: (Training, Training),
}

/// `uspx student diff`.
pub async fn run(args: &StudentDiffArgs) -> Result<()> {
    let dest = students(args.into.as_deref())?;
    let url = source(args.store.as_deref(), &dest)?;
    let store = Store::open(&url)?;
    let first = Published::read(&store, args.from).await?;
    let second = Published::read(&store, args.to).await?;
    let same_teacher = first.manifest.teacher == second.manifest.teacher;
    let diff = Diff {
        store: &url,
        releases: (args.from, args.to),
        names: (first.report.student_name.clone(), second.report.student_name.clone()),
        same_teacher,
        same_base: first.manifest.base == second.manifest.base,
        mask: if same_teacher { mask::changes(&store, &first, &second).await? } else { None },
        scores: Scores::of(&first.report, &second.report),
        sizes: sizes(&first.manifest, &second.manifest),
        training: (Training::of(&store, &first).await?, Training::of(&store, &second).await?),
    };
    if args.json { output::json(&diff) } else { show(&diff) }
}

/// Bytes by the folder or file right below the release's.
fn sizes(first: &Manifest, second: &Manifest) -> BTreeMap<String, (u64, u64)> {
    let mut sizes = BTreeMap::<String, (u64, u64)>::new();
    let part = |path: &str| path.split('/').next().unwrap_or(path).to_owned();
    for file in &first.files {
        sizes.entry(part(&file.path)).or_default().0 += file.bytes;
    }
    for file in &second.files {
        sizes.entry(part(&file.path)).or_default().1 += file.bytes;
    }
    sizes
}

fn show(diff: &Diff<'_>) -> Result<()> {
    let (first, second) = diff.releases;
    let name =
        |name: &Option<String>| name.as_ref().map_or_else(String::new, |n| format!(" ({n})"));
    let names = (name(&diff.names.0), name(&diff.names.1));
    output::paragraph(&format!("from release {first}{} to release {second}{}", names.0, names.1))?;
    for (same, what) in [(diff.same_teacher, "teacher"), (diff.same_base, "base student")] {
        if !same {
            output::line(&format!("they have another {what}"))?;
        }
    }
    diff.mask.iter().flatten().try_for_each(KindChange::show)?;
    let headings = Headings { first: first.to_string(), second: second.to_string() };
    diff.scores.show(&headings)?;
    output::line(&size_table(diff, &headings).to_string())?;
    training::show(&diff.training, &headings)
}

/// The releases' numbers, as headings of columns.
struct Headings {
    first: String,
    second: String,
}

impl Headings {
    fn table(&self, what: &str) -> output::Table {
        output::table(&[what, &self.first, &self.second, "change"])
    }
}

fn size_table(diff: &Diff<'_>, headings: &Headings) -> output::Table {
    let mut table = headings.table("size");
    let mut all = (0, 0);
    for (part, (first, second)) in &diff.sizes {
        all = (all.0 + first, all.1 + second);
        table.add_row(size_row(part, (*first, *second)));
    }
    table.add_row(size_row("all", all));
    table
}

fn size_row(part: &str, (first, second): (u64, u64)) -> [String; 4] {
    let sign = match first.cmp(&second) {
        std::cmp::Ordering::Less => "+",
        std::cmp::Ordering::Equal => "",
        std::cmp::Ordering::Greater => "-",
    };
    let change = format!("{sign}{}", ByteSize(first.abs_diff(second)));
    [part.to_owned(), ByteSize(first).to_string(), ByteSize(second).to_string(), change]
}
