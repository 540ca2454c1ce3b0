//! Writes model.safetensors: the packed linears and, as floats, everything else.

use crate::hf::config;
use crate::pack::{PackedWeights, pack};
use crate::quantised::QuantLinear;
use crate::{ExportError, Result};
use candle_core::{DType, Tensor};
use half::{bf16, f16};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A student's weights, ready to be written.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    /// 4-bit linears by the name of their module (`model.layers.0.mlp.up_proj`).
    pub linears: BTreeMap<String, QuantLinear>,
    /// Everything else by tensor name, f32. The head is absent where it is the embedding.
    pub rest: BTreeMap<String, Tensor>,
}

/// A tensor as bytes.
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes the folder `to` of a GPTQ student: weights, config.json made from the base's,
/// quantize_config.json, and what conversations are made with, from the base folder `from`. Returns
/// the float type that the rest is stored in.
///
/// # Errors
/// A file that cannot be read or written, or weights that the layout cannot hold.
pub fn write_folder(to: &Path, from: &Path, weights: &Weights, damping: f64) -> Result<DType> {
    std::fs::create_dir_all(to).map_err(ExportError::writing(to))?;
    let group = common_group(weights)?;
    let dtype = float_type(&weights.rest)?;
    let mut tensors = BTreeMap::new();
    for (name, linear) in &weights.linears {
        add_packed(&mut tensors, name, &pack(linear)?);
    }
    for (name, tensor) in &weights.rest {
        tensors.insert(name.clone(), floats(tensor, dtype)?);
    }
    write_safetensors(&to.join("model.safetensors"), &tensors)?;
    let quantisation = config::quantisation(group, damping);
    let tied = !weights.rest.contains_key("lm_head.weight");
    write_config(to, from, (dtype, tied), Some(&quantisation))?;
    config::write_json(&to.join("quantize_config.json"), &quantisation)?;
    config::write_chat(from, to)?;
    Ok(dtype)
}

/// Writes the folder `to` of a student of floats, as [`write_folder`] does: `tensors` are all it has, stored
/// as `dtype`.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write_floats(
    to: &Path,
    from: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype: DType,
) -> Result<()> {
    std::fs::create_dir_all(to).map_err(ExportError::writing(to))?;
    let each = tensors.iter().map(|(name, tensor)| Ok((name.clone(), floats(tensor, dtype)?)));
    let raw = each.collect::<Result<BTreeMap<_, _>>>()?;
    write_safetensors(&to.join("model.safetensors"), &raw)?;
    write_config(to, from, (dtype, !tensors.contains_key("lm_head.weight")), None)?;
    config::write_chat(from, to)
}

/// Writes config.json, made from the base's.
fn write_config(
    to: &Path,
    from: &Path,
    (dtype, tied): (DType, bool),
    quantisation: Option<&Value>,
) -> Result<()> {
    let base = config::read_json(&from.join("config.json"))?;
    let name = match dtype {
        DType::F16 => "float16",
        DType::F32 => "float32",
        _ => "bfloat16",
    };
    let mut config = config::student_config(&base, name, quantisation)?;
    // A head of its own may stand beside a key that ties it: older readers would pass over the
    // head.
    config::set(&mut config, "tie_word_embeddings", tied.into());
    config::write_json(&to.join("config.json"), &config)
}

/// Readers take one group size for the whole model.
fn common_group(weights: &Weights) -> Result<usize> {
    let mut groups = weights.linears.values().map(QuantLinear::group);
    let first = groups
        .next()
        .ok_or_else(|| ExportError::Unsupported("there is no linear to quantise".into()))?;
    if groups.any(|g| g != first) {
        return Err(ExportError::Unsupported(
            "linears of one model have different group sizes".into(),
        ));
    }
    Ok(first)
}

/// f16, which holds the scales exactly and any bf16 weight of ordinary size too; bf16 where a value
/// exceeds f16.
pub(crate) fn float_type(rest: &BTreeMap<String, Tensor>) -> Result<DType> {
    for (name, tensor) in rest {
        let top = tensor.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
        if !top.is_finite() {
            return Err(ExportError::NotFinite(name.clone()));
        }
        if top > f16::MAX.to_f32() {
            return Ok(DType::BF16);
        }
    }
    Ok(DType::F16)
}

fn add_packed(tensors: &mut BTreeMap<String, Raw>, name: &str, packed: &PackedWeights) {
    let (n, k, g) = (packed.outputs, packed.inputs, packed.groups());
    let words = |values: &[i32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let scales = packed.scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut add = |part: &str, dtype, shape, bytes| {
        tensors.insert(format!("{name}.{part}"), Raw { dtype, shape, bytes })
    };
    add("qweight", Dtype::I32, vec![k / 8, n], words(&packed.qweight));
    add("qzeros", Dtype::I32, vec![g, n / 8], words(&packed.qzeros));
    add("scales", Dtype::F16, vec![g, n], scales);
    add("g_idx", Dtype::I32, vec![k], words(&packed.g_idx));
}

fn floats(tensor: &Tensor, dtype: DType) -> Result<Raw> {
    let flat = tensor.to_dtype(dtype)?.flatten_all()?;
    let (dtype, bytes) = match dtype {
        DType::F16 => {
            (Dtype::F16, flat.to_vec1::<f16>()?.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DType::F32 => {
            (Dtype::F32, flat.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        _ => (
            Dtype::BF16,
            flat.to_dtype(DType::BF16)?
                .to_vec1::<bf16>()?
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
    };
    Ok(Raw { dtype, shape: tensor.dims().to_vec(), bytes })
}

fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Raw>) -> Result<()> {
    let wrong = |e: SafeTensorError| match e {
        // A full disk, say: another machine may have room.
        SafeTensorError::IoError(source) => ExportError::writing(path)(source),
        other => ExportError::format(path, other),
    };
    let views = tensors.iter().map(|(name, raw)| {
        let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).map_err(wrong)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    // transformers refuses a file that does not say which framework's tensors these are.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(wrong)
}
