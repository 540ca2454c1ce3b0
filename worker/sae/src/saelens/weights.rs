//! `sae_weights.safetensors`: the tensors of an SAE, and what is folded when they are read so that
//! one computation serves all.

use super::config::{Architecture, Config};
use crate::number::dot;
use crate::parameters::Parameters;
use crate::sae::Sae;
use crate::select::Select;
use crate::{Result, SaeError};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::Path;
use uspx_model::whole_file::{self, floats};

/// The smallest norm that SAELens divides by.
const LEAST_NORM: f32 = 1e-8;

pub(super) fn write(path: &Path, sae: &Sae<f32>) -> Result<()> {
    let p = &sae.parameters;
    let (width, features) = (p.width, p.features());
    let mut all = vec![
        floats("W_enc", &[width, features], &transposed(&p.encoder, width)),
        floats("W_dec", &[features, width], &p.decoder),
        floats("b_enc", &[features], &p.encoder_bias),
        floats("b_dec", &[width], &p.decoder_bias),
    ];
    if let Select::Above(thresholds) = &sae.select {
        all.push(floats("threshold", &[features], thresholds));
    }
    whole_file::tensors(path, &all, None).map_err(SaeError::file(path))
}

pub(super) fn read(path: &Path, config: &Config) -> Result<Sae<f32>> {
    let bytes = std::fs::read(path).map_err(SaeError::file(path))?;
    let refuse = |reason: String| SaeError::format(path, reason);
    let all = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| refuse(format!("this is no safetensors file: {e}. Fetch it again")))?;
    let file = File { path, all };
    let (width, features) = (config.width, config.features);
    if file.all.contains_key("scaling_factor")
        && file.list("scaling_factor", &[features])?.iter().any(|f| *f != 1.0)
    {
        return Err(refuse(
            "it has a scaling_factor (finetuned by an old SAELens), which is not known here".into(),
        ));
    }
    let mut parameters = Parameters {
        width,
        encoder: transposed(&file.list("W_enc", &[width, features])?, features),
        encoder_bias: file.list("b_enc", &[features])?,
        decoder: file.list("W_dec", &[features, width])?,
        decoder_bias: file.list("b_dec", &[width])?,
    };
    // Chosen by activation × norm: with the norms in the encoder that is by activation.
    if config.by_norm
        && matches!(config.architecture, Architecture::TopK(_) | Architecture::BatchTopK)
    {
        fold_norms(&mut parameters);
    }
    // (x − b)·W + c is x·W + (c − b·W): where the bias is not taken from the input, it is given back.
    if !config.centres {
        let p = &mut parameters;
        for (bias, row) in p.encoder_bias.iter_mut().zip(p.encoder.chunks_exact(width)) {
            *bias += dot(row, &p.decoder_bias);
        }
    }
    let select = match config.architecture {
        Architecture::Standard => Select::Positive,
        Architecture::TopK(k) if k <= features => Select::TopK(k),
        Architecture::TopK(k) => return Err(refuse(format!("k is {k}, of {features} features"))),
        Architecture::JumpRelu => Select::Above(file.list("threshold", &[features])?),
        Architecture::BatchTopK => {
            let threshold = file.list("topk_threshold", &[])?;
            Select::Above(threshold.into_iter().cycle().take(features).collect())
        }
    };
    Ok(Sae { parameters, select, normalisation: config.normalisation })
}

/// An opened file.
struct File<'a> {
    path: &'a Path,
    all: HashMap<String, Tensor>,
}

impl File<'_> {
    /// A tensor's values, whatever float they are stored as.
    fn list(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let refuse = |reason: String| SaeError::format(self.path, reason);
        let tensor = self.all.get(name).ok_or_else(|| {
            refuse(format!(
                "tensor `{name}` is missing: cfg.json names an architecture that has it"
            ))
        })?;
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(refuse(format!(
                "tensor `{name}` is {found:?}, by cfg.json it is {shape:?}"
            )));
        }
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(refuse(format!("tensor `{name}` holds numbers that are not finite"))),
        }
    }
}

/// Moves the norms of the decoder's rows into the encoder.
fn fold_norms(p: &mut Parameters<f32>) {
    let rows = p.decoder.chunks_exact_mut(p.width).zip(p.encoder.chunks_exact_mut(p.width));
    for ((decoder, encoder), bias) in rows.zip(&mut p.encoder_bias) {
        let norm = dot(decoder, decoder).sqrt().max(LEAST_NORM);
        decoder.iter_mut().for_each(|x| *x /= norm);
        encoder.iter_mut().for_each(|x| *x *= norm);
        *bias *= norm;
    }
}

/// A matrix with rows of `width` values, turned.
fn transposed(matrix: &[f32], width: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(matrix.len());
    for column in 0..width {
        turned.extend(matrix.iter().skip(column).step_by(width.max(1)));
    }
    turned
}
