//! The large checkpoint on a GPU: a trace against transformers with hooks in bf16, and gradients of
//! every unit. Needs a binary built with `--features cuda`.

use super::speed::{Engines, alternate};
use crate::bench::{Bench, Cut};
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report};
use serde_json::json;
use uspx_bench_engine::device::{used, watched};

/// How many times transformers' speed is asked for.
const TIMES: f64 = 2.0;

/// Sequences that the peer runs together: as on the CPU, and as many as suit a GPU.
const PEER_BATCHES: [usize; 2] = [32, 256];

/// Prompts that gradients are taken on.
const BACKWARD: usize = 32;

/// Measures where a GPU answers.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    if used().is_none() {
        return Err(BenchError::Absent(
            "no NVIDIA GPU answers here: nothing was measured on one".into(),
        ));
    }
    let (model, _) = bench.large()?;
    let tokens = bench.tokens(&model, bench.limit(), Cut::Real)?;
    for batch in PEER_BATCHES {
        let name = format!("gpu_trace_batch_{batch}");
        let engines =
            Engines { peer_device: "cuda", device: "cuda:0", dtype: "bf16", batch, passes: 4 };
        let (pair, peak) = watched(|| alternate(bench, &name, &model, &tokens, &engines));
        let pair = pair?;
        let detail = json!({"peak_device_bytes_of_both": peak, "rates": pair.detail()});
        report.put(Figure::new(name, pair.ratio(), "times", Bound::AtLeast(TIMES), detail));
    }
    let run = bench
        .uspx("gpu-backward")
        .args(["probe", "patch", "--method", "atp", "--json", "--model"])
        .arg(model);
    let run = run.arg("--prompts").arg(bench.prompts()).args([
        "--limit",
        &BACKWARD.to_string(),
        "--device",
        "cuda:0",
    ]);
    let (done, peak) = watched(|| run.json());
    let seconds = done?.number("seconds")?;
    let detail = json!({"prompts": BACKWARD, "peak_device_bytes": peak});
    report.put(Figure::new("gpu_backward", seconds, "seconds", Bound::None, detail));
    Ok(())
}
