//! GGUF files for llama.cpp, Ollama and LM Studio: K-quants where they fit, Q4_0 elsewhere, both with
//! GPTQ's error feedback.

use super::{Format, Linear, Stored, Writer, gptq};
use crate::coded::{Coded, Moved};
use crate::gguf::q4_k::{Q4K, Q4KMatrix};
use crate::gguf::{self, encode, rope_order};
use crate::gptq::round;
use crate::grid::ScaleRule;
use crate::quantised::QuantLinear;
use crate::{ExportError, ExportRequest, ExportSettings, Result, open_gguf};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use uspx_domain::ExportFormat;
use uspx_model::chat::ChatFiles;
use uspx_model::{LoadedModel, Placement};

/// The GGUF file's name within its folder.
pub const GGUF_FILE: &str = "student.gguf";

pub(super) struct Gguf;

impl Format for Gguf {
    fn format(&self) -> ExportFormat {
        ExportFormat::GGUF
    }

    /// Negative scales too: Q4_0 makes them itself, so every reader has met them.
    fn settings(&self) -> ExportSettings {
        ExportSettings { rule: ScaleRule::Search { signed: true }, ..gptq::settings() }
    }

    fn begin<'a>(&self, request: &'a ExportRequest<'a>) -> Result<Box<dyn Writer + 'a>> {
        let config = request.student.transformer.config();
        let heads = (config.heads, config.kv_heads);
        Ok(Box::new(File { request, heads, fitted: BTreeMap::new(), blocks: BTreeMap::new() }))
    }

    /// Whatever file has the ending; [`GGUF_FILE`] where none has it.
    fn path(&self, folder: &Path) -> PathBuf {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let first = files.filter(|path| path.extension().is_some_and(|e| e == "gguf")).min();
        first.unwrap_or_else(|| folder.join(GGUF_FILE))
    }

    /// Any file: one of another kind is refused with what is wrong with it.
    fn is_at(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn open(&self, path: &Path, placement: Placement) -> Result<LoadedModel> {
        open_gguf(path, placement)
    }

    fn chat(&self, path: &Path) -> Result<ChatFiles> {
        crate::open::gguf_files(path, gguf::read_chat(path)?)
    }

    fn tensors(&self, path: &Path) -> Result<HashMap<String, Tensor>> {
        Ok(gguf::read_gguf(path)?.tensors)
    }
}

/// A file on its way: tensors in its own row order.
struct File<'a> {
    request: &'a ExportRequest<'a>,
    heads: (usize, usize),
    /// Linear maps with codes of ours, by module, rows as the base has them.
    fitted: BTreeMap<String, Fitted>,
    blocks: BTreeMap<String, QTensor>,
}

impl Writer for File<'_> {
    fn group(&self) -> usize {
        encode::Q4_0_BLOCK
    }

    fn linear(&mut self, linear: &Linear<'_>) -> Result<Stored> {
        match encode::linear_type(linear.hessian.inputs()) {
            GgmlDType::Q4_0 if self.request.settings.fitted_blocks => self.fitted_q4_0(linear),
            GgmlDType::Q4K if self.request.settings.fitted_blocks => self.fitted_q4_k(linear),
            block => {
                let energy = linear.hessian.matrix().diagonal();
                self.plain(&linear.name, &linear.weight, block, &energy)
            }
        }
    }

    fn coded(&self, module: &str) -> Option<&dyn Coded> {
        self.fitted.get(module).map(Fitted::coded)
    }

    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor> {
        let fitted = self.fitted.get_mut(module);
        let fitted = fitted.ok_or_else(|| ExportError::MissingTensor(module.to_owned()))?;
        *fitted = fitted.moved(moved)?;
        fitted.coded().values()
    }

    fn write(
        &mut self,
        rest: &BTreeMap<String, Tensor>,
        out: &Path,
    ) -> Result<BTreeMap<String, Stored>> {
        for (module, fitted) in std::mem::take(&mut self.fitted) {
            let name = format!("{module}.weight");
            let block = fitted.block(&self.row_order(&name, fitted.rows())?)?;
            self.blocks.insert(name, block);
        }
        let mut stored = BTreeMap::new();
        for (name, tensor) in rest {
            let block = rest_type(name, tensor)?;
            stored.insert(name.clone(), self.plain(name, tensor, block, &[])?);
        }
        let request = self.request;
        gguf::write_gguf(&out.join(GGUF_FILE), request.base, request.name, &self.blocks)?;
        Ok(stored)
    }
}

impl File<'_> {
    /// Q4_0 with GPTQ's error feedback.
    fn fitted_q4_0(&mut self, linear: &Linear<'_>) -> Result<Stored> {
        let (codes, damping) = gptq::fitted(linear, self.group(), &self.request.settings)?;
        self.fit(linear, Fitted::Q4_0(codes), damping)
    }

    /// Q4_K with GPTQ's error feedback.
    fn fitted_q4_k(&mut self, linear: &Linear<'_>) -> Result<Stored> {
        let ExportSettings { damping, act_order, .. } = self.request.settings;
        let how = (damping, act_order);
        let rounded = round(&linear.values, linear.hessian, how, Q4K::default())?;
        let matrix = Q4KMatrix { steps: rounded.steps, codes: rounded.codes };
        self.fit(linear, Fitted::Q4K(matrix), Some(rounded.damping))
    }

    fn fit(&mut self, linear: &Linear<'_>, fitted: Fitted, damping: Option<f64>) -> Result<Stored> {
        let (dtype, values) = (fitted.dtype(), fitted.coded().values()?);
        let bytes = values.elem_count() / dtype.block_size() * dtype.type_size();
        self.fitted.insert(linear.module.clone(), fitted);
        Ok(Stored { kind: format!("{dtype:?}"), bytes: bytes as u64, values, damping })
    }

    /// Which row of a matrix lies where in the file.
    fn row_order(&self, name: &str, rows: usize) -> Result<Vec<usize>> {
        match rope_order::heads_of(name, self.heads.0, self.heads.1) {
            Some(heads) => rope_order::interleaved(rows, heads),
            None => Ok((0..rows).collect()),
        }
    }

    /// What a reader makes of a matrix.
    fn read(&self, name: &str, block: &QTensor) -> Result<Tensor> {
        gguf::in_hf_order(name, &block.dequantize(&Device::Cpu)?, self.heads)
    }

    /// Blocks as GGML's own tools make them.
    fn plain(
        &mut self,
        name: &str,
        tensor: &Tensor,
        block: GgmlDType,
        energy: &[f64],
    ) -> Result<Stored> {
        let weight = gguf::in_gguf_order(name, tensor, self.heads)?;
        let block = encode::quantise(&weight, block, energy)?;
        let values = self.read(name, &block)?;
        Ok(self.keep(name, block, values))
    }

    fn keep(&mut self, name: &str, block: QTensor, values: Tensor) -> Stored {
        let (kind, bytes) = (format!("{:?}", block.dtype()), block.storage_size_in_bytes() as u64);
        self.blocks.insert(name.to_owned(), block);
        Stored { kind, bytes, values, damping: None }
    }
}

/// A linear map with codes of ours.
enum Fitted {
    Q4_0(QuantLinear),
    Q4K(Q4KMatrix),
}

impl Fitted {
    fn dtype(&self) -> GgmlDType {
        match self {
            Self::Q4_0(_) => GgmlDType::Q4_0,
            Self::Q4K(_) => GgmlDType::Q4K,
        }
    }

    fn coded(&self) -> &dyn Coded {
        match self {
            Self::Q4_0(linear) => linear,
            Self::Q4K(matrix) => matrix,
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Q4_0(linear) => linear.outputs(),
            Self::Q4K(matrix) => matrix.outputs(),
        }
    }

    fn moved(&self, moved: &Moved) -> Result<Self> {
        match self {
            Self::Q4_0(linear) => Ok(Self::Q4_0(linear.moved(moved)?)),
            Self::Q4K(matrix) => Ok(Self::Q4K(matrix.moved(moved)?)),
        }
    }

    /// As GGML has it, its rows in that order.
    fn block(&self, order: &[usize]) -> Result<QTensor> {
        match self {
            Self::Q4_0(linear) => encode::q4_0(&linear.with_rows(order)?),
            Self::Q4K(matrix) => matrix.blocks(order),
        }
    }
}

/// How a tensor that is no linear map is stored: the embedding, and a head of its own, in blocks.
fn rest_type(name: &str, tensor: &Tensor) -> Result<GgmlDType> {
    Ok(match name {
        "model.embed_tokens.weight" | "lm_head.weight" => encode::embedding_type(tensor.dim(1)?),
        _ => GgmlDType::F32,
    })
}
