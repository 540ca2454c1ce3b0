//! A student as floats, its adapter merged.

use super::opened;
use crate::args::{ExportArgs, Written};
use crate::draft::Draft;
use crate::error::Result;
use crate::left_out::{self, LeftOut};
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_domain::Fingerprint;
use uspx_export::FloatsReport;
use uspx_model::budget::Workload;
use uspx_runtime::{Shutdown, memory};

/// The JSON form.
#[derive(Serialize)]
struct Exported<'a> {
    out: &'a Path,
    student: Fingerprint,
    format: &'static str,
    #[serde(flatten)]
    report: FloatsReport,
    peak_rss_bytes: Option<u64>,
    skipped: Vec<LeftOut>,
}

/// Writes it into `draft`, and tells.
pub(super) fn run(args: &ExportArgs, draft: Draft, shutdown: &Shutdown) -> Result<()> {
    let work = Workload::Export { batch_tokens: 0, finish: false };
    let opened = opened(args, work, shutdown)?;
    let (student, prompts) = (&opened.student, &opened.prompts);
    let base = &args.common.model;
    let report = uspx_export::write_floats(student, base, &prompts.prompts, draft.path())?;
    draft.keep()?;
    if args.common.run.json {
        return output::json(&Exported {
            out: &args.out,
            student: student.fingerprint,
            format: Written::FLOATS,
            report,
            peak_rss_bytes: memory::peak_rss(),
            skipped: left_out::listed(&prompts.skipped),
        });
    }
    output::paragraph(&format!(
        "{}: {} weights, {:.1} MB. It makes the trained student's tokens of {} conversations.",
        args.out.display(),
        report.dtype,
        report.bytes as f64 / 1e6,
        report.conversations
    ))?;
    output::line(&format!("chat with it: uspx run --model {}", args.out.display()))
}
