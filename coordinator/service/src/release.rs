//! A release: the folder of a student that passed the gate, and its way into the store.

use crate::ServiceError;
use crate::adapter;
use crate::status::write_file;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use uspx_artifact::{ArtifactError, Draft, Store, silent};
use uspx_colony::report::StudentReport;
use uspx_colony::{CampaignReport, Contender, GateReport, ReleaseOrder, State, report};
use uspx_domain::{BlobRef, Fingerprint, ReleaseNumber, StoredFile};

/// What `report.json` of a release says. Prompts are named by id only, and only in the ledger.
#[derive(Serialize)]
struct ReleaseReport<'a> {
    colony: &'a str,
    release: ReleaseNumber,
    previous: Option<ReleaseNumber>,
    teacher: Fingerprint,
    base: Fingerprint,
    figures: &'a CampaignReport,
}

/// Builds the folder and publishes it.
///
/// # Errors
/// The store's, or the disk's.
pub(crate) async fn publish(
    store: &Store,
    colony: &str,
    scratch: &Path,
    order: &ReleaseOrder,
    figures: &CampaignReport,
) -> Result<ReleaseNumber, ServiceError> {
    if let Some(done) = already_published(store, order).await? {
        return Ok(done);
    }
    let folder = scratch.join(format!("release-{}", order.release));
    build(store, colony, &folder, order, figures).await?;
    let draft = Draft {
        colony: colony.to_owned(),
        teacher: order.teacher,
        base: order.base,
        previous: store.latest().await?,
    };
    let manifest = store.publish(&folder, &draft, &silent).await?;
    // The store has it all now; what is left over of the folder costs disk and nothing else.
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::debug!(%error, folder = %folder.display(), "a scratch folder stays behind");
    }
    Ok(manifest.release)
}

/// A crash between publishing and noting it down: the newest release holds this very adapter.
async fn already_published(
    store: &Store,
    order: &ReleaseOrder,
) -> Result<Option<ReleaseNumber>, ArtifactError> {
    let Some(latest) = store.latest().await? else { return Ok(None) };
    let manifest = store.manifest(latest).await?;
    let tensors = format!("adapter/{}", adapter::TENSORS);
    let same = |f: &uspx_domain::FileEntry| f.path == tensors && f.digest == order.adapter.digest;
    Ok(manifest.files.iter().any(same).then_some(latest))
}

async fn build(
    store: &Store,
    colony: &str,
    folder: &Path,
    order: &ReleaseOrder,
    figures: &CampaignReport,
) -> Result<(), ServiceError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(ServiceError::file(folder))?;
    }
    for (name, files) in [("gptq", &order.gptq), ("gguf", &order.gguf)] {
        for StoredFile { path, blob } in files {
            fetch(store, blob, folder.join(name).join(path)).await?;
        }
    }
    let tensors = folder.join("adapter").join(adapter::TENSORS);
    fetch(store, &order.adapter, tensors.clone()).await?;
    json(&tensors.with_file_name(adapter::CONFIG), &adapter::config(&tensors)?)?;
    json(&folder.join("mask.json"), &order.mask)?;
    let report = ReleaseReport {
        colony,
        release: order.release,
        previous: order.previous,
        teacher: order.teacher,
        base: order.base,
        figures,
    };
    json(&folder.join("report.json"), &report)?;
    write_file(&folder.join("README.md"), card(colony, order, figures).as_bytes())
}

async fn fetch(store: &Store, blob: &BlobRef, path: PathBuf) -> Result<(), ServiceError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(ServiceError::file(parent))?;
    }
    Ok(store.get_file(blob, &path).await?)
}

fn json(path: &Path, value: &impl Serialize) -> Result<(), ServiceError> {
    let fail = |e: serde_json::Error| ServiceError::file(path)(e.into());
    write_file(path, &serde_json::to_vec_pretty(value).map_err(fail)?)
}

/// The figures of the state's campaign, if one was founded.
pub(crate) fn figures(state: &State) -> Option<CampaignReport> {
    report(state)
}

/// What a contender is called in tables.
pub fn contender_name(contender: Contender) -> String {
    match contender {
        Contender::Teacher => "teacher".to_owned(),
        Contender::Base => "base student".to_owned(),
        Contender::Distilled(n) => format!("distilled, recipe {}", n + 1),
        Contender::Gptq => "GPTQ, 4 bits".to_owned(),
        Contender::Rtn => "rounded to nearest, 4 bits".to_owned(),
        Contender::Gguf => "GGUF, 4 bits".to_owned(),
        Contender::Published => "published before".to_owned(),
    }
}

/// The model card.
fn card(colony: &str, order: &ReleaseOrder, figures: &CampaignReport) -> String {
    let mut text = format!(
        "# Student {} of colony {colony}\n\nA 4-bit student distilled for one person's prompts by uspx.\n\n\
         - teacher: `{}`\n- base: `{}`\n- `gptq/`: a Hugging Face folder (GPTQ, symmetric)\n- `gguf/`: for llama.cpp \
         and its family\n- `adapter/`: the adapter on the base, for `peft`\n- `mask.json`: what the teacher's mask \
         keeps\n- `report.json`: all figures\n\n## Held-out prompts\n\n| model | bits per byte | against the base, 95 % |\n|---|---|---|\n",
        order.release, order.teacher, order.base
    );
    for student in &figures.students {
        text.push_str(&row(student));
    }
    if let Some(mask) = &figures.mask {
        let rise = mask
            .rise
            .map_or_else(|| "not measured".to_owned(), |r| format!("{r:.3} nats per token"));
        let random = mask.random_mean().map_or_else(|| "-".to_owned(), |r| format!("{r:.3}"));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\nThe teacher's mask keeps {} of {} {}s; its loss rises by {rise} (random masks: {random}).\n",
            mask.kept, mask.units, mask.kind
        );
    }
    if let Some(gate) = &figures.gate {
        text.push_str(&verdict(gate));
    }
    text.push_str(&caveats(figures));
    text.push_str("\nUse it: `uspx pull`, then `uspx run`.\n");
    text
}

/// What to bear in mind of the figures; empty where there is nothing.
fn caveats(figures: &CampaignReport) -> String {
    let lines: Vec<String> =
        figures.caveats().iter().map(|caveat| format!("- {caveat}\n")).collect();
    if lines.is_empty() { String::new() } else { format!("\n## Caveats\n\n{}", lines.concat()) }
}

fn row(student: &StudentReport) -> String {
    let against = student.against_base.as_ref().map_or_else(
        || "-".to_owned(),
        |d| format!("{:+.3} [{:+.3}, {:+.3}]", d.mean, d.low, d.high),
    );
    format!(
        "| {} | {:.3} | {against} |\n",
        contender_name(student.contender),
        student.bits_per_byte
    )
}

fn verdict(gate: &GateReport) -> String {
    match &gate.refusal {
        None => "\nThe release gate let it pass.\n".to_owned(),
        Some(reason) => format!("\nThe release gate refused it: {reason}.\n"),
    }
}
