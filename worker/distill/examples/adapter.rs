//! What the parity scripts call: an adapter of random numbers as the blob that travels in a colony,
//! and our own logits with it.
//!
//! ```text
//! adapter BASE IDS.json OUT.safetensors    writes the blob; prints logits after each list, attached and merged
//! ```

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;
use std::error::Error;
use std::path::Path;
use uspx_distill::{lora, merged_weights, save_adapter};
use uspx_model::batch::{Batch, Sequence};
use uspx_model::checkpoint::Checkpoint;
use uspx_model::taps::NoTaps;
use uspx_model::{LoadedModel, Placement};

type Anything<T> = Result<T, Box<dyn Error>>;

/// Alpha is not the rank, so that a reader who forgets the scale is found out.
const RANK: usize = 8;
const ALPHA: f32 = 24.0;
const SEED: u64 = 7;

fn main() -> Anything<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, ids, out] = arguments.as_slice() else {
        return Err("usage: adapter BASE IDS.json OUT".into());
    };
    let (base, placement) = (Path::new(base), Placement::floats(DType::F32, &Device::Cpu));
    let ids: Vec<Vec<u32>> = serde_json::from_str(&std::fs::read_to_string(ids)?)?;
    let mut model = LoadedModel::open(base, placement.clone())?;
    attach_random(&mut model)?;
    std::fs::write(out, save_adapter(&model, RANK as u32, ALPHA)?)?;
    let merged = Checkpoint::in_memory(merged_weights(&model)?);
    let merged = LoadedModel::with_weights(base, merged, placement, model.fingerprint)?;
    println!("{}", json!({ "attached": logits(&model, &ids)?, "merged": logits(&merged, &ids)? }));
    Ok(())
}

/// B too: at the beginning of a training it is 0.
fn attach_random(model: &mut LoadedModel) -> Anything<()> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for pair in lora::attach(model, RANK, f64::from(ALPHA), SEED)? {
        let values: Vec<f32> =
            (0..pair.b.elem_count()).map(|_| random.random_range(-0.05..0.05)).collect();
        pair.b.set(&Tensor::from_vec(values, pair.b.shape(), pair.b.device())?)?;
    }
    Ok(())
}

fn logits(model: &LoadedModel, ids: &[Vec<u32>]) -> Anything<Vec<Vec<f32>>> {
    let each = |ids: &Vec<u32>| {
        let batch = Batch::new(&[&Sequence { ids: ids.clone(), response_start: ids.len() }])?;
        let frame = model.transformer.frame(&batch)?;
        let x = model.transformer.forward(&batch, &frame, &mut NoTaps)?;
        Ok(model.transformer.logits(&x, &batch.last_rows())?.flatten_all()?.to_vec1()?)
    };
    ids.iter().map(each).collect()
}
