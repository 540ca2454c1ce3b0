//! How much of the loss a sparse autoencoder recovers when it stands in for the residual stream.

use crate::Prompts;
use std::path::Path;
use uspx_bench_engine::cells::Cells;
use uspx_bench_engine::error::Result;
use uspx_bench_engine::figure::{Bound, Figure, Report};
use uspx_bench_engine::program::number;

/// A TopK SAE of 1,024 features with 8 active ones, on the middle layer.
const FLAGS: [&str; 4] = ["--features", "1024", "--k", "8"];
/// Held-out prompts that it is judged on.
const JUDGED: usize = 300;

/// Trains one on the shipped teacher, and adds the figure.
///
/// # Errors
/// Those of the run.
pub fn measure(cells: &Cells, model: &Path, prompts: &Prompts, report: &mut Report) -> Result<()> {
    let [model, fit] = [model, &prompts.fit].map(|p| p.to_string_lossy().into_owned());
    let out = cells.fresh("sae")?;
    let out = out.to_string_lossy();
    let judged = cells.first_lines(&prompts.heldout, JUDGED)?;
    let judged = judged.to_string_lossy();
    let common = ["probe", "sae", "--model", &model, "--prompts", &fit, "--heldout", &judged];
    let found = cells.run("sae", &[&common[..], &FLAGS, &["--out", &out]].concat())?;
    let detail = found.get("evaluation").cloned().unwrap_or_default();
    let recovered = number("uspx", &detail, "loss_recovered")?;
    report.put(Figure::new(
        "loss recovered by an SAE",
        recovered,
        "of 1",
        Bound::AtLeast(0.85),
        detail,
    ));
    Ok(())
}
