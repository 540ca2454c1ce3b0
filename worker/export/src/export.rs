//! One export: calibrate, quantise, write, read back, report.

use crate::calibrate::{CalibrationStep, walk};
use crate::compare::{Verification, compare, max_error};
use crate::gguf::encode;
use crate::gptq::{self, GptqConfig};
use crate::grid::{self, ScaleRule};
use crate::hf::Weights;
use crate::quantised::QuantLinear;
use crate::report::{ExportReport, TensorReport};
use crate::{ExportError, Result, gguf, hf, rtn, same_chat, weights};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use uspx_domain::{ExportFormat, Prompt};
use uspx_model::batch::Batch;
use uspx_model::taps::Projection;
use uspx_model::{LoadedModel, Progress};

/// The GGUF file's name within its folder.
pub const GGUF_FILE: &str = "student.gguf";

/// How to quantise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExportSettings {
    /// How a group's scale follows from its weights, in every format of ours (K-quants have their
    /// own way).
    pub rule: ScaleRule,
    /// GPTQ's damping, a fraction of the Hessian's mean diagonal.
    pub damping: f64,
    /// GPTQ's rounding order by input energy.
    pub act_order: bool,
    /// Give Q4_0 blocks GPTQ's error feedback; otherwise they are rounded as llama.cpp's own tool
    /// does.
    pub fitted_q4_0: bool,
}

impl ExportSettings {
    /// What ships. Negative scales only where every reader has always met them: Q4_0 makes them
    /// itself.
    pub fn shipped(format: ExportFormat) -> Self {
        let gptq = GptqConfig::new(128);
        let rule = ScaleRule::Search { signed: format == ExportFormat::Gguf };
        Self { rule, damping: gptq.damping, act_order: gptq.act_order, fitted_q4_0: true }
    }
}

/// What to export.
pub struct ExportRequest<'a> {
    /// The student as trained, f32; adapters on its linears are merged.
    pub student: &'a LoadedModel,
    /// The base student's folder: configuration, tokenizer, template.
    pub base: &'a Path,
    /// Tokens whose activations calibrate the quantiser.
    pub calibration: &'a [Batch],
    /// Conversations that the written student must make the same tokens of, besides the built-in
    /// ones.
    pub conversations: &'a [Prompt],
    /// Into what.
    pub format: ExportFormat,
    /// How.
    pub settings: ExportSettings,
}

/// Writes the student into the folder `out` (made if need be): a Hugging Face folder for GPTQ and
/// round-to-nearest, [`GGUF_FILE`] for GGUF. Every file is read back and compared, weights and
/// conversations. `progress` hears of every linear.
///
/// # Errors
/// [`ExportError`], see its variants; [`uspx_model::ModelError::Stopped`] within where `progress`
/// asks for it. What was written stays in `out`, which is to be thrown away then.
pub fn export(
    request: &ExportRequest<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let start = Instant::now();
    std::fs::create_dir_all(out).map_err(ExportError::writing(out))?;
    let mut work = Writing::new(request)?;
    let mut student = request.student.transformer.clone();
    let total = student.layers() * Projection::DENSE.len();
    walk(&mut student, request.calibration, |step| {
        let weight = work.linear(step)?;
        progress.report(work.done() as u64, total as u64)?;
        Ok(weight)
    })?;
    let verification = match request.format {
        ExportFormat::Gguf => work.write_gguf(out)?,
        ExportFormat::Gptq | ExportFormat::Rtn => work.write_folder(out)?,
    };
    let written =
        if request.format == ExportFormat::Gguf { out.join(GGUF_FILE) } else { out.to_owned() };
    let conversations =
        same_chat::check(&request.student.chat, request.base, &written, request.conversations)?;
    let (files, bytes) = listing(out)?;
    Ok(ExportReport {
        format: request.format,
        group: work.group,
        calibration_tokens: request.calibration.iter().map(Batch::tokens).sum(),
        tensors: work.reports,
        verification,
        conversations,
        files,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn listing(folder: &Path) -> Result<(Vec<String>, u64)> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).map_err(ExportError::reading(folder))? {
        let entry = entry.map_err(ExportError::reading(folder))?;
        bytes += entry.metadata().map_err(ExportError::reading(&entry.path()))?.len();
        files.push(entry.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    Ok((files, bytes))
}

/// An export on its way: what has been quantised so far.
struct Writing<'a> {
    request: &'a ExportRequest<'a>,
    group: usize,
    heads: (usize, usize),
    /// For a Hugging Face folder.
    linears: BTreeMap<String, QuantLinear>,
    /// For GGUF, in its row order.
    blocks: BTreeMap<String, QTensor>,
    /// What reading back must give.
    meant: BTreeMap<String, Tensor>,
    reports: Vec<TensorReport>,
}

impl<'a> Writing<'a> {
    fn new(request: &'a ExportRequest<'a>) -> Result<Self> {
        let group = match request.format {
            ExportFormat::Gguf => encode::Q4_0_BLOCK,
            ExportFormat::Gptq | ExportFormat::Rtn => {
                grid::group_size(weights::input_widths(&request.student.transformer)?)?
            }
        };
        let config = request.student.transformer.config();
        let heads = (config.heads, config.kv_heads);
        let (linears, blocks, meant) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { request, group, heads, linears, blocks, meant, reports: Vec::new() })
    }

    fn done(&self) -> usize {
        self.reports.len()
    }

    /// Quantises one linear and returns the weight that the file will hold.
    fn linear(&mut self, step: CalibrationStep<'_>) -> Result<Tensor> {
        let module = step.projection.path(step.layer);
        let name = format!("{module}.weight");
        let original = weights::values(&name, step.weight)?;
        let shape = step.weight.dims2()?;
        let mut report = TensorReport {
            name,
            stored: String::new(),
            bytes: 0,
            max_error: 0.0,
            output_error: None,
            damping: None,
        };
        let stored = match (self.request.format, encode::linear_type(shape.1)) {
            (ExportFormat::Rtn, _) => self.rounded(module, &original, &step, &mut report)?,
            (ExportFormat::Gptq, _) => self.fitted(module, &original, &step, &mut report)?,
            (ExportFormat::Gguf, GgmlDType::Q4_0) if self.request.settings.fitted_q4_0 => {
                self.fitted_blocks(&original, &step, &mut report)?
            }
            (ExportFormat::Gguf, block) => self.plain_blocks(&step, block, &mut report)?,
        };
        let values: Vec<f32> = stored.flatten_all()?.to_vec1()?;
        report.max_error = max_error(&report.name, &stored, &weights::plain(step.weight)?)?;
        report.output_error = Some(step.hessian.relative_output_error(&original, &values)?);
        self.meant.insert(report.name.clone(), stored.clone());
        self.reports.push(report);
        Ok(stored.to_device(step.weight.device())?.to_dtype(step.weight.dtype())?)
    }

    fn rounded(
        &mut self,
        module: String,
        weight: &[f32],
        step: &CalibrationStep<'_>,
        report: &mut TensorReport,
    ) -> Result<Tensor> {
        let energy = step.hessian.matrix().diagonal();
        let linear = rtn::quantise(
            weight,
            step.hessian.inputs(),
            self.group,
            self.request.settings.rule,
            &energy,
        )?;
        self.keep(module, linear, report)
    }

    fn fitted(
        &mut self,
        module: String,
        weight: &[f32],
        step: &CalibrationStep<'_>,
        report: &mut TensorReport,
    ) -> Result<Tensor> {
        let linear = self.gptq(weight, step, report)?;
        self.keep(module, linear, report)
    }

    fn gptq(
        &self,
        weight: &[f32],
        step: &CalibrationStep<'_>,
        report: &mut TensorReport,
    ) -> Result<QuantLinear> {
        let ExportSettings { rule, damping, act_order, .. } = self.request.settings;
        let quantised = gptq::quantise(
            weight,
            step.hessian,
            &GptqConfig { group: self.group, damping, rule, act_order },
        )?;
        report.damping = Some(quantised.damping);
        Ok(quantised.linear)
    }

    fn keep(
        &mut self,
        module: String,
        linear: QuantLinear,
        report: &mut TensorReport,
    ) -> Result<Tensor> {
        let groups = linear.scales().len();
        report.stored = format!("int4 g{}", self.group);
        // Codes, scales, zero points and g_idx.
        report.bytes =
            (linear.codes().len() / 2 + groups * 2 + groups / 2 + linear.inputs() * 4) as u64;
        let tensor = linear.to_tensor()?;
        self.linears.insert(module, linear);
        Ok(tensor)
    }

    fn fitted_blocks(
        &mut self,
        weight: &[f32],
        step: &CalibrationStep<'_>,
        report: &mut TensorReport,
    ) -> Result<Tensor> {
        let linear = self.gptq(weight, step, report)?;
        let order = match gguf::rope_order::heads_of(&report.name, self.heads.0, self.heads.1) {
            Some(heads) => gguf::rope_order::interleaved(linear.outputs(), heads)?,
            None => (0..linear.outputs()).collect(),
        };
        self.block(encode::q4_0(&linear.with_rows(&order)?)?, report);
        linear.to_tensor()
    }

    fn plain_blocks(
        &mut self,
        step: &CalibrationStep<'_>,
        block: GgmlDType,
        report: &mut TensorReport,
    ) -> Result<Tensor> {
        let weight = gguf::in_gguf_order(&report.name, &weights::plain(step.weight)?, self.heads)?;
        let stored = encode::quantise(&weight, block, &step.hessian.matrix().diagonal())?;
        let read = gguf::in_hf_order(&report.name, &stored.dequantize(&Device::Cpu)?, self.heads)?;
        self.block(stored, report);
        Ok(read)
    }

    fn block(&mut self, stored: QTensor, report: &mut TensorReport) {
        report.stored = format!("{:?}", stored.dtype());
        report.bytes = stored.storage_size_in_bytes() as u64;
        self.blocks.insert(report.name.clone(), stored);
    }

    fn write_folder(&mut self, out: &Path) -> Result<Verification> {
        let rest = weights::floats(&self.request.student.transformer)?;
        let weights = Weights { linears: std::mem::take(&mut self.linears), rest };
        let dtype =
            hf::write_folder(out, self.request.base, &weights, self.request.settings.damping)?;
        for (name, tensor) in &weights.rest {
            let stored = tensor.to_dtype(dtype)?.to_dtype(DType::F32)?;
            let bytes = tensor.elem_count() * dtype.size_in_bytes();
            self.float(name, tensor, stored, format!("{dtype:?}"), bytes)?;
        }
        compare(&hf::read_gptq(out)?, &self.meant, 0.0)
    }

    fn write_gguf(&mut self, out: &Path) -> Result<Verification> {
        for (name, tensor) in weights::floats(&self.request.student.transformer)? {
            let dtype = match name.as_str() {
                "model.embed_tokens.weight" | "lm_head.weight" => {
                    encode::embedding_type(tensor.dim(1)?)
                }
                _ => GgmlDType::F32,
            };
            let block =
                encode::quantise(&gguf::in_gguf_order(&name, &tensor, self.heads)?, dtype, &[])?;
            let stored = gguf::in_hf_order(&name, &block.dequantize(&Device::Cpu)?, self.heads)?;
            self.float(
                &name,
                &tensor,
                stored,
                format!("{dtype:?}"),
                block.storage_size_in_bytes(),
            )?;
            self.blocks.insert(name, block);
        }
        let path = out.join(GGUF_FILE);
        gguf::write_gguf(&path, self.request.base, &self.blocks)?;
        compare(&gguf::read_gguf(&path)?.tensors, &self.meant, 0.0)
    }

    /// Notes a tensor that is not a linear map.
    fn float(
        &mut self,
        name: &str,
        original: &Tensor,
        stored: Tensor,
        kind: String,
        bytes: usize,
    ) -> Result<()> {
        let max_error = max_error(name, &stored, original)?;
        let (name, bytes) = (name.to_owned(), bytes as u64);
        self.meant.insert(name.clone(), stored);
        self.reports.push(TensorReport {
            name,
            stored: kind,
            bytes,
            max_error,
            output_error: None,
            damping: None,
        });
        Ok(())
    }
}
