//! The large checkpoint on a GPU: a trace against transformers with hooks in bf16, and gradients of
//! every unit. Needs a binary built with `--features cuda`.

use super::speed::{Engines, alternate};
use crate::bench::{Bench, Cut};
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report};
use serde_json::json;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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

/// What `work` gives, and the most memory that was used on the device meanwhile, in bytes.
fn watched<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (peak, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(used().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        result
    });
    (result, peak.into_inner())
}

/// Memory in use on the first device, in bytes.
fn used() -> Option<u64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let mebibytes: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}
