//! What a release says of itself: its manifest, and the figures of its report.

use crate::error::{CliError, Exit, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_artifact::Store;
use uspx_colony::report::MaskReport;
use uspx_colony::{CampaignReport, Contender};
use uspx_domain::{ExportFormat, Manifest, ReleaseNumber, UnitKind};

/// A report tells of every unit of its mask: of 100,000 channels in some 25 MB.
const LONGEST: u64 = 256 << 20;

/// A release, as far as it is told without its weights.
pub struct Published {
    pub manifest: Manifest,
    pub report: Report,
}

/// The part of `report.json` that is shown. Whatever is missing was not known when it was written.
#[derive(Debug, Default, Deserialize)]
pub struct Report {
    #[serde(default)]
    pub student_name: Option<String>,
    #[serde(default)]
    pub figures: Option<CampaignReport>,
}

/// What a student is worth, on the held-out prompts of its campaign.
#[derive(Debug, Default, Serialize)]
pub struct Worth {
    pub base_bits_per_byte: Option<f64>,
    /// In 4 bits, by format.
    pub bits_per_byte: BTreeMap<&'static str, f64>,
    pub mask: Option<Kept>,
}

/// What the mask keeps of the teacher.
#[derive(Debug, Serialize)]
pub struct Kept {
    pub kind: UnitKind,
    pub kept: u32,
    pub units: u32,
    pub fraction: f64,
}

impl Published {
    /// Reads it.
    ///
    /// # Errors
    /// The store's; a release that is not there; a report that cannot be read.
    pub async fn read(store: &Store, release: ReleaseNumber) -> Result<Self> {
        let manifest = store.manifest(release).await?;
        let report = json_file(store, &manifest, "report.json").await?.unwrap_or_default();
        Ok(Self { manifest, report })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.bytes).sum()
    }
}

/// A JSON file of a release; none where the release has none of that name.
pub async fn json_file<T: DeserializeOwned>(
    store: &Store,
    manifest: &Manifest,
    path: &str,
) -> Result<Option<T>> {
    let Some(bytes) = store.release_file(manifest, path, LONGEST).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let what = format!("release {}: {path} cannot be read: {error}", manifest.release);
        CliError::new(Exit::BadInput, what)
            .help("a newer uspx may have written it: update this one")
    })
}

impl Report {
    /// The figures of tables.
    pub fn worth(&self) -> Worth {
        let Some(figures) = &self.figures else { return Worth::default() };
        let bits = |who: Contender| {
            figures.students.iter().find(|s| s.contender == who).map(|s| s.bits_per_byte)
        };
        let format = |format: ExportFormat| Some((format.name(), bits(format.into())?));
        Worth {
            base_bits_per_byte: bits(Contender::Base),
            bits_per_byte: ExportFormat::released().filter_map(format).collect(),
            mask: figures.mask.as_ref().map(Kept::of),
        }
    }
}

impl Kept {
    fn of(mask: &MaskReport) -> Self {
        let MaskReport { kind, kept, units, .. } = *mask;
        Self { kind, kept, units, fraction: 1.0 - mask.pruned() }
    }
}

impl Worth {
    /// The headings of [`Worth::cells`].
    pub fn headings() -> Vec<&'static str> {
        let formats = ExportFormat::released().map(ExportFormat::name);
        std::iter::once("base").chain(formats).chain(["kept"]).collect()
    }

    /// Bits per byte of the base and in each format, and the share kept; `-` where it is not known.
    pub fn cells(&self) -> Vec<String> {
        let formats = ExportFormat::released().map(|f| self.bits_per_byte.get(f.name()).copied());
        let bits = std::iter::once(self.base_bits_per_byte).chain(formats);
        let kept = self.mask.as_ref().map(|mask| format!("{:.0} %", mask.fraction * 100.0));
        bits.map(|bits| bits.map(|b| format!("{b:.3}")))
            .chain([kept])
            .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
            .collect()
    }
}
