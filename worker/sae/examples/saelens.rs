//! What the parity script calls: an SAE of SAELens, used here and written again.
//!
//! ```text
//! saelens FOLDER ROWS.json OUT    prints what the SAE in FOLDER makes of the rows, {"codes": [[..]], "made": [[..]]},
//!                                 and writes it to OUT
//! ```

use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use uspx_sae::saelens;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rows, out] = arguments.as_slice() else {
        return Err("usage: saelens FOLDER ROWS.json OUT".into());
    };
    let (sae, about) = saelens::read(Path::new(folder))?;
    let rows: Vec<Vec<f32>> = serde_json::from_slice(&std::fs::read(rows)?)?;
    let (codes, made) = sae.through(&rows.concat());
    let dense = |row: usize| {
        let mut all = vec![0.0; sae.parameters.features()];
        for (feature, value) in codes.row(row) {
            all.get_mut(feature as usize).into_iter().for_each(|place| *place = value);
        }
        all
    };
    let codes: Vec<Vec<f32>> = (0..codes.rows()).map(dense).collect();
    let made: Vec<&[f32]> = made.chunks(sae.parameters.width).collect();
    println!("{}", json!({"codes": codes, "made": made}));
    std::fs::create_dir_all(out)?;
    saelens::write(Path::new(out), &sae, &about, &Value::Null)?;
    Ok(())
}
