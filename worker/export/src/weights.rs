//! The student's tensors under their checkpoint names.

use crate::{ExportError, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use uspx_model::taps::Projection;
use uspx_model::transformer::Transformer;

/// Everything that stays a float: embedding, head where it is one of its own, norms, biases. f32 on
/// the CPU.
///
/// # Errors
/// Those of the tensor library, or a model that is not dense.
pub fn floats(student: &Transformer) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    let mut put = |name: String, tensor: &Tensor| -> Result<()> {
        tensors.insert(name, plain(tensor)?);
        Ok(())
    };
    put("model.embed_tokens.weight".into(), student.embedding()?.as_ref())?;
    put("model.norm.weight".into(), student.norm().gain())?;
    if !student.config().tied {
        put("lm_head.weight".into(), &student.head()?)?;
    }
    for (layer, block) in student.blocks()?.iter().enumerate() {
        put(format!("model.layers.{layer}.input_layernorm.weight"), block.attention_norm.gain())?;
        put(
            format!("model.layers.{layer}.post_attention_layernorm.weight"),
            block.mlp_norm.gain(),
        )?;
        for projection in Projection::DENSE {
            if let Some(bias) = student.linear(layer, projection)?.bias() {
                put(format!("{}.bias", projection.path(layer)), bias)?;
            }
        }
    }
    Ok(tensors)
}

/// Input widths of all linears.
///
/// # Errors
/// A model that is not dense.
pub fn input_widths(student: &Transformer) -> Result<Vec<usize>> {
    let places = (0..student.layers()).flat_map(|layer| Projection::DENSE.map(|p| (layer, p)));
    places.map(|(layer, p)| Ok(student.linear(layer, p)?.dims()?.1)).collect()
}

/// f32, on the CPU, contiguous, without history.
///
/// # Errors
/// Those of the tensor library.
pub fn plain(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
}

/// The values of a linear's weight; `name` is for the error.
///
/// # Errors
/// [`ExportError::NotFinite`] where one is not finite.
pub fn values(name: &str, weight: &Tensor) -> Result<Vec<f32>> {
    let values: Vec<f32> = plain(weight)?.flatten_all()?.to_vec1()?;
    if values.iter().all(|v| v.is_finite()) {
        Ok(values)
    } else {
        Err(ExportError::NotFinite(name.to_owned()))
    }
}
