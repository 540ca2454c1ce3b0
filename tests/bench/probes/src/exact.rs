//! `exact` against transformers with plain hooks: speed and agreement, as the engine's benchmark
//! measures them.

use serde_json::Value;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::{BenchError, Result};
use uspx_bench_engine::figure::{Bound, Figure, Report};

/// How many times as fast as the hooks, by figure of the engine's benchmark.
const SPEED: [(&str, f64); 2] = [("exact_nano", 5.0), ("exact_gptoss_flat", 2.5)];

/// Runs the engine's benchmark, and adds its figures.
///
/// # Errors
/// It cannot be run.
pub fn measure(cells: &Cells, report: &mut Report) -> Result<()> {
    let found = cells.engine(&["run", "--only", "exact"])?;
    let missing = |key: &str| BenchError::Missing {
        program: "uspx-bench-engine".to_owned(),
        key: key.to_owned(),
    };
    let figures =
        found.get("figures").and_then(Value::as_object).ok_or_else(|| missing("figures"))?;
    for (name, bound) in SPEED {
        let figure = figures.get(name).ok_or_else(|| missing(name))?;
        let times = figure.get("value").and_then(Value::as_f64).unwrap_or(f64::NAN);
        report.put(Figure::new(name, times, "times", Bound::AtLeast(bound), figure.clone()));
    }
    let holds = |figure: &Value| figure.get("holds").and_then(Value::as_bool) == Some(true);
    let apart = figures.values().filter(|figure| !holds(figure)).count();
    let failed = found.get("failed").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    report.put(Figure::new(
        "exact: figures that do not hold",
        (apart + failed) as f64,
        "figures",
        Bound::Below(1.0),
        found.clone(),
    ));
    Ok(())
}
