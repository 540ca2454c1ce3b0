//! One export: calibrate, quantise, write, read back, report.

use crate::calibrate::{CalibrationStep, walk};
use crate::compare::{compare, max_error};
use crate::finish::{self, FinishReport, Finished};
use crate::formats::{self, Format, Linear, Stored, Writer};
use crate::report::{ExportReport, TensorReport};
use crate::{ExportError, ExportSettings, Result, same_chat, weights};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use uspx_domain::{ExportFormat, Prompt};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::taps::Projection;
use uspx_model::{LoadedModel, Progress, batches};

/// What to export.
pub struct ExportRequest<'a> {
    /// The student as trained, f32; adapters on its linears are merged.
    pub student: &'a LoadedModel,
    /// The base student's folder: configuration, tokenizer, template.
    pub base: &'a Path,
    /// What readers of the files show as its name.
    pub name: &'a str,
    /// Sequences whose activations calibrate the quantiser, and that the finish learns from.
    pub calibration: &'a [Sequence],
    /// Tokens of a batch that calibrates.
    pub batch_tokens: usize,
    /// Conversations that the written student must make the same tokens of, besides the built-in
    /// ones.
    pub conversations: &'a [Prompt],
    /// Into what.
    pub format: ExportFormat,
    /// How.
    pub settings: ExportSettings,
}

/// Writes the student into the folder `out` (made if need be). Every file is read back and compared,
/// weights and conversations. `progress` hears of every linear.
///
/// # Errors
/// [`ExportError`], see its variants; [`uspx_model::ModelError::Stopped`] within where `progress`
/// asks for it. What was written stays in `out`, which is to be thrown away then.
pub fn export(
    request: &ExportRequest<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    export_by(formats::of(request.format)?, request, out, progress)
}

pub(crate) fn export_by(
    format: &dyn Format,
    request: &ExportRequest<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let start = Instant::now();
    std::fs::create_dir_all(out).map_err(ExportError::writing(out))?;
    let mut work = Work::new(format.begin(request)?, request);
    work.quantise(request, progress)?;
    let finish = work.finish(request, progress)?;
    work.write(request, out)?;
    let path = format.path(out);
    let verification = compare(&format.tensors(&path)?, &work.meant, 0.0)?;
    let trained = (&request.student.chat, request.base);
    let written = (&format.chat(&path)?, path.as_path());
    let conversations = same_chat::check(trained, written, request.conversations)?;
    let (files, bytes) = listing(out)?;
    Ok(ExportReport {
        format: request.format,
        group: work.writer.group(),
        calibration_tokens: request.calibration.iter().map(|s| s.ids.len()).sum(),
        finish,
        tensors: work.reports,
        verification,
        conversations,
        files,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The files of a folder, sorted, and their bytes.
pub(crate) fn listing(folder: &Path) -> Result<(Vec<String>, u64)> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).map_err(ExportError::reading(folder))? {
        let entry = entry.map_err(ExportError::reading(folder))?;
        bytes += entry.metadata().map_err(ExportError::reading(&entry.path()))?.len();
        files.push(entry.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    Ok((files, bytes))
}

/// An export on its way.
struct Work<'a> {
    writer: Box<dyn Writer + 'a>,
    /// What reading back must give.
    meant: BTreeMap<String, Tensor>,
    reports: Vec<TensorReport>,
    /// Linear maps and steps of the finish, for the progress.
    of: u64,
}

impl<'a> Work<'a> {
    fn new(writer: Box<dyn Writer + 'a>, request: &ExportRequest<'_>) -> Self {
        let student = &request.student.transformer;
        let linears = student.layers() * Projection::DENSE.len();
        let passes = request.settings.finish;
        let steps = finish::steps(request.calibration, passes, student.config().vocab);
        let of = (linears + steps) as u64;
        Self { writer, meant: BTreeMap::new(), reports: Vec::new(), of }
    }

    fn quantise(&mut self, request: &ExportRequest<'_>, progress: &dyn Progress) -> Result<()> {
        let mut student = request.student.transformer.clone();
        let total = self.of;
        let packed = batches(request.calibration, request.batch_tokens)?;
        let calibration: Vec<Batch> = packed.into_iter().map(|(_, batch)| batch).collect();
        walk(&mut student, &calibration, |step| {
            let weight = self.linear(step)?;
            progress.report(self.reports.len() as u64, total)?;
            Ok(weight)
        })
    }

    /// Quantises one linear and returns the weight that the file will hold.
    fn linear(&mut self, step: CalibrationStep<'_>) -> Result<Tensor> {
        let module = step.projection.path(step.layer);
        let name = format!("{module}.weight");
        let values = weights::values(&name, step.weight)?;
        let (weight, hessian) = (weights::plain(step.weight)?, step.hessian);
        let linear = Linear { module, name, weight, values, hessian };
        let stored = self.writer.linear(&linear)?;
        let written = stored.values.clone();
        let rows: Vec<f32> = written.flatten_all()?.to_vec1()?;
        let error = hessian.relative_output_error(&linear.values, &rows)?;
        self.note(&linear.name, &linear.weight, stored, Some(error))?;
        Ok(written.to_device(step.weight.device())?.to_dtype(step.weight.dtype())?)
    }

    fn finish(
        &mut self,
        request: &ExportRequest<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<FinishReport>> {
        let (before, of) = (self.reports.len() as u64, self.of);
        let step = |done: u64, _: u64| progress.report(before + done, of).is_ok();
        let how = (request.calibration, request.settings.finish);
        let Some((report, linears)) = finish::finish(request.student, &*self.writer, how, &step)?
        else {
            return Ok(None);
        };
        for linear in linears {
            self.recode(request, &linear)?;
        }
        Ok(Some(report))
    }

    /// Takes up what the finish made of a linear map.
    fn recode(&mut self, request: &ExportRequest<'_>, linear: &Finished) -> Result<()> {
        let module = linear.projection.path(linear.layer);
        let name = format!("{module}.weight");
        let values = self.writer.recode(&module, &linear.moved)?;
        let original = request.student.transformer.linear(linear.layer, linear.projection)?;
        let error = max_error(&name, &values, &weights::plain(&original.merged()?)?)?;
        if let Some(report) = self.reports.iter_mut().find(|report| report.name == name) {
            report.max_error = error;
        }
        self.meant.insert(name, values);
        Ok(())
    }

    fn write(&mut self, request: &ExportRequest<'_>, out: &Path) -> Result<()> {
        let rest = weights::floats(&request.student.transformer)?;
        for (name, stored) in self.writer.write(&rest, out)? {
            let original =
                rest.get(&name).ok_or_else(|| ExportError::MissingTensor(name.clone()))?;
            self.note(&name, original, stored, None)?;
        }
        Ok(())
    }

    /// Notes how a tensor fared.
    fn note(
        &mut self,
        name: &str,
        original: &Tensor,
        stored: Stored,
        output_error: Option<f64>,
    ) -> Result<()> {
        let max_error = max_error(name, &stored.values, original)?;
        let Stored { kind, bytes, values, damping } = stored;
        self.meant.insert(name.to_owned(), values);
        let name = name.to_owned();
        let report = TensorReport { name, stored: kind, bytes, max_error, output_error, damping };
        self.reports.push(report);
        Ok(())
    }
}
