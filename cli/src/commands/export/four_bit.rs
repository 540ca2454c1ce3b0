//! A student in 4 bits.

use super::{Opened, opened};
use crate::args::ExportArgs;
use crate::draft::Draft;
use crate::error::Result;
use crate::left_out::{self, LeftOut};
use crate::output;
use crate::progress::Bar;
use serde::Serialize;
use std::path::Path;
use uspx_domain::{ExportFormat, Fingerprint};
use uspx_export::calibrate::CALIBRATION_TOKENS;
use uspx_export::finish::FinishReport;
use uspx_export::{ExportReport, ExportRequest, ExportSettings};
use uspx_model::budget::Workload;
use uspx_runtime::{Shutdown, memory};

/// The JSON form.
#[derive(Serialize)]
struct Exported<'a> {
    out: &'a Path,
    student: Fingerprint,
    prompts: usize,
    /// Mean over the linear maps of the squared relative error of their outputs.
    mean_output_error: f64,
    #[serde(flatten)]
    report: ExportReport,
    peak_rss_bytes: Option<u64>,
    skipped: Vec<LeftOut>,
}

/// Writes it into `draft`, and tells.
pub(super) fn run(
    args: &ExportArgs,
    format: ExportFormat,
    draft: Draft,
    shutdown: &Shutdown,
) -> Result<()> {
    let shipped = ExportSettings::shipped(format)?;
    let wanted = args.finish.unwrap_or(shipped.finish);
    let machine = &args.common.run.machine;
    let batch_tokens = machine.batch_tokens.unwrap_or(CALIBRATION_TOKENS);
    let work = Workload::Export { batch_tokens, finish: wanted > 0 };
    let opened = opened(args, work, shutdown)?;
    if wanted > 0 && !opened.finishes && !machine.stream {
        output::note(
            "there is no memory for the finish, so it is left out: --memory may allow more",
        );
    }
    let finish = if opened.finishes { wanted } else { 0 };
    let name = args.out.file_name().unwrap_or_default().to_string_lossy();
    let request = ExportRequest {
        student: &opened.student,
        base: &args.common.model,
        name: &name,
        calibration: &opened.prompts.sequences,
        batch_tokens: opened.batch_tokens,
        conversations: &opened.prompts.prompts,
        labels: &[],
        format,
        settings: ExportSettings { finish, ..shipped },
    };
    let bar = Bar::new("quantising", args.common.run.json, shutdown);
    let report = uspx_export::export(&request, draft.path(), &bar)?;
    bar.finish();
    draft.keep()?;
    tell(args, &opened, report)
}

fn tell(args: &ExportArgs, opened: &Opened, report: ExportReport) -> Result<()> {
    let Opened { student, prompts, .. } = opened;
    if args.common.run.json {
        return output::json(&Exported {
            out: &args.out,
            student: student.fingerprint,
            prompts: prompts.prompts.len(),
            mean_output_error: report.mean_output_error(),
            report,
            peak_rss_bytes: memory::peak_rss(),
            skipped: left_out::listed(&prompts.skipped),
        });
    }
    let (out, error) = (args.out.display(), 100.0 * report.mean_output_error().sqrt());
    output::paragraph(&format!(
        "{out}: {}, {:.1} MB, calibrated on {} prompts. Its linear maps' outputs are {error:.1} % off. It makes the \
         trained student's tokens of {} conversations.",
        report.format.row().title,
        report.bytes as f64 / 1e6,
        prompts.prompts.len(),
        report.conversations
    ))?;
    if let Some(finish) = &report.finish {
        output::paragraph(&finished(finish))?;
    }
    let path = uspx_export::formats::of(report.format)?.path(&args.out);
    output::line(&format!("chat with it: uspx run --model {}", path.display()))
}

/// What the finish came to.
fn finished(finish: &FinishReport) -> String {
    let FinishReport { before, after, recoded, .. } = finish;
    if finish.best_pass == 0 {
        return format!(
            "The finish gained nothing ({before:.4} nats a token from the student of floats): left out."
        );
    }
    format!(
        "The finish brought it from {before:.4} to {after:.4} nats a token from the student of floats, on prompts \
         held back; {:.1} % of the codes are others.",
        100.0 * recoded
    )
}
