//! GGUF files for llama.cpp, Ollama and LM Studio: K-quants where they fit, Q4_0 elsewhere, both with
//! GPTQ's error feedback.

use super::{
    Format, Inputs, Linear, Sizer, Stored, StoredLinear, Writer, difference, gptq, running,
};
use crate::coded::{Coded, Moved};
use crate::compare::Contents;
use crate::gguf::q4_k::{self, Q4K, Q4KMatrix};
use crate::gguf::{self, GgufWriter, Preface, TensorType, encode, rope_order};
use crate::gptq::{Rounded, quantise, round};
use crate::grid::ScaleRule;
use crate::hessian::Hessian;
use crate::quantised::QuantLinear;
use crate::weights::{EMBEDDING, HEAD, Piece};
use crate::{ExportError, ExportRequest, ExportSettings, Result, open_gguf, weights};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_domain::ExportFormat;
use uspx_model::chat::ChatFiles;
use uspx_model::config::ModelConfig;
use uspx_model::{LoadedModel, Placement};

/// The GGUF file's name within its folder.
pub const GGUF_FILE: &str = "student.gguf";
/// The name of a student that has none yet.
const NAME: &str = "student";

pub(super) struct Gguf;

impl Format for Gguf {
    fn format(&self) -> ExportFormat {
        ExportFormat::GGUF
    }

    /// Negative scales too: Q4_0 makes them itself, so every reader has met them.
    fn settings(&self) -> ExportSettings {
        ExportSettings { rule: ScaleRule::Search { signed: true }, ..gptq::settings() }
    }

    fn begin<'a>(
        &self,
        request: &'a ExportRequest<'a>,
        out: &Path,
    ) -> Result<Box<dyn Writer + 'a>> {
        Ok(Box::new(File::begin(request, out)?))
    }

    /// But for the length of the name that readers show, which stands in the file.
    fn sizer(&self, base: &Path) -> Result<Sizer> {
        let preface = Preface::of((base, NAME), GgmlDType::Q4_0)?;
        Ok(Box::new(move |config| preface.length(&types(config)?)))
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

    fn contents(&self, path: &Path) -> Result<Contents> {
        gguf::contents(path)
    }
}

/// A file on its way.
struct File<'a> {
    request: &'a ExportRequest<'a>,
    heads: (usize, usize),
    types: BTreeMap<String, TensorType>,
    file: GgufWriter,
    /// Linear maps that a finish is to move, by module.
    kept: BTreeMap<String, Fitted>,
}

impl<'a> File<'a> {
    fn begin(request: &'a ExportRequest<'a>, out: &Path) -> Result<Self> {
        let config = request.student.transformer.config();
        let (heads, types) = ((config.heads, config.kv_heads), types(config)?);
        let file = GgufWriter::create(&out.join(GGUF_FILE), (request.base, request.name), &types)?;
        Ok(Self { request, heads, types, file, kept: BTreeMap::new() })
    }

    fn kind(&self, name: &str) -> Result<&TensorType> {
        self.types.get(name).ok_or_else(|| ExportError::MissingTensor(name.to_owned()))
    }

    /// Writes rows from `first` on; those of q and k, which come all at once, in the file's order.
    fn put(&mut self, name: &str, first: usize, bytes: &[u8]) -> Result<()> {
        let kind = self.kind(name)?;
        let (row, rows) = (kind.row(), kind.shape.first().copied().unwrap_or(0));
        let Some(heads) = rope_order::heads_of(name, self.heads.0, self.heads.1) else {
            return self.file.put(name, first * row, bytes);
        };
        let order = rope_order::interleaved(rows, heads)?;
        let own = |at: usize| bytes.get(at * row..(at + 1) * row).unwrap_or_default();
        let turned: Vec<u8> = order.into_iter().flat_map(own).copied().collect();
        self.file.put(name, 0, &turned)
    }

    /// Codes of ours, with GPTQ's error feedback.
    fn fitted(&mut self, linear: &Linear<'_>, dtype: GgmlDType) -> Result<StoredLinear> {
        let (factored, rule) = (linear.inputs.factored()?, self.request.settings.rule);
        let (fitted, output_energy) = if dtype == GgmlDType::Q4_0 {
            let quantised = quantise(&linear.values, factored, rule)?;
            (Fitted::Q4_0(quantised.linear), quantised.output_energy)
        } else {
            let Rounded { codes, steps, output_energy } =
                round(&linear.values, factored, Q4K::default)?;
            (Fitted::Q4K(Q4KMatrix { steps, codes }), output_energy)
        };
        let (blocks, values) = (fitted.blocks()?, fitted.coded().values()?);
        let (kind, bytes) = (format!("{dtype:?}"), blocks.len() as u64);
        if self.request.settings.finish > 0 {
            self.kept.insert(linear.module.clone(), fitted);
        } else {
            self.put(&linear.name, 0, &blocks)?;
        }
        let weight = running(linear.dims, Some((dtype, blocks)), &values)?;
        let (stored, damping) = (Stored { kind, bytes, values }, Some(factored.damping()));
        Ok(StoredLinear { stored, weight, output_energy, damping })
    }

    /// Blocks as GGML's own tools make them.
    fn plain(&mut self, linear: &Linear<'_>, dtype: GgmlDType) -> Result<StoredLinear> {
        let hessian = linear.inputs.whole()?;
        let weight = Tensor::from_slice(&linear.values, linear.dims, &Device::Cpu)?;
        let blocks = encode::quantise(&weight, dtype, &hessian.energy())?;
        let stored = self.keep(&linear.name, 0, &blocks)?;
        let values = stored.values.flatten_all()?.to_vec1::<f32>()?;
        let output_energy = hessian.output_energy(&difference(&linear.values, &values))?;
        let own = Some((dtype, blocks.data()?.into_owned()));
        let weight = running(linear.dims, own, &stored.values)?;
        Ok(StoredLinear { stored, weight, output_energy, damping: None })
    }

    fn keep(&mut self, name: &str, first: usize, blocks: &QTensor) -> Result<Stored> {
        self.put(name, first, &blocks.data()?)?;
        let (kind, bytes) = (format!("{:?}", blocks.dtype()), blocks.storage_size_in_bytes());
        Ok(Stored { kind, bytes: bytes as u64, values: blocks.dequantize(&Device::Cpu)? })
    }
}

impl Writer for File<'_> {
    fn group(&self) -> usize {
        encode::Q4_0_BLOCK
    }

    fn prepare(&self, hessian: Hessian) -> Result<Inputs> {
        let settings = &self.request.settings;
        match encode::linear_type(hessian.inputs()) {
            GgmlDType::Q4_0 if settings.fitted_blocks => {
                gptq::factored(hessian, encode::Q4_0_BLOCK, settings)
            }
            GgmlDType::Q4K if settings.fitted_blocks => {
                gptq::factored(hessian, q4_k::WEIGHTS, settings)
            }
            _ => Ok(Inputs::Whole(hessian)),
        }
    }

    fn linear(&mut self, linear: &Linear<'_>) -> Result<StoredLinear> {
        let dtype = self.kind(&linear.name)?.dtype;
        match linear.inputs {
            Inputs::Factored(_) => self.fitted(linear, dtype),
            Inputs::Whole(_) => self.plain(linear, dtype),
        }
    }

    fn coded(&self, module: &str) -> Option<&dyn Coded> {
        self.kept.get(module).map(Fitted::coded)
    }

    fn recode(&mut self, module: &str, moved: &Moved) -> Result<Tensor> {
        let fitted = self.kept.get_mut(module);
        let fitted = fitted.ok_or_else(|| ExportError::MissingTensor(module.to_owned()))?;
        *fitted = fitted.moved(moved)?;
        fitted.coded().values()
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<Stored> {
        let dtype = self.kind(piece.name)?.dtype;
        let blocks = encode::quantise(&piece.rows, dtype, &[])?;
        self.keep(piece.name, piece.first, &blocks)
    }

    fn finish(&mut self) -> Result<()> {
        for (module, fitted) in std::mem::take(&mut self.kept) {
            self.put(&format!("{module}.weight"), 0, &fitted.blocks()?)?;
        }
        self.file.finish()
    }
}

/// A linear map with codes of ours, rows as the base has them.
enum Fitted {
    Q4_0(QuantLinear),
    Q4K(Q4KMatrix),
}

impl Fitted {
    fn coded(&self) -> &dyn Coded {
        match self {
            Self::Q4_0(linear) => linear,
            Self::Q4K(matrix) => matrix,
        }
    }

    fn moved(&self, moved: &Moved) -> Result<Self> {
        match self {
            Self::Q4_0(linear) => Ok(Self::Q4_0(linear.moved(moved)?)),
            Self::Q4K(matrix) => Ok(Self::Q4K(matrix.moved(moved)?)),
        }
    }

    /// As GGML has it.
    fn blocks(&self) -> Result<Vec<u8>> {
        match self {
            Self::Q4_0(linear) => encode::q4_0(linear),
            Self::Q4K(matrix) => Ok(matrix.blocks()),
        }
    }
}

/// What each tensor of a student is stored as.
fn types(config: &ModelConfig) -> Result<BTreeMap<String, TensorType>> {
    let mut types = BTreeMap::new();
    for (module, (outputs, inputs)) in weights::linears(config)? {
        if !inputs.is_multiple_of(encode::Q4_0_BLOCK) {
            let reason = format!("GGUF's blocks have 32 weights, `{module}` has rows of {inputs}");
            return Err(ExportError::Unsupported(reason));
        }
        let kind = TensorType { dtype: encode::linear_type(inputs), shape: vec![outputs, inputs] };
        types.insert(format!("{module}.weight"), kind);
    }
    for (name, shape) in weights::rest(config) {
        types.insert(name.clone(), TensorType { dtype: rest_type(&name, &shape), shape });
    }
    Ok(types)
}

/// How a tensor that is no linear map is stored: the embedding, and a head of its own, in blocks.
fn rest_type(name: &str, shape: &[usize]) -> GgmlDType {
    match (name, shape) {
        (EMBEDDING | HEAD, [_, width]) => encode::embedding_type(*width),
        _ => GgmlDType::F32,
    }
}
