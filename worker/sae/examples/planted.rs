//! Whether a training finds a dictionary that was planted, and how fast; prints one JSON object.
//!
//! ```text
//! planted [topk|batchtopk] [FEATURES] [DIMENSIONS] [ACTIVE] [NOISE] [STEPS] [SAE FEATURES]
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;
use std::error::Error;
use std::time::Instant;
use uspx_sae::planted::Planted;
use uspx_sae::trainer::Trainer;
use uspx_sae::{Kind, Recipe};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: f64| -> Result<f64, std::num::ParseFloatError> {
        arguments.get(at).map_or(Ok(default), |text| text.parse())
    };
    let kind = match arguments.first().map(String::as_str) {
        None | Some("topk") => Kind::TopK,
        Some("batchtopk") => Kind::BatchTopK,
        Some(_) => return Err("the kind is topk or batchtopk".into()),
    };
    let (features, width) = (number(1, 512.0)? as usize, number(2, 128.0)? as usize);
    let (active, noise) = (number(3, 8.0)? as usize, number(4, 0.05)? as f32);
    let (steps, own) = (number(5, 3000.0)? as u64, number(6, features as f64)? as usize);
    let recipe = Recipe { kind, features: own, k: active, ..Recipe::default() };

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let planted = Planted::new((features, width), active, noise, &mut random);
    let sample = planted.rows(8 * recipe.batch, &mut random);
    let mut trainer = Trainer::start(recipe, &sample, width, steps)?;
    let (start, mut last) = (Instant::now(), None);
    for _ in 0..steps {
        last = Some(trainer.learn(&mut planted.rows(recipe.batch, &mut random))?);
    }
    let sae = trainer.sae();
    let rows = planted.rows(4 * recipe.batch, &mut random);
    let (codes, _) = sae.through(&rows);
    let share = |bound: f32| planted.recovered(&sae.parameters, bound);
    let figures = json!({
        "kind": recipe.kind,
        "planted_features": features,
        "width": width,
        "active": active,
        "noise": noise,
        "features": own,
        "steps": steps,
        "tokens": steps * recipe.batch as u64,
        "recovered_at_cosine_0.9": share(0.9),
        "recovered_at_cosine_0.95": share(0.95),
        "l0": codes.active() as f64 / codes.rows() as f64,
        "loss": last.map(|l| l.loss),
        "dead": last.map(|l| l.dead),
        "seconds": start.elapsed().as_secs_f64(),
    });
    println!("{figures}");
    Ok(())
}
