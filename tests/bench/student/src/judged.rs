//! Bits of single held-out prompts, read from what `uspx eval` prints.

use crate::Prompts;
use serde_json::Value;
use std::f64::consts::LN_2;
use std::path::Path;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::paired::Losses;
use uspx_bench_engine::program;

/// What a model is worth on held-out prompts.
pub struct Judged {
    /// Bits and bytes of every answer.
    pub bits: Losses,
    /// Share of the prompts that it answers with the reference.
    pub exact: f64,
}

impl Judged {
    /// Bits per byte of all answers together.
    pub fn bits_per_byte(&self) -> f64 {
        let (bits, bytes) = self.bits.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        bits / bytes
    }
}

/// Judges a model's folder, or a GGUF file.
///
/// # Errors
/// Those of the run.
pub fn judged(cells: &Cells, model: &Path, prompts: &Prompts) -> Result<Judged> {
    let (file, count) = &prompts.heldout;
    let [model, file] = [model, file].map(|p| p.to_string_lossy().into_owned());
    let args = ["eval", "--model", &model, "--prompts", &file, "--limit", &count.to_string()];
    let found = cells.run("eval", &[&args[..], &["--exact-match"]].concat())?;
    let rows = found.get("per_prompt").and_then(Value::as_array);
    let row = |row: &Value| {
        let number = |key: &str| row.get(key).and_then(Value::as_f64);
        Some((number("loss")? * number("tokens")? / LN_2, number("bytes")?))
    };
    let bits = rows.and_then(|rows| rows.iter().map(row).collect::<Option<Losses>>());
    let missing =
        || BenchError::Missing { program: "uspx".to_owned(), key: "per_prompt".to_owned() };
    let bits = bits.ok_or_else(missing)?;
    Ok(Judged { bits, exact: program::number("uspx", &found, "exact_match")? })
}
