//! `uspx export`: one 4-bit student, written here without a colony.

use crate::args::ExportArgs;
use crate::draft::Draft;
use crate::error::{CliError, Exit, Result};
use crate::left_out::{self, LeftOut};
use crate::progress::Bar;
use crate::{models, output, student};
use serde::Serialize;
use std::path::Path;
use uspx_domain::{Fingerprint, Skipped};
use uspx_export::calibrate::CALIBRATION_TOKENS;
use uspx_export::{ExportReport, ExportRequest, ExportSettings};
use uspx_model::batch::Batch;
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Readable, batches};
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

/// `uspx export`.
pub fn run(args: &ExportArgs, shutdown: &Shutdown) -> Result<()> {
    check(args)?;
    let draft = Draft::of(&args.out)?;
    let mut prompts = args.common.source().read()?.prompts;
    prompts.truncate(args.common.limit.unwrap_or(usize::MAX));
    let work = Workload::Export { batch_tokens: calibration_tokens(args) };
    let opened = student::open(&args.common.model, &args.common.run, work)?;
    let (mut student, room) = (opened.model, opened.room);
    if let Some(adapter) = &args.adapter {
        merge(&mut student, &student::adapter_file(adapter))?;
    }
    let prompts = models::answered((&student, room), prompts, &args.common, shutdown)?;
    let report = write(&student, &prompts, args, draft.path(), shutdown)?;
    draft.keep()?;
    tell(args, &student, report, prompts.prompts.len(), &prompts.skipped)
}

fn calibration_tokens(args: &ExportArgs) -> usize {
    args.common.run.machine.batch_tokens.unwrap_or(CALIBRATION_TOKENS)
}

fn check(args: &ExportArgs) -> Result<()> {
    if args.common.run.machine.stream {
        return Err(CliError::new(Exit::Usage, "a student is not streamed while it is exported")
            .help("leave out --stream: it is held in memory as 32-bit floats"));
    }
    Ok(())
}

fn merge(student: &mut LoadedModel, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).map_err(|e| CliError::file(file, &e))?;
    uspx_distill::load_adapter(student, &bytes)?;
    Ok(())
}

fn write(
    student: &LoadedModel,
    prompts: &Readable,
    args: &ExportArgs,
    out: &Path,
    shutdown: &Shutdown,
) -> Result<ExportReport> {
    let tokens = calibration_tokens(args);
    let calibration: Vec<Batch> =
        batches(&prompts.sequences, tokens)?.into_iter().map(|(_, batch)| batch).collect();
    let name = args.out.file_name().unwrap_or_default().to_string_lossy();
    let request = ExportRequest {
        student,
        base: &args.common.model,
        name: &name,
        calibration: &calibration,
        conversations: &prompts.prompts,
        format: args.format,
        settings: ExportSettings::shipped(args.format)?,
    };
    let bar = Bar::new("quantising", args.common.run.json, shutdown);
    let report = uspx_export::export(&request, out, &bar)?;
    bar.finish();
    Ok(report)
}

fn tell(
    args: &ExportArgs,
    student: &LoadedModel,
    report: ExportReport,
    prompts: usize,
    skipped: &[Skipped],
) -> Result<()> {
    if args.common.run.json {
        return output::json(&Exported {
            out: &args.out,
            student: student.fingerprint,
            prompts,
            mean_output_error: report.mean_output_error(),
            report,
            peak_rss_bytes: memory::peak_rss(),
            skipped: left_out::listed(skipped),
        });
    }
    let (out, error) = (args.out.display(), 100.0 * report.mean_output_error().sqrt());
    output::paragraph(&format!(
        "{out}: {}, {:.1} MB, calibrated on {prompts} prompts. Its linear maps' outputs are {error:.1} % off. It \
         makes the trained student's tokens of {} conversations.",
        args.format.row().title,
        report.bytes as f64 / 1e6,
        report.conversations
    ))?;
    let path = uspx_export::formats::of(args.format)?.path(&args.out);
    output::line(&format!("chat with it: uspx run --model {}", path.display()))
}
