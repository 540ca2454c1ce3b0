//! An adapter as one blob: PEFT's `adapter_model.safetensors`, in its header PEFT's
//! `adapter_config.json` and the base that it belongs to. A release holds the two apart, as `peft`
//! looks for them.

use crate::peft::PeftConfig;
use crate::{DistillError, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uspx_domain::Fingerprint;
use uspx_model::LoadedModel;
use uspx_model::layers::adapter::Adapter;
use uspx_model::taps::Projection;

/// The header's key.
const KEY: &str = "uspx_adapter";
/// The format's version.
const VERSION: u32 = 2;

/// What an adapter is and belongs to. One key of the header holds it all: with several, equal
/// adapters would not give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// The format's version: 2.
    pub version: u32,
    /// The model it was trained on.
    pub base: Fingerprint,
    /// Rank, alpha and what else PEFT's `adapter_config.json` says.
    pub peft: PeftConfig,
}

/// The header's beginning, the same in every version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn bad(reason: impl std::fmt::Display) -> DistillError {
    DistillError::Adapter(reason.to_string())
}

fn name(layer: usize, projection: Projection, which: &str) -> String {
    format!("base_model.model.{}.lora_{which}.weight", projection.path(layer))
}

fn places(model: &LoadedModel) -> impl Iterator<Item = (usize, Projection)> + use<> {
    (0..model.transformer.layers()).flat_map(|layer| Projection::DENSE.map(|p| (layer, p)))
}

/// The model's adapters as safetensors bytes; equal adapters give equal bytes.
///
/// # Errors
/// A linear map without an adapter, or adapters of different rank.
pub fn save_adapter(model: &LoadedModel, rank: u32, alpha: f32) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (layer, projection) in places(model) {
        let linear = model.transformer.linear(layer, projection)?;
        let adapter = linear.adapter.as_ref();
        let adapter =
            adapter.ok_or_else(|| bad(format!("{} has no adapter", projection.path(layer))))?;
        for (which, tensor) in [("A", &adapter.a), ("B", &adapter.b)] {
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((name(layer, projection, which), tensor.dims().to_vec(), bytes));
        }
    }
    let view =
        |(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape, bytes).map_err(bad)?));
    let views = tensors
        .iter()
        .map(|(n, s, b)| view((n.as_str(), s.clone(), b.as_slice())))
        .collect::<Result<Vec<_>>>()?;
    let base = model.fingerprint;
    let info = AdapterInfo { version: VERSION, base, peft: PeftConfig::dense(base, rank, alpha) };
    let header = HashMap::from([(KEY.to_owned(), serde_json::to_string(&info).map_err(bad)?)]);
    safetensors::serialize(views, Some(header)).map_err(bad)
}

/// Reads an adapter onto the model it was trained on.
///
/// # Errors
/// [`DistillError::OtherBase`] for another model, [`DistillError::Adapter`] for a damaged file. The
/// model is then unchanged.
pub fn load_adapter(model: &mut LoadedModel, bytes: &[u8]) -> Result<AdapterInfo> {
    let info = read_info(bytes)?;
    if info.base != model.fingerprint {
        return Err(DistillError::OtherBase { found: info.base, here: model.fingerprint });
    }
    let file = SafeTensors::deserialize(bytes).map_err(bad)?;
    let mut read = Vec::new();
    for (layer, projection) in places(model) {
        let (out, into) = model.transformer.linear_dims(layer, projection)?;
        let device = model.transformer.device();
        let rank = info.peft.r as usize;
        let a = matrix(&file, &name(layer, projection, "A"), (rank, into), device)?;
        let b = matrix(&file, &name(layer, projection, "B"), (out, rank), device)?;
        let scale = f64::from(info.peft.lora_alpha) / f64::from(info.peft.r);
        read.push((layer, projection, Adapter { a, b, scale }));
    }
    for (layer, projection, adapter) in read {
        model.transformer.attach(layer, projection, adapter)?;
    }
    Ok(info)
}

fn read_info(bytes: &[u8]) -> Result<AdapterInfo> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(bad)?;
    let header = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get(KEY))
        .ok_or_else(|| bad("its header names no base"))?;
    let Versioned { version } = serde_json::from_str(header).map_err(bad)?;
    if version != VERSION {
        return Err(bad(format!("format version {version} is not known here ({VERSION} is)")));
    }
    serde_json::from_str(header).map_err(bad)
}

/// A matrix of a file, every number finite.
pub(crate) fn matrix(
    file: &SafeTensors<'_>,
    name: &str,
    shape: (usize, usize),
    device: &Device,
) -> Result<Tensor> {
    let view = file.tensor(name).map_err(|e| bad(format!("{name}: {e}")))?;
    if view.dtype() != Dtype::F32 || view.shape() != [shape.0, shape.1] {
        return Err(bad(format!(
            "{name} is {:?} {:?}, F32 {shape:?} was expected",
            view.dtype(),
            view.shape()
        )));
    }
    let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, &[shape.0, shape.1], device)?;
    let sum = tensor.sum_all()?.to_scalar::<f32>()?;
    if sum.is_finite() {
        Ok(tensor)
    } else {
        Err(bad(format!("{name} holds numbers that are not finite")))
    }
}
