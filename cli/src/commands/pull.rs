//! `uspx pull`: the newest student, switched to whole or not at all, and said how far it was
//! verified.

use crate::args::PullArgs;
use crate::error::{CliError, Exit, Result};
use crate::{output, progress};
use serde::Serialize;
use std::path::{Path, PathBuf};
use uspx_artifact::{
    ArtifactError, Checked, OnProgress, PullOptions, PullReport, Pulled, Store, TransferProgress,
    pull, verify,
};
use uspx_runtime::Shutdown;

/// Where students are kept when nothing else is said.
pub fn students(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let home = std::env::var_os("HOME").ok_or_else(|| {
        CliError::new(Exit::Usage, "there is no HOME to keep students in")
            .help("name a folder: --into DIR")
    })?;
    Ok(PathBuf::from(home).join(".local/share/uspx/students"))
}

/// The file that remembers where was pulled from.
const SOURCE: &str = "store-url";

/// `uspx pull`.
pub async fn run(args: &PullArgs, shutdown: &Shutdown) -> Result<()> {
    let dest = students(args.into.as_deref())?;
    if args.verify {
        return tell_damage(&dest, args.json);
    }
    let url = source(args.store.as_deref(), &dest)?;
    let store = Store::open(&url)?;
    let options = PullOptions {
        release: args.release,
        newest: args.newest,
        repair: args.repair,
        ..PullOptions::default()
    };
    let report = fetch(&store, &dest, &options, shutdown).await?;
    let remembered = dest.join(SOURCE);
    std::fs::write(&remembered, &url).map_err(|e| CliError::file(&remembered, &e))?;
    show(&report, args.json)
}

/// The store named, or the one that the folder was pulled from.
pub fn source(store: Option<&str>, dest: &Path) -> Result<String> {
    match store {
        // A folder is remembered by its full path: the next pull may be made from elsewhere.
        Some(url) if !url.contains("://") => {
            // One that is not there is named by the store itself.
            Ok(Path::new(url)
                .canonicalize()
                .map_or_else(|_| url.to_owned(), |full| full.display().to_string()))
        }
        Some(url) => Ok(url.to_owned()),
        None => remembered(&dest.join(SOURCE)),
    }
}

fn remembered(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(url) => Ok(url.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CliError::new(Exit::Usage, "nothing was pulled here before")
                .help("name the store: uspx pull STORE-URL"))
        }
        Err(error) => Err(CliError::file(path, &error)),
    }
}

/// Pulls with a progress bar; Ctrl-C leaves the student in use as it is.
pub async fn fetch(
    store: &Store,
    dest: &Path,
    options: &PullOptions,
    shutdown: &Shutdown,
) -> Result<PullReport> {
    watched(async |tell| pull(store, dest, options, tell).await, shutdown).await
}

/// Anything that brings a release, with a progress bar, until Ctrl-C.
pub async fn watched(
    bring: impl AsyncFnOnce(OnProgress<'_>) -> std::result::Result<PullReport, ArtifactError>,
    shutdown: &Shutdown,
) -> Result<PullReport> {
    let bar = progress::bytes("pulling");
    let tell = |p: TransferProgress| {
        bar.set_length(p.total);
        if p.done > bar.position() {
            // What was here already is not part of the speed.
            if bar.position() == 0 && p.resumed > 0 {
                bar.reset_eta();
            }
            bar.set_position(p.done);
        }
    };
    let report = tokio::select! {
        report = bring(&tell) => report?,
        () = shutdown.cancelled() => {
            return Err(CliError::new(Exit::Interrupted, "stopped; pulled again, it goes on from here"));
        }
    };
    bar.finish();
    Ok(report)
}

/// `uspx pull --verify`.
fn tell_damage(dest: &Path, json: bool) -> Result<()> {
    let report = verify(dest)?;
    let damaged: Vec<Damage> =
        report.damaged.iter().map(|d| Damage { path: &d.path, reason: &d.reason }).collect();
    let (release, files, bytes) = (report.release, report.files, report.bytes);
    if json {
        let outcome = if damaged.is_empty() { "verified" } else { "damaged" };
        output::json(&Verified { outcome, release, files, bytes, damaged: &damaged })?;
    } else if damaged.is_empty() {
        let size = bytes as f64 / 1e6;
        output::line(&format!("release {release}: {files} files ({size:.1} MB), verified"))?;
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = damaged.iter().map(|d| format!("{}: {}", d.path, d.reason)).collect();
    let message = format!("release {release} is damaged: {}", lines.join("; "));
    Err(CliError::new(Exit::Refused, message)
        .help("fetch anew what is damaged: uspx pull --repair"))
}

#[derive(Serialize)]
struct Verified<'a> {
    outcome: &'a str,
    release: u64,
    files: usize,
    bytes: u64,
    damaged: &'a [Damage<'a>],
}

#[derive(Serialize)]
struct Damage<'a> {
    path: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Report<'a> {
    outcome: &'a str,
    checked: &'a str,
    release: u64,
    previous: Option<u64>,
    rolled_back_from: Option<u64>,
    folder: &'a Path,
    files: usize,
    bytes: u64,
    fetched_bytes: u64,
    resumed_bytes: u64,
    seconds: f64,
}

/// What a pull did.
pub fn show(report: &PullReport, json: bool) -> Result<()> {
    let outcome = match report.outcome {
        Pulled::Fetched => "fetched",
        Pulled::Switched => "switched",
        Pulled::UpToDate => "up to date",
    };
    let checked = match report.checked {
        Checked::Hashed => "verified",
        Checked::Unchanged => "unchanged since verified (by size, time and inode)",
    };
    if json {
        return output::json(&Report {
            outcome,
            checked,
            release: report.release,
            previous: report.previous,
            rolled_back_from: report.rolled_back_from,
            folder: &report.folder,
            files: report.files,
            bytes: report.bytes,
            fetched_bytes: report.fetched,
            resumed_bytes: report.resumed,
            seconds: report.seconds,
        });
    }
    let size = report.fetched as f64 / 1e6;
    output::line(&format!(
        "release {}: {outcome} ({size:.1} MB), {checked}, in {}",
        report.release,
        report.folder.display()
    ))?;
    if let Some(from) = report.rolled_back_from {
        output::paragraph(&format!(
            "rolled back from release {from}: a pull stays here until a newer one than that is \
             published; uspx pull --newest takes the newest"
        ))?;
    }
    output::line("chat with it: uspx run")
}
