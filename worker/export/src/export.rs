//! One export: calibrate, quantise, write, read back, report.

use crate::calibrate::{CalibrationStep, Quantiser, walk};
use crate::compare::{Contents, compare, max_error};
use crate::finish::{self, FinishReport, Finished};
use crate::formats::{self, Format, Inputs, Linear, Stored, StoredLinear, Writer};
use crate::hessian::{Hessian, relative_output_error};
use crate::report::{ExportReport, TensorReport, Timing};
use crate::{ExportError, ExportSettings, Result, same_chat, weights};
use std::path::Path;
use std::time::Instant;
use uspx_distill::PromptLabels;
use uspx_domain::{ExportFormat, Prompt};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::layers::weight::Weight;
use uspx_model::taps::Projection;
use uspx_model::{LoadedModel, Progress, batches};

/// What to export.
pub struct ExportRequest<'a> {
    /// The student as trained, in memory or in its file; adapters on its linears are merged.
    pub student: &'a LoadedModel,
    /// The base student's folder: configuration, tokenizer, template.
    pub base: &'a Path,
    /// What readers of the files show as its name.
    pub name: &'a str,
    /// Sequences whose activations calibrate the quantiser, and that the finish learns from beside what the student
    /// makes up of `conversations` or `labels` hold.
    pub calibration: &'a [Sequence],
    /// Tokens of a batch that calibrates.
    pub batch_tokens: usize,
    /// Conversations that the written student must make the same tokens of, besides the built-in
    /// ones.
    pub conversations: &'a [Prompt],
    /// Other prompts with answers that the finish learns from, whatever a teacher says of them.
    pub labels: &'a [PromptLabels],
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
    if request.settings.finish > 0 && request.student.transformer.is_streamed() {
        return Err(ExportError::Refused(
            "a student that is read from its file layer by layer has no finish: leave it out"
                .into(),
        ));
    }
    std::fs::create_dir_all(out).map_err(ExportError::writing(out))?;
    let lessons = finish::lessons(request, progress)?;
    let mut work = Work::new(format.begin(request, out)?, (request, lessons), progress);
    work.quantise(request)?;
    let finish = work.finish(request)?;
    work.write(request)?;
    let path = format.path(out);
    let reading = Instant::now();
    let verification = compare(&format.contents(&path)?, &work.meant)?;
    work.timing.reading = reading.elapsed().as_secs_f64();
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
        timing: work.timing,
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
    meant: Contents,
    reports: Vec<TensorReport>,
    timing: Timing,
    progress: &'a dyn Progress,
    /// What the finish learns from.
    lessons: Vec<Sequence>,
    /// Linear maps and steps of the finish, for the progress.
    of: u64,
}

impl<'a> Work<'a> {
    fn new(
        writer: Box<dyn Writer + 'a>,
        (request, lessons): (&ExportRequest<'_>, Vec<Sequence>),
        progress: &'a dyn Progress,
    ) -> Self {
        let student = &request.student.transformer;
        let linears = student.layers() * Projection::DENSE.len();
        let passes = request.settings.finish;
        let steps = finish::steps(&lessons, passes, student.config().vocab);
        let (of, meant) = ((linears + steps) as u64, Contents::default());
        let timing = Timing::default();
        Self { writer, meant, reports: Vec::new(), timing, progress, lessons, of }
    }

    fn quantise(&mut self, request: &ExportRequest<'_>) -> Result<()> {
        let packed = batches(request.calibration, request.batch_tokens)?;
        let calibration: Vec<Batch> = packed.into_iter().map(|(_, batch)| batch).collect();
        let start = Instant::now();
        let summing = walk(&request.student.transformer, &calibration, self)?;
        let Timing { factoring, rounding, .. } = self.timing;
        self.timing.hessians = summing.as_secs_f64();
        self.timing.passes =
            start.elapsed().as_secs_f64() - self.timing.hessians - factoring - rounding;
        Ok(())
    }

    fn finish(&mut self, request: &ExportRequest<'_>) -> Result<Option<FinishReport>> {
        if request.settings.finish == 0 {
            return Ok(None);
        }
        let (before, of, progress) = (self.reports.len() as u64, self.of, self.progress);
        let step = |done: u64, _: u64| progress.report(before + done, of).is_ok();
        let how = (self.lessons.as_slice(), request.settings.finish);
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
        let moved = self.writer.recode(&module, &linear.moved)?;
        let values = weights::values(&name, &moved)?;
        let original = request.student.transformer.linear(linear.layer, linear.projection)?;
        let error = max_error(&name, &values, &weights::values(&name, &original.merged()?)?)?;
        if let Some(report) = self.reports.iter_mut().find(|report| report.name == name) {
            report.max_error = error;
        }
        self.meant.forget(&name);
        self.meant.add(&name, moved.dims(), &values);
        Ok(())
    }

    /// What is no linear map, and what was kept.
    fn write(&mut self, request: &ExportRequest<'_>) -> Result<()> {
        let start = Instant::now();
        weights::each_piece(&request.student.transformer, &mut |piece| {
            let stored = self.writer.piece(&piece)?;
            let original = weights::values(piece.name, &piece.rows)?;
            self.note((piece.name, piece.shape), &original, stored)?;
            Ok(())
        })?;
        self.writer.finish()?;
        self.timing.writing = start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Notes how a tensor, or some rows of it, fared.
    fn note(
        &mut self,
        (name, shape): (&str, &[usize]),
        original: &[f32],
        stored: Stored,
    ) -> Result<&mut TensorReport> {
        let values = stored.values.flatten_all()?.to_vec1::<f32>()?;
        let error = max_error(name, &values, original)?;
        self.meant.add(name, shape, &values);
        if self.reports.last().is_none_or(|last| last.name != name) {
            self.reports.push(TensorReport::new(name, stored.kind));
        }
        let lost = || ExportError::MissingTensor(name.to_owned());
        let report = self.reports.last_mut().ok_or_else(lost)?;
        report.bytes += stored.bytes;
        report.max_error = report.max_error.max(error);
        Ok(report)
    }
}

impl Quantiser for Work<'_> {
    fn prepare(&mut self, hessian: Hessian) -> Result<Inputs> {
        let start = Instant::now();
        let inputs = self.writer.prepare(hessian)?;
        self.timing.factoring += start.elapsed().as_secs_f64();
        Ok(inputs)
    }

    fn quantise(&mut self, step: CalibrationStep<'_>, inputs: &Inputs) -> Result<Weight> {
        let (start, module) = (Instant::now(), step.projection.path(step.layer));
        let name = format!("{module}.weight");
        let (dims, values) = (step.weight.dims2()?, weights::values(&name, step.weight)?);
        let linear = Linear { module, name, dims, values, inputs };
        let StoredLinear { stored, weight, output_energy, damping } =
            self.writer.linear(&linear)?;
        let report = self.note((&linear.name, &[dims.0, dims.1]), &linear.values, stored)?;
        report.output_error = Some(relative_output_error(output_energy, step.output_energy));
        report.damping = damping;
        self.timing.rounding += start.elapsed().as_secs_f64();
        self.progress.report(self.reports.len() as u64, self.of)?;
        Ok(weight)
    }
}
