//! Teaching a student and writing it, as cells.

use crate::Prompts;
use serde_json::Value;
use std::path::{Path, PathBuf};
use uspx_bench_engine::cells::{Cells, Killed};
use uspx_bench_engine::error::{BenchError, Result};

/// The adapter of a training by these flags; killed, it goes on where it was.
///
/// # Errors
/// Those of the run.
pub fn adapter(
    cells: &Cells,
    who: (&Path, &Path),
    flags: &[&str],
    prompts: &Prompts,
) -> Result<PathBuf> {
    Ok(trained(cells, who, (flags, Killed::State("--checkpoint")), prompts)?.0)
}

/// The same, with what the training printed.
///
/// # Errors
/// Those of the run.
pub fn trained(
    cells: &Cells,
    (teacher, student): (&Path, &Path),
    (flags, after): (&[&str], Killed<'_>),
    prompts: &Prompts,
) -> Result<(PathBuf, Value)> {
    let [teacher, student, train] =
        [teacher, student, &prompts.train.0].map(|p| p.to_string_lossy());
    let count = prompts.train.1.to_string();
    let whom = ["distill", "--teacher", &teacher, "--student", &student];
    let what = ["--prompts", &train, "--limit", &count];
    cells.made("distill", &[&whom[..], &what, flags].concat(), after)
}

/// A student with its adapter, written by these flags: its folder, or its GGUF file.
///
/// # Errors
/// Those of the run.
pub fn exported(
    cells: &Cells,
    (student, adapter): (&Path, &Path),
    flags: &[&str],
    prompts: &Prompts,
) -> Result<PathBuf> {
    let [student, adapter, train] =
        [student, adapter, &prompts.train.0].map(|p| p.to_string_lossy());
    let count = prompts.train.1.to_string();
    let whom = ["export", "--model", &student, "--adapter", &adapter];
    let what = ["--prompts", &train, "--limit", &count];
    let out = cells.made("export", &[&whom[..], &what, flags].concat(), Killed::Anew)?.0;
    let gguf = out.join("student.gguf");
    Ok(if gguf.exists() { gguf } else { out })
}

/// Values of a row of a model's residual stream.
///
/// # Errors
/// Its configuration cannot be read, or does not say.
pub fn width(model: &Path) -> Result<u64> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(BenchError::file(&path))?;
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let width = config.get("hidden_size").and_then(Value::as_u64);
    width.ok_or_else(|| BenchError::Shape(format!("{} names no hidden_size", path.display())))
}
