//! LoRA (Hu et al. 2021) on every dense linear map: attaching, detaching, merging.

use crate::{DistillError, Result};
use candle_core::{DType, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::HashMap;
use uspx_model::LoadedModel;
use uspx_model::layers::adapter::Adapter;
use uspx_model::layers::linear::Linear;
use uspx_model::taps::Projection;

/// The trainable matrices of one linear map.
pub struct LoraPair {
    /// Its layer.
    pub layer: usize,
    /// Which map.
    pub projection: Projection,
    /// `[rank, in]`, f32.
    pub a: Var,
    /// `[out, rank]`, f32.
    pub b: Var,
}

/// Puts a fresh adapter on every linear map: A uniform with variance 1 / (3·in) as in PEFT's
/// default, B zero, so that the model starts as it was. The order of maps is fixed, so equal seeds
/// give equal adapters.
///
/// # Errors
/// A model whose layers are not dense.
pub fn attach(
    model: &mut LoadedModel,
    rank: usize,
    alpha: f64,
    seed: u64,
) -> Result<Vec<LoraPair>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut pairs = Vec::new();
    let on = model.transformer.device().clone();
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            let linear = model.transformer.linear_mut(layer, projection)?;
            let (out, into) = linear.dims()?;
            let bound = 1.0 / (into as f32).sqrt();
            let values: Vec<f32> =
                (0..rank * into).map(|_| random.random_range(-bound..bound)).collect();
            let a = Var::from_vec(values, (rank, into), &on)?;
            let b = Var::zeros((out, rank), DType::F32, &on)?;
            // The adapter shares the variables' storage: an optimiser's step is seen by the next
            // forward pass.
            let adapter = Adapter {
                a: a.as_tensor().clone(),
                b: b.as_tensor().clone(),
                scale: alpha / rank as f64,
            };
            linear.adapter = Some(adapter);
            pairs.push(LoraPair { layer, projection, a, b });
        }
    }
    Ok(pairs)
}

/// Makes variables of the adapters that hang on the model: they go on from where they are.
///
/// # Errors
/// A linear map without an adapter, or a model whose layers are not dense.
pub(crate) fn going_on(model: &mut LoadedModel) -> Result<Vec<LoraPair>> {
    let mut pairs = Vec::new();
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            let linear = model.transformer.linear_mut(layer, projection)?;
            let adapter = linear.adapter.as_mut().ok_or_else(|| {
                DistillError::Adapter(format!("{} has none", projection.path(layer)))
            })?;
            let (a, b) = (variable(&adapter.a)?, variable(&adapter.b)?);
            (adapter.a, adapter.b) = (a.as_tensor().clone(), b.as_tensor().clone());
            pairs.push(LoraPair { layer, projection, a, b });
        }
    }
    Ok(pairs)
}

/// A variable of its own storage, that starts at a value.
fn variable(start: &Tensor) -> Result<Var> {
    Ok(Var::from_tensor(&start.detach().copy()?)?)
}

/// The adapters that hang on the model learn no more: what is run through them leaves no graph.
///
/// # Errors
/// A model whose layers are not dense.
pub(crate) fn settle(model: &mut LoadedModel) -> Result<()> {
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            let linear = model.transformer.linear_mut(layer, projection)?;
            linear.adapter = linear.adapter.as_ref().map(Adapter::detached);
        }
    }
    Ok(())
}

/// The shapes of what [`attach`] makes, in its order: A and B of every linear map.
///
/// # Errors
/// A model whose layers are not dense.
pub(crate) fn shapes(model: &LoadedModel, rank: usize) -> Result<Vec<(usize, usize)>> {
    let mut shapes = Vec::new();
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            let (out, into) = model.transformer.linear(layer, projection)?.dims()?;
            shapes.extend([(rank, into), (out, rank)]);
        }
    }
    Ok(shapes)
}

/// Takes all adapters off: the model is its base again.
///
/// # Errors
/// A model whose layers are not dense.
pub fn detach(model: &mut LoadedModel) -> Result<()> {
    for layer in 0..model.transformer.layers() {
        for projection in Projection::DENSE {
            model.transformer.linear_mut(layer, projection)?.adapter = None;
        }
    }
    Ok(())
}

/// Every tensor of the model under its Hugging Face name, adapters merged into the weights.
///
/// `lm_head.weight` is there only where it is not the embedding. Weights keep the dtype that the
/// model was loaded with.
///
/// # Errors
/// A model whose layers are not dense.
pub fn merged_weights(model: &LoadedModel) -> Result<HashMap<String, Tensor>> {
    let transformer = &model.transformer;
    let mut all = HashMap::new();
    all.insert("model.embed_tokens.weight".to_owned(), transformer.embedding()?.into_owned());
    all.insert("model.norm.weight".to_owned(), transformer.norm().gain().clone());
    if !transformer.config().tied {
        all.insert("lm_head.weight".to_owned(), transformer.head()?);
    }
    for (layer, block) in transformer.blocks()?.iter().enumerate() {
        let at = format!("model.layers.{layer}");
        all.insert(format!("{at}.input_layernorm.weight"), block.attention_norm.gain().clone());
        all.insert(format!("{at}.post_attention_layernorm.weight"), block.mlp_norm.gain().clone());
        for projection in Projection::DENSE {
            insert_linear(
                &mut all,
                &projection.path(layer),
                transformer.linear(layer, projection)?,
            )?;
        }
    }
    Ok(all)
}

fn insert_linear(all: &mut HashMap<String, Tensor>, path: &str, linear: &Linear) -> Result<()> {
    all.insert(format!("{path}.weight"), linear.merged()?);
    if let Some(bias) = linear.bias() {
        all.insert(format!("{path}.bias"), bias.clone());
    }
    Ok(())
}
