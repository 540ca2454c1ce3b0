//! Exported students: written to scratch and taken up as blobs, and laid out again from blobs to be
//! judged.

use super::{Run, Workbench, some_readable};
use crate::error::JobError;
use crate::product::{Inputs, Product};
use std::path::{Component, Path, PathBuf};
use tempfile::TempDir;
use uspx_distill::PromptLabels;
use uspx_domain::{Export, ExportFormat, Outcome, Prompt, StoredFile, student_name};
use uspx_export::calibrate::CALIBRATION_TOKENS;
use uspx_export::{ExportRequest, ExportSettings, formats};
use uspx_model::budget::Workload;
use uspx_model::{LoadedModel, Placement, Progress};

impl Run for Export<Prompt> {
    fn workload(&self) -> Workload {
        Workload::Export { batch_tokens: CALIBRATION_TOKENS, finish: self.finish > 0 }
    }

    fn run(&self, bench: &mut Workbench<'_>) -> Result<Product, JobError> {
        let (student, plan) = bench.adapted(self.adapter.as_ref(), self.workload())?;
        let base = bench.models.folder(bench.model)?;
        let scratch = bench.models.scratch()?;
        let name = student_name(&uspx_model::model_name(base), self.adapter.as_ref());
        if self.finish > 0 && !plan.finishes {
            tracing::warn!("no memory for the finish: the student is written without it");
        }
        let shipped = ExportSettings::shipped(self.format)?;
        // What is only a yardstick has none.
        let finish = if plan.finishes && shipped.finish > 0 { self.finish } else { 0 };
        let settings = ExportSettings { finish, ..shipped };
        let how = (self.format, settings);
        let tokens = plan.batch_tokens;
        let labels = if finish > 0 { bench.texts(&self.labels)? } else { Vec::new() };
        let learned = (self.calibration.as_slice(), labels.as_slice(), tokens);
        write(&student, (base, &name), learned, how, scratch, bench.progress)
    }
}

/// Exports `student` (its adapter is merged) and takes up the files.
fn write(
    student: &LoadedModel,
    (base, name): (&Path, &str),
    (calibration, labels, batch_tokens): (&[Prompt], &[PromptLabels], usize),
    (format, settings): (ExportFormat, ExportSettings),
    scratch: TempDir,
    progress: &dyn Progress,
) -> Result<Product, JobError> {
    let readable = some_readable(student, calibration)?;
    let request = ExportRequest {
        student,
        base,
        name,
        calibration: &readable.sequences,
        batch_tokens,
        conversations: calibration,
        labels,
        format,
        settings,
    };
    let report = uspx_export::export(&request, scratch.path(), progress)?;
    let (error, conversations) = (report.mean_output_error(), report.conversations);
    tracing::info!(?format, bytes = report.bytes, error, conversations, "exported");
    let made = Product::with_folder(scratch, report.files, |files| Outcome::Exported { files })?;
    // What calibrates is not what takes the time: it says nothing of the speed.
    Ok(Product { skipped: readable.skipped, seams: readable.seams, ..made })
}

/// Opens an exported student from its files, laid out in `scratch`.
pub(super) fn open(
    format: ExportFormat,
    files: &[StoredFile],
    inputs: &Inputs,
    scratch: &TempDir,
    placement: Placement,
) -> Result<LoadedModel, JobError> {
    for file in files {
        let path = scratch.path().join(inside(&file.path)?);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Both lie on one disk, as a rule; another one is copied to.
        let input = inputs.path(&file.blob)?;
        if std::fs::hard_link(input, &path).is_err() {
            std::fs::copy(input, &path)?;
        }
    }
    let format = formats::of(format)?;
    Ok(format.open(&format.path(scratch.path()), placement)?)
}

/// A path that stays inside the folder it is joined to.
fn inside(path: &str) -> Result<PathBuf, JobError> {
    let parsed = PathBuf::from(path);
    let plain = !path.is_empty() && parsed.components().all(|c| matches!(c, Component::Normal(_)));
    if plain {
        Ok(parsed)
    } else {
        Err(JobError::Task(format!("`{path}` is not a path within a student's folder")))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "./x"] {
            assert!(super::inside(bad).is_err(), "{bad}");
        }
        assert!(super::inside("gptq/model.safetensors").is_ok());
    }
}
