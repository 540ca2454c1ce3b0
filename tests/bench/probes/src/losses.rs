//! Losses of single prompts, read from what `uspx eval` and `uspx probe ablate` print.

use serde_json::Value;
use std::path::Path;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::paired::Losses;

/// The losses of a model on prompts, nats and response tokens each, whole or under a mask.
///
/// # Errors
/// Those of the run.
pub fn losses(
    cells: &Cells,
    model: &Path,
    (prompts, count): (&Path, usize),
    mask: Option<&Path>,
) -> Result<Losses> {
    let [model, prompts] = [model, prompts].map(|p| p.to_string_lossy().into_owned());
    let count = count.to_string();
    let common = ["--model", &model, "--prompts", &prompts, "--limit", &count];
    let mask = mask.map(|m| m.to_string_lossy().into_owned());
    let found = match &mask {
        Some(mask) => {
            cells.run("ablate", &[&["probe", "ablate"], &common[..], &["--mask", mask]].concat())?
        }
        None => cells.run("eval", &[&["eval"], &common[..]].concat())?,
    };
    let missing =
        || BenchError::Missing { program: "uspx".to_owned(), key: "per_prompt".to_owned() };
    let rows = found.get("per_prompt").and_then(Value::as_array).ok_or_else(missing)?;
    let row = |row: &Value| {
        let number = |key: &str| row.get(key).and_then(Value::as_f64);
        let tokens = number("tokens")?;
        Some((number("loss")? * tokens, tokens))
    };
    rows.iter().map(|r| row(r).ok_or_else(missing)).collect()
}

/// A mask of a model, as a file.
///
/// # Errors
/// Those of the run.
pub fn mask(
    cells: &Cells,
    model: &Path,
    (prompts, count): (&Path, usize),
    flags: &[&str],
) -> Result<std::path::PathBuf> {
    let [model, prompts] = [model, prompts].map(|p| p.to_string_lossy().into_owned());
    let (count, out) = (count.to_string(), cells.folder().join("mask-being-built.json"));
    let out = out.to_string_lossy();
    let common = ["mask", "build", "--model", &model, "--prompts", &prompts, "--limit", &count];
    let found = cells.run("mask", &[&common[..], flags, &["--out", &out]].concat())?;
    cells.file("mask", &found.to_string())
}
