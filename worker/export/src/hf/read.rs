//! Reads a GPTQ folder, ours or another's, under the base model's tensor names.

use crate::compare::Contents;
use crate::gguf::encode;
use crate::hf::config::read_json;
use crate::pack::PackedWeights;
use crate::{ExportError, Result, weights};
use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use uspx_kernel::BlockMatrix;
use uspx_model::checkpoint::{Checkpoint, dtype_name};

/// What a packed linear map's codes are called.
const PACKED: &str = ".qweight";

/// A GPTQ folder under the base model's tensor names (`model.layers.0.self_attn.q_proj.weight`
/// `[outputs, inputs]` for what is stored as `.qweight` and its companions): a linear map that is symmetric, its
/// groups contiguous blocks of 32, as ours are, stays in 4 bits with the very values of the file; another one
/// becomes floats.
///
/// # Errors
/// [`ExportError::Format`] or [`ExportError::Model`] for a folder that is truncated, foreign or
/// contradicts itself; [`ExportError::Unsupported`] for other widths than 4 bits and other layouts
/// than version 1.
pub fn read_gptq(folder: &Path) -> Result<Checkpoint> {
    let checkpoint = open_packed(folder)?;
    let (mut floats, mut blocks) = (HashMap::new(), HashMap::new());
    for module in checkpoint.names().iter().filter_map(|name| name.strip_suffix(PACKED)) {
        let (packed, name) = (linear(&checkpoint, module, folder)?, format!("{module}.weight"));
        match in_blocks(&packed) {
            Some(matrix) => drop(blocks.insert(name, matrix)),
            None => drop(floats.insert(name, values(&packed, module)?)),
        }
    }
    let packed = |name: &str| name.ends_with(PACKED) || is_part(name);
    Ok(checkpoint.read_apart(packed, floats, blocks)?)
}

/// A linear map in blocks, where they hold it exactly.
fn in_blocks(packed: &PackedWeights) -> Option<BlockMatrix> {
    let codes = packed.unpack().ok()?;
    let format = uspx_kernel::BlockFormat::Q4_0;
    BlockMatrix::new(format, codes.outputs(), codes.inputs(), encode::q4_0(&codes).ok()?).ok()
}

/// What a GPTQ folder holds, read tensor by tensor, a vocabulary by some rows at a time.
///
/// # Errors
/// As [`read_gptq`].
pub fn gptq_contents(folder: &Path) -> Result<Contents> {
    let (checkpoint, mut contents) = (open_packed(folder)?, Contents::default());
    for name in checkpoint.names() {
        if let Some(module) = name.strip_suffix(PACKED) {
            let weight = values(&linear(&checkpoint, module, folder)?, module)?;
            let values = weight.flatten_all()?.to_vec1::<f32>()?;
            contents.add(&format!("{module}.weight"), weight.dims(), &values);
        } else if !is_part(name) {
            add_floats(&mut contents, &checkpoint, name)?;
        }
    }
    Ok(contents)
}

/// What a folder of floats holds, likewise.
///
/// # Errors
/// A folder that cannot be read, or one of other tensors.
pub fn float_contents(folder: &Path) -> Result<Contents> {
    let (checkpoint, mut contents) = (Checkpoint::open(folder)?, Contents::default());
    for name in checkpoint.names() {
        add_floats(&mut contents, &checkpoint, name)?;
    }
    Ok(contents)
}

fn add_floats(contents: &mut Contents, checkpoint: &Checkpoint, name: &str) -> Result<()> {
    let missing = || ExportError::MissingTensor(name.to_owned());
    let shape = checkpoint.shape(name).ok_or_else(missing)?;
    for rows in weights::panels(shape.first().copied().unwrap_or(0)) {
        let part = checkpoint.float_part(name, &shape, rows, DType::F32, &Device::Cpu)?;
        contents.add(name, &shape, &part.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(())
}

fn open_packed(folder: &Path) -> Result<Checkpoint> {
    check_layout(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    if checkpoint.names().iter().any(|name| name.ends_with(PACKED)) {
        return Ok(checkpoint);
    }
    let reason = "the quantisation says gptq, but no tensor is packed: delete quantization_config from config.json, and \
                  quantize_config.json";
    Err(ExportError::format(folder, reason))
}

/// Whether a folder is a GPTQ checkpoint: config.json's `quantization_config` says so, as
/// transformers and Qwen write it, or says nothing and quantize_config.json stands beside it, as
/// older programs do. A config.json that cannot be read says nothing: whoever opens the folder
/// reports it.
pub fn is_gptq(folder: &Path) -> bool {
    let config = read_json(&folder.join("config.json")).unwrap_or_default();
    match config.get("quantization_config").filter(|q| !q.is_null()) {
        Some(stated) => stated.get("quant_method").and_then(Value::as_str) == Some("gptq"),
        None => folder.join("quantize_config.json").exists(),
    }
}

fn is_part(name: &str) -> bool {
    [".qzeros", ".scales", ".g_idx"].iter().any(|part| name.ends_with(part))
}

fn check_layout(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    let config = read_json(&path)?;
    let apart = folder.join("quantize_config.json");
    let quantisation = match config.get("quantization_config").filter(|q| !q.is_null()) {
        Some(q) => q.clone(),
        None if apart.exists() => read_json(&apart)?,
        None => {
            return Err(ExportError::format(
                &path,
                "no quantization_config: this is not a GPTQ folder",
            ));
        }
    };
    let method = quantisation.get("quant_method").and_then(Value::as_str).unwrap_or("gptq");
    let bits = quantisation.get("bits").and_then(Value::as_u64);
    let layout = quantisation.get("checkpoint_format").and_then(Value::as_str).unwrap_or("gptq");
    if (method, bits, layout) != ("gptq", Some(4), "gptq") {
        let bits = bits.map_or("?".into(), |b| b.to_string());
        let reason = format!(
            "quantised by {method}, {bits} bits, layout {layout}: gptq with 4 bits in layout gptq is read"
        );
        return Err(ExportError::Unsupported(format!("{}: {reason}", folder.display())));
    }
    Ok(())
}

fn linear(checkpoint: &Checkpoint, module: &str, folder: &Path) -> Result<PackedWeights> {
    let part = |part: &str, dtype: Dtype, rank: usize| {
        let name = format!("{module}.{part}");
        let (stored, shape, bytes) = checkpoint.stored(&name)?;
        if stored != dtype || shape.len() != rank {
            let (stored, wanted) = (dtype_name(stored), dtype_name(dtype));
            let reason = format!(
                "tensor `{name}` is {stored} of {shape:?}, {wanted} of rank {rank} was expected"
            );
            return Err(ExportError::format(folder, reason));
        }
        Ok((shape, bytes))
    };
    let (shape, qweight) = part("qweight", Dtype::I32, 2)?;
    let (outputs, rows) = (shape.get(1).copied().unwrap_or(0), shape.first().copied().unwrap_or(0));
    let scales = part("scales", Dtype::F16, 2)?.1;
    Ok(PackedWeights {
        outputs,
        inputs: rows.saturating_mul(8),
        qweight: words(&qweight),
        qzeros: words(&part("qzeros", Dtype::I32, 2)?.1),
        scales: scales
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([byte(b, 0), byte(b, 1)]))
            .collect(),
        g_idx: words(&part("g_idx", Dtype::I32, 1)?.1),
    })
}

/// The weights, f32 `[outputs, inputs]`, of the linear map that is called `module`.
fn values(packed: &PackedWeights, module: &str) -> Result<Tensor> {
    let named = |e| match e {
        ExportError::Shape { got, want, .. } => {
            ExportError::Shape { name: module.to_owned(), got, want }
        }
        other => other,
    };
    let weight = packed.dequantise().map_err(named)?;
    Ok(Tensor::from_vec(weight, (packed.outputs, packed.inputs), &Device::Cpu)?)
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes
        .chunks_exact(4)
        .map(|b| i32::from_le_bytes([byte(b, 0), byte(b, 1), byte(b, 2), byte(b, 3)]))
        .collect()
}
