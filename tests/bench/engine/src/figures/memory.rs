//! A checkpoint of gpt-oss-20b's shapes, traced with less memory than it has weights; and how long
//! that takes against the least that it could: every weight read once, and the multiplications at
//! PyTorch's f32 rate on this machine.

use crate::bench::{Bench, Cut};
use crate::checkpoint::{self, GptOss};
use crate::disk::{self, Reading};
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report};
use crate::program::Done;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// A budget in GiB, and how many real prompts are traced under it.
struct Case {
    name: &'static str,
    gib: u32,
    prompts: usize,
}

/// 2,000 tokens under either budget, and as many as fill a batch of the smaller one.
const CASES: [Case; 3] = [
    Case { name: "memory_4gib", gib: 4, prompts: 50 },
    Case { name: "memory_2gib", gib: 2, prompts: 50 },
    Case { name: "memory_2gib_full", gib: 2, prompts: 150 },
];

/// The time may be so many times the bound.
const TIMES: f64 = 1.5;

/// Traces under each budget.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (model, shape) = bench.large()?;
    let shards = checkpoint::shards(&model)?;
    let disk = disk::read_rate(&shards)?;
    let detail = json!({"from_the_device_share": disk.cold, "file_bytes": disk.bytes});
    report.put(Figure::new(
        "sequential_read",
        disk.bytes_per_second / 1e9,
        "GB/s",
        Bound::None,
        detail,
    ));
    for case in CASES {
        let case = Case { prompts: if bench.quick { 4 } else { case.prompts }, ..case };
        disk::forget(&shards)?;
        let done = trace(bench, &model, &case)?;
        report.put(peak(&case, &done, &disk)?);
        let name = format!("{}_time", case.name);
        match time(bench, name.clone(), &case, &done, &disk, (&model, &shape)) {
            Err(BenchError::Absent(why)) => report.skip(&name, why),
            figure => report.put(figure?),
        }
    }
    Ok(())
}

/// The whole command is timed, from start to end: the fingerprint of the weights counts as well.
fn trace(bench: &Bench, model: &Path, case: &Case) -> Result<Done> {
    let run =
        bench.uspx(case.name).args(["probe", "trace", "--json", "--stream", "--model"]).arg(model);
    let run =
        run.arg("--prompts").arg(bench.prompts()).args(["--limit", &case.prompts.to_string()]);
    run.args(["--memory", &format!("{}GiB", case.gib), "--threads", &bench.threads.to_string()])
        .json()
}

/// The most memory that was resident: as the binary says, or as was seen from outside.
fn peak(case: &Case, done: &Done, disk: &Reading) -> Result<Figure> {
    let seen = done.samples.iter().map(|s| s.rss).max().unwrap_or(0) as f64;
    let peak = done.number("peak_rss_bytes")?.max(seen);
    let detail = json!({
        "peak_rss_bytes": peak,
        "tokens": done.number("tokens")?,
        "batch_tokens": done.json.get("batch_tokens"),
        "files_read_times": done.read().map(|read| read as f64 / disk.bytes as f64),
    });
    let (value, bound) = (peak / f64::from(1 << 30), Bound::Below(f64::from(case.gib)));
    Ok(Figure::new(format!("{}_peak", case.name), value, "GiB", bound, detail))
}

/// Seconds over the least there could be. Beginnings that prompts share need be multiplied once:
/// they count once.
fn time(
    bench: &Bench,
    name: String,
    case: &Case,
    done: &Done,
    disk: &Reading,
    (model, shape): (&Path, &GptOss),
) -> Result<Figure> {
    let gflops = gemm(bench)?;
    let distinct = distinct(&bench.tokens(model, case.prompts, Cut::Real)?)?;
    let reading = disk.bytes as f64 / disk.bytes_per_second;
    let products = distinct as f64 * shape.flops_per_token() / gflops / 1e9;
    let tokens = done.number("tokens")?;
    let detail = json!({
        "seconds": done.seconds,
        "seconds_of_the_pass": tokens / done.number("tokens_per_second")?,
        "bound_seconds": reading + products,
        "bound_reading_seconds": reading,
        "bound_products_seconds": products,
        "tokens": tokens,
        "distinct_tokens": distinct,
        "gflops": gflops,
        "gflop_per_token": shape.flops_per_token() / 1e9,
    });
    Ok(Figure::new(
        name,
        done.seconds / (reading + products),
        "of bound",
        Bound::Below(TIMES),
        detail,
    ))
}

/// PyTorch's f32 rate at this model's width.
fn gemm(bench: &Bench) -> Result<f64> {
    let done = bench
        .peer("gemm-large", "torch_gemm.py")?
        .args(["--threads", &bench.threads.to_string()])
        .json()?;
    let missing =
        || BenchError::Missing { program: "torch_gemm.py".into(), key: "gflops/2880".into() };
    done.json.pointer("/gflops/2880").and_then(Value::as_f64).ok_or_else(missing)
}

/// Tokens of a token file that differ in what comes before them.
fn distinct(path: &Path) -> Result<usize> {
    #[derive(Deserialize)]
    struct Line {
        ids: Vec<u32>,
    }
    let text = std::fs::read_to_string(path).map_err(BenchError::file(path))?;
    let mut beginnings = HashSet::new();
    for line in text.lines() {
        let missing = |_| BenchError::Missing { program: "tokens.py".into(), key: "ids".into() };
        let line: Line = serde_json::from_str(line).map_err(missing)?;
        let mut hasher = DefaultHasher::new();
        for id in line.ids {
            id.hash(&mut hasher);
            beginnings.insert(hasher.finish());
        }
    }
    Ok(beginnings.len())
}

#[cfg(test)]
mod tests {
    #[test]
    fn shared_beginnings_count_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "{\"ids\": [1, 2, 3]}\n{\"ids\": [1, 2, 4, 3]}\n{\"ids\": [2]}\n",
        )
        .unwrap();
        assert_eq!(super::distinct(file.path()).unwrap(), 3 + 2 + 1);
    }
}
