//! A student of Llama-3.1-8B's shapes, of random weights: what a step of its training in NF4 takes, and how fast
//! two of its layers train beside PyTorch, which holds them as floats.

use crate::Prompts;
use crate::pace::{Same, beside};
use serde_json::{Value, json};
use std::path::Path;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::checkpoint::{self, Llama};
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// What an 8 GB laptop has left for a training.
const ROOM: f64 = 7.0;
/// Tokens of the step. On a GPU it is to be 1,024; NF4 is multiplied on the CPU alone so far.
const STEP: &str = "128";

/// Measures, and adds the figures.
///
/// # Errors
/// A run that fails, or a disk without room for the checkpoint (16 GB).
pub fn measure(
    cells: &Cells,
    (root, teacher): (&Path, &Path),
    (prompts, threads): (&Prompts, usize),
    report: &mut Report,
) -> Result<()> {
    step(cells, teacher, prompts, report)?;
    let two = cells.folder().join("llama-8b-2");
    checkpoint::write(&two, &Llama { layers: 2, ..Llama::default() }, 0)?;
    let same = Same { student: &two, count: "24", rank: "16", step: "512", own: &["--nf4"] };
    let figure = ("8B: two layers in NF4 beside floats", Bound::None);
    beside(cells, (root, same), (prompts, threads), (figure, report))
}

/// One step of the whole.
fn step(cells: &Cells, teacher: &Path, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let whole = cells.folder().join("llama-8b");
    checkpoint::write(&whole, &Llama::default(), 0)?;
    let (learned, judged) =
        (cells.first_lines(&prompts.train.0, 4)?, cells.first_lines(&prompts.heldout.0, 1)?);
    let out = cells.fresh("full")?;
    let files = [teacher, &whole, &learned, &judged, &out].map(|p| p.to_string_lossy());
    let [teacher, student, learned, judged, out] = &files;
    let whom = ["distill", "--teacher", teacher, "--student", student, "--nf4", "--out", out];
    let what = ["--prompts", learned, "--validation", judged, "--teacher-weight", "0"];
    let how = ["--epochs", "1", "--rank", "16", "--learning-rate", "1e-4", "--step-tokens", STEP];
    let memory = format!("{ROOM}GiB");
    let found = cells.once("full", &[&whom[..], &what, &how, &["--memory", &memory]].concat())?;
    let peak = number("uspx", &found, "peak_rss_bytes")? / f64::from(1 << 30);
    let said = |key: &str| found.get(key).cloned().unwrap_or(Value::Null);
    if said("steps") != 1 {
        let why = format!("{} steps of {STEP} tokens were made, not one", said("steps"));
        return Err(BenchError::Shape(why));
    }
    let detail = json!({
        "device": "cpu",
        "tokens": said("trained_tokens"),
        "tokens_per_second": said("trained_tokens_per_second"),
        "seconds": said("seconds"),
        "loss_before": said("loss_before"),
        "loss_after": said("loss_after"),
    });
    report.put(Figure::new("8B: a step in NF4", peak, "GiB", Bound::Below(ROOM), detail));
    Ok(())
}
