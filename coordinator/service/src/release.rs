//! A release: the folder of a student that passed the gate, and its way into the store.
//!
//! What stands in the store already is compared with the order first, and so it is after every
//! failure: wherever an earlier try broke off, the next one goes on from there.

use crate::ServiceError;
use crate::adapter;
use crate::status::write_file;
use backon::{ExponentialBuilder, Retryable};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uspx_artifact::{ArtifactError, Draft, Store, silent};
use uspx_colony::report::StudentReport;
use uspx_colony::{CampaignReport, Contender, GateReport, ReleaseOrder, State, report};
use uspx_domain::{BlobRef, Fingerprint, Manifest, ReleaseNumber, StoredFile, limits};

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

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stands in the store.
    Published,
    /// Somebody else's release stands there that the student was not judged against: nothing was
    /// published, and the order stays open.
    Held {
        /// The newest release.
        newest: ReleaseNumber,
    },
}

/// Publishes one order, however long the store takes.
pub(crate) struct Publisher {
    pub(crate) store: Store,
    pub(crate) colony: String,
    /// Where the folder is built.
    pub(crate) scratch: PathBuf,
    pub(crate) order: ReleaseOrder,
    pub(crate) figures: CampaignReport,
}

impl Publisher {
    /// Builds the folder and publishes it. Failures of the store and the disk are waited out.
    ///
    /// # Errors
    /// What is wrong with the student itself, which no waiting mends.
    pub(crate) async fn run(&self) -> Result<Outcome, ServiceError> {
        // What an earlier order of that number left there.
        self.patiently(|| async { self.clear() }).await?;
        let outcome = self.patiently(|| self.publish()).await?;
        // The store has it all now; what is left over of the folder costs disk and nothing else.
        if let Err(error) = self.clear() {
            tracing::debug!(%error, "a scratch folder stays behind");
        }
        Ok(outcome)
    }

    async fn patiently<T, F: Future<Output = Result<T, ServiceError>>>(
        &self,
        step: impl FnMut() -> F,
    ) -> Result<T, ServiceError> {
        let release = self.order.release;
        step.retry(patience())
            .when(|error| !is_final(error))
            .notify(|error, after| {
                tracing::warn!(%error, ?after, release, "not published yet: it is tried again");
            })
            .await
    }

    fn folder(&self) -> PathBuf {
        self.scratch.join(format!("release-{}", self.order.release))
    }

    fn clear(&self) -> Result<(), ServiceError> {
        let folder = self.folder();
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ServiceError::file(folder)(error))
            }
            _ => Ok(()),
        }
    }

    async fn publish(&self) -> Result<Outcome, ServiceError> {
        if let Some(outcome) = self.found().await? {
            return Ok(outcome);
        }
        let folder = self.folder();
        self.build(&folder).await?;
        match self.store.publish(&folder, &self.draft(), &silent).await {
            Ok(_) => Ok(Outcome::Published),
            // Another's, or this very one: the answer to its creation may have been lost.
            Err(ArtifactError::Superseded { found, .. }) => {
                Ok(self.found().await?.unwrap_or(Outcome::Held { newest: found }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The number that decides is the one the student was judged against, not today's newest.
    fn draft(&self) -> Draft {
        Draft {
            colony: self.colony.clone(),
            teacher: self.order.teacher,
            base: self.order.base,
            previous: self.order.previous,
        }
    }

    /// What the store says of the order's number, once everything begun there is finished; none
    /// where it is still free.
    async fn found(&self) -> Result<Option<Outcome>, ServiceError> {
        let Some(newest) = self.store.settle().await? else { return Ok(None) };
        if newest < self.order.release {
            return Ok(None);
        }
        let manifest = self.store.manifest(self.order.release).await?;
        let ours = is_of(&manifest, &self.order);
        Ok(Some(if ours { Outcome::Published } else { Outcome::Held { newest } }))
    }

    async fn build(&self, folder: &Path) -> Result<(), ServiceError> {
        let (order, colony) = (&self.order, self.colony.as_str());
        for (name, files) in [("gptq", &order.gptq), ("gguf", &order.gguf)] {
            for StoredFile { path, blob } in files {
                self.fetch(blob, folder.join(name).join(path), limits::STUDENT_FILE).await?;
            }
        }
        let tensors = folder.join("adapter").join(adapter::TENSORS);
        self.fetch(&order.adapter, tensors.clone(), limits::ADAPTER).await?;
        json(&tensors.with_file_name(adapter::CONFIG), &adapter::config(&tensors)?)?;
        json(&folder.join("mask.json"), &order.mask)?;
        let report = ReleaseReport {
            colony,
            release: order.release,
            previous: order.previous,
            teacher: order.teacher,
            base: order.base,
            figures: &self.figures,
        };
        json(&folder.join("report.json"), &report)?;
        write_file(&folder.join("README.md"), card(colony, order, &self.figures).as_bytes())
    }

    async fn fetch(&self, blob: &BlobRef, path: PathBuf, most: u64) -> Result<(), ServiceError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(ServiceError::file(parent))?;
        }
        Ok(self.store.get_file(blob, &path, most, &silent).await?)
    }
}

/// The pauses between two tries: they grow to five minutes, and never end.
fn patience() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(300))
        .without_max_times()
}

/// Whether it is the student that is at fault. Everything else has a remedy outside: credentials,
/// room on a disk, a bucket, the network.
fn is_final(error: &ServiceError) -> bool {
    use ArtifactError::{TooLarge, Unfit};
    match error {
        ServiceError::Adapter { .. } => true,
        // An adapter too short for the header that it announces.
        ServiceError::File { source, .. } => source.kind() == ErrorKind::UnexpectedEof,
        ServiceError::Artifact(error) => matches!(error, Unfit { .. } | TooLarge { .. }),
        _ => false,
    }
}

/// Whether a release is what the order asks for.
fn is_of(manifest: &Manifest, order: &ReleaseOrder) -> bool {
    let tensors = format!("adapter/{}", adapter::TENSORS);
    let mut files = manifest.files.iter().filter(|f| f.path == tensors);
    (manifest.release, manifest.previous) == (order.release, order.previous)
        && (manifest.teacher, manifest.base) == (order.teacher, order.base)
        && files.any(|f| (f.digest, f.bytes) == (order.adapter.digest, order.adapter.bytes))
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
