//! What scores of all experts and heads cost, in forward passes of a prompt: a backward pass counts
//! two.

use crate::Prompts;
use crate::masks::name;
use serde_json::json;
use std::path::{Path, PathBuf};
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// Measures, and adds the figures: the share of `exact` that the cheap effects take.
///
/// # Errors
/// Those of the runs.
pub fn measure(
    cells: &Cells,
    models: &[PathBuf],
    prompts: &Prompts,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    for model in models {
        let cost = |method, units| passes(cells, model, (&prompts.fit, count), (method, units));
        let exact = cost("exact", "expert,head")?;
        let along = cost("eap-ig", "expert,head")?;
        let bans = cost("reroute", "expert")?;
        report.put(Figure::new(
            format!("{}: reroute + eap-ig of exact", name(model)),
            100.0 * (along + bans) / exact,
            "%",
            Bound::None,
            json!({ "exact": exact, "eap-ig": along, "reroute": bans }),
        ));
    }
    Ok(())
}

fn passes(
    cells: &Cells,
    model: &Path,
    (prompts, count): (&Path, usize),
    (method, units): (&str, &str),
) -> Result<f64> {
    let [model, prompts] = [model, prompts].map(|p| p.to_string_lossy().into_owned());
    let count = count.to_string();
    let found = cells.run(
        "patch",
        &[
            "probe",
            "patch",
            "--model",
            &model,
            "--prompts",
            &prompts,
            "--limit",
            &count,
            "--method",
            method,
            "--units",
            units,
        ],
    )?;
    let number = |key| number("uspx", &found, key);
    Ok(number("forwards")? + 2.0 * number("backwards")?)
}
