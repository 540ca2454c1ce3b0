//! A checkpoint of gpt-oss-20b's shapes, traced with less memory than it has weights; and how long that takes against the
//! least that it could: every weight read once, and the multiplications at PyTorch's f32 rate on this machine.

use crate::bench::Bench;
use crate::checkpoint;
use crate::disk;
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report};
use crate::program::Done;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Real prompts with 2,000 tokens together.
const PROMPTS: usize = 46;

/// Budgets in GiB.
const BUDGETS: [u32; 2] = [4, 2];

/// The time may be so many times the bound.
const TIMES: f64 = 1.5;

/// Traces under each budget.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (model, shape) = bench.large()?;
    let shards = checkpoint::shards(&model)?;
    let disk = disk::read_rate(&shards)?;
    let detail = json!({"from_the_device_share": disk.cold, "file_bytes": disk.bytes});
    report.put(Figure::new("sequential_read", disk.bytes_per_second / 1e9, "GB/s", Bound::None, detail));
    let gflops = gemm(bench);
    if let Err(error) = &gflops {
        report.skip("memory_time", error.to_string());
    }
    for budget in BUDGETS {
        disk::forget(&shards)?;
        let done = trace(bench, &model, budget)?;
        let sampled = done.samples.iter().map(|s| s.rss).max().unwrap_or(0) as f64;
        let peak = done.number("peak_rss_bytes")?.max(sampled);
        let (seconds, tokens) = (done.seconds, done.number("tokens")?);
        let detail = json!({
            "peak_rss_bytes": peak,
            "tokens": tokens,
            "seconds": seconds,
            "batch_tokens": done.json.get("batch_tokens"),
            "files_read_times": done.read().map(|read| read as f64 / disk.bytes as f64),
        });
        let bound = Bound::Below(f64::from(budget));
        report.put(Figure::new(format!("memory_{budget}gib_peak"), peak / f64::from(1 << 30), "GiB", bound, detail));
        let Ok(gflops) = gflops else { continue };
        let (reading, products) =
            (disk.bytes as f64 / disk.bytes_per_second, tokens * shape.flops_per_token() / gflops / 1e9);
        let detail = json!({
            "seconds": seconds,
            "seconds_of_the_pass": tokens / done.number("tokens_per_second")?,
            "bound_seconds": reading + products,
            "bound_reading_seconds": reading,
            "bound_products_seconds": products,
            "gflops": gflops,
            "gflop_per_token": shape.flops_per_token() / 1e9,
        });
        let times = seconds / (reading + products);
        report.put(Figure::new(format!("memory_{budget}gib_time"), times, "of bound", Bound::Below(TIMES), detail));
    }
    Ok(())
}

/// PyTorch's f32 rate at this model's width.
fn gemm(bench: &Bench) -> Result<f64> {
    let done = bench.peer("gemm-large", "torch_gemm.py")?.args(["--threads", &bench.threads.to_string()]).json()?;
    let missing = || BenchError::Missing { program: "torch_gemm.py".into(), key: "gflops/2880".into() };
    done.json.pointer("/gflops/2880").and_then(Value::as_f64).ok_or_else(missing)
}

/// The whole command is timed, from start to end: the fingerprint of the weights counts as well.
fn trace(bench: &Bench, model: &Path, budget: u32) -> Result<Done> {
    let prompts: PathBuf = bench.prompts();
    let limit = if bench.quick { 4 } else { PROMPTS };
    let run = bench.uspx(&format!("memory-{budget}gib")).args(["probe", "trace", "--json", "--stream", "--model"]);
    let run = run.arg(model).arg("--prompts").arg(prompts).args(["--limit", &limit.to_string()]);
    run.args(["--memory", &format!("{budget}GiB"), "--threads", &bench.threads.to_string()]).json()
}
