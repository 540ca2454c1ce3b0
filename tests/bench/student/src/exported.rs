//! A student of Llama-3.1-8B's shapes, two layers of it, of random weights: what writing it in 4 bits takes, of
//! memory whatever its depth, and how long all 32 layers would take.

use crate::Prompts;
use serde_json::{Value, json};
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::checkpoint::{self, Llama};
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// What an export has; an 8 GB machine has twice as much.
const ROOM: f64 = 3.0;
/// Prompts that calibrate.
const PROMPTS: usize = 128;
const FORMATS: [(&str, &str); 2] =
    [("gptq", "8B: two layers as GPTQ"), ("gguf", "8B: two layers as GGUF")];

/// Measures, and adds a figure for each format.
///
/// # Errors
/// A run that fails, or a disk without room for the checkpoint (3 GB).
pub fn measure(cells: &Cells, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let shape = Llama { layers: 2, ..Llama::default() };
    let two = cells.folder().join("llama-8b-2");
    checkpoint::write(&two, &shape, 0)?;
    let calibrating = cells.first_lines(&prompts.train.0, PROMPTS)?;
    for (format, name) in FORMATS {
        let out = cells.fresh(format)?;
        let files = [&two, &calibrating, &out].map(|p| p.to_string_lossy());
        let [student, calibrating, out] = &files;
        let whom = ["export", "--model", student, "--prompts", calibrating, "--out", out];
        let how = ["--format", format, "--finish", "0", "--memory", &format!("{ROOM}GiB")];
        let found = cells.once(format, &[&whom[..], &how].concat())?;
        report.put(figure(name, &found, shape.layers)?);
    }
    Ok(())
}

fn figure(name: &'static str, found: &Value, layers: usize) -> Result<Figure> {
    let peak = number("uspx", found, "peak_rss_bytes")? / f64::from(1 << 30);
    let said = |key: &str| found.get(key).cloned().unwrap_or(Value::Null);
    let timing = said("timing");
    let part = |key: &str| number("uspx", &timing, key);
    let by_layer = ["passes", "hessians", "factoring", "rounding"].map(part);
    let by_layer: f64 = by_layer.into_iter().sum::<Result<f64>>()? / layers as f64;
    let whole = 32.0 * by_layer + part("writing")? + part("reading")?;
    if said("finish") != Value::Null {
        return Err(BenchError::Shape("the export had a finish, and was to have none".into()));
    }
    let detail = json!({
        "device": "cpu",
        "calibration_tokens": said("calibration_tokens"),
        "seconds": said("seconds"),
        "timing": timing,
        "seconds_by_layer": by_layer,
        "hours_of_32_layers": whole / 3600.0,
        "bytes": said("bytes"),
    });
    Ok(Figure::new(name, peak, "GiB", Bound::Below(ROOM), detail))
}
