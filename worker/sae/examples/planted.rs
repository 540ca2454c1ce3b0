//! Whether a training finds a dictionary that was planted, and how fast; prints one JSON object.
//!
//! ```text
//! planted [KEY=VALUE ..]
//! ```
//!
//! Keys of what is planted: `planted` (512 features), `width` (128), `active` (8), `noise` (0.05), `steps`
//! (3,000). Keys of the SAE: those of its recipe, as JSON: `features=1024`, `kind=\"batchtopk\"`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;
use uspx_sae::Recipe;
use uspx_sae::planted::Planted;
use uspx_sae::trainer::Trainer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut planting = Planting { planted: 512, width: 128, active: 8, noise: 0.05, steps: 3000 };
    let mut recipe = Recipe { features: 512, ..Recipe::default() };
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').ok_or("arguments are KEY=VALUE")?;
        let value: Value = serde_json::from_str(value)?;
        if !(set(&mut planting, key, &value)? || set(&mut recipe, key, &value)?) {
            return Err(format!("{key} is not known").into());
        }
    }
    recipe.k = planting.active;
    let Planting { planted: features, width, active, noise, steps } = planting;
    let (kind, own) = (recipe.kind, recipe.features);

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
        "recipe": recipe,
        "kind": kind,
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

/// What is planted, and how long it is looked for.
#[derive(Serialize, Deserialize)]
struct Planting {
    planted: usize,
    width: usize,
    active: usize,
    noise: f32,
    steps: u64,
}

/// Sets the field of that name; `false` where there is none.
fn set<T: Serialize + DeserializeOwned>(
    into: &mut T,
    key: &str,
    value: &Value,
) -> Result<bool, Box<dyn Error>> {
    let mut all = serde_json::to_value(&*into)?;
    let Some(place) = all.get_mut(key) else { return Ok(false) };
    *place = value.clone();
    *into = serde_json::from_value(all)?;
    Ok(true)
}
