//! `uspx mask export`: the model without what a mask cuts.

use crate::args::MaskExportArgs;
use crate::draft::Draft;
use crate::error::{CliError, Result};
use crate::mask_file::MaskFile;
use crate::progress::Bar;
use crate::{models, output, student};
use serde::Serialize;
use std::path::Path;
use uspx_domain::{Digest, Fingerprint};
use uspx_export::cut::{CutReport, CutRequest, Kept, NOTE, Sizes, write_cut};
use uspx_export::write_floats;
use uspx_model::StoredModel;
use uspx_model::chat::ChatFiles;
use uspx_runtime::{Shutdown, memory};

/// The JSON form.
#[derive(Serialize)]
struct Exported<'a> {
    out: &'a Path,
    /// The model that the mask was made for.
    source: Fingerprint,
    #[serde(flatten)]
    report: CutReport,
    peak_rss_bytes: Option<u64>,
}

/// `uspx mask export`.
pub fn run(args: &MaskExportArgs, shutdown: &Shutdown) -> Result<()> {
    models::check_there(&args.model)?;
    let draft = Draft::of(&args.out)?;
    let whole = StoredModel::open(&args.model)?;
    // A file that is no mask is told before the model is read.
    MaskFile::read(&args.mask)?;
    let fingerprint = fingerprint(args, shutdown)?;
    let mask = models::mask_of(&args.mask, fingerprint, &whole.config.shape())?;
    let merged = args.adapter.as_deref().map(|adapter| Merged::of(args, adapter)).transpose()?;
    let adapter = merged.as_ref().map(|merged| merged.adapter);
    let (folder, source) = match &merged {
        Some(merged) => (merged.folder.path(), StoredModel::open(merged.folder.path())?),
        None => (args.model.as_path(), whole),
    };
    let request = CutRequest { folder, source: &source, fingerprint, mask: &mask, adapter };
    let bar = Bar::new("writing and reading back", args.json, shutdown);
    let report = write_cut(&request, draft.path(), &bar)?;
    bar.finish();
    draft.keep()?;
    tell(args, fingerprint, report)
}

/// The whole model with its adapter in it, as floats: what is cut then. It lies beside what is written,
/// and goes with it.
struct Merged {
    folder: Draft,
    adapter: Digest,
}

impl Merged {
    fn of(args: &MaskExportArgs, adapter: &Path) -> Result<Self> {
        let folder = Draft::of(&args.out)?;
        let mut model = student::streamed(&args.model)?;
        let adapter = student::attach(&mut model, adapter)?;
        write_floats(&model, &args.model, &[], folder.path())?;
        let note = args.model.join(NOTE);
        if note.is_file() {
            // The model was cut before: that is to be told on.
            std::fs::copy(&note, folder.path().join(NOTE))
                .map_err(|e| CliError::file(&note, &e))?;
        }
        Ok(Self { folder, adapter })
    }
}

/// The model's fingerprint: all of it is read.
fn fingerprint(args: &MaskExportArgs, shutdown: &Shutdown) -> Result<Fingerprint> {
    let bar = Bar::new("is it the mask's model?", args.json, shutdown);
    let digests = uspx_model::digests(&args.model, &bar)?;
    bar.finish();
    Ok(uspx_model::fingerprint_of(&digests, &ChatFiles::read(&args.model)?)?)
}

fn tell(args: &MaskExportArgs, source: Fingerprint, report: CutReport) -> Result<()> {
    if args.json {
        let (out, peak_rss_bytes) = (args.out.as_path(), memory::peak_rss());
        return output::json(&Exported { out, source, report, peak_rss_bytes });
    }
    let (now, before) = (report.bytes as f64 / 1e6, report.bytes_before as f64 / 1e6);
    let out = args.out.display();
    let kept = described(&report.kept);
    output::paragraph(&format!("{out}: {kept}, {now:.1} MB instead of {before:.1}"))?;
    let dead = dead(&report.kept);
    if dead > 0 {
        output::paragraph(&format!(
            "layers keep different counts: {dead} dead experts, whose router bias is -inf, fill up those that keep fewer. A mask \
             without them takes less room: uspx mask build --spread uniform"
        ))?;
    }
    if !report.left_out.is_empty() {
        let names = report.left_out.join(", ");
        output::paragraph(&format!("not copied, since nothing is cut in them: {names}"))?;
    }
    output::paragraph(&format!("its fingerprint is {}", report.fingerprint))?;
    output::line(&format!("what it is worth: uspx eval --model {out} --prompts FILE"))
}

/// What it has now.
fn described(kept: &Kept) -> String {
    match kept {
        Kept::Experts { experts_before, experts_kept, experts, .. } => {
            let (kept, all) =
                (experts_kept.iter().sum::<usize>(), experts_before.iter().sum::<usize>());
            format!("{kept} of {all} experts, {experts} in each layer")
        }
        Kept::Dense { before, now } => {
            let Sizes { layers, heads, kv_heads, channels } = now;
            let depth = if *layers == before.layers {
                String::new()
            } else {
                format!("{layers} of {} layers, ", before.layers)
            };
            format!(
                "{depth}in each layer {heads} of {} heads, {kv_heads} of {} KV heads, {channels} of {} channels",
                before.heads, before.kv_heads, before.channels
            )
        }
    }
}

/// Experts that no router can choose.
fn dead(kept: &Kept) -> usize {
    match kept {
        Kept::Experts { dead, .. } => dead.iter().sum(),
        Kept::Dense { .. } => 0,
    }
}
