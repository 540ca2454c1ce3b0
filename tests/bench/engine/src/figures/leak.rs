//! No leak: one process traces 10,000 batches, and its memory stays what it was.

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::figure::{Bound, Figure, Report, median};
use crate::program::Sample;
use serde_json::json;
use std::ops::Range;

/// Prompts of different lengths, each a batch of its own.
const PROMPTS: usize = 250;

/// How often all of them are run.
const REPEATS: usize = 40;

/// Compares resident memory around the 2,000th batch with that around the last, as shares of the
/// time: every repetition takes as long as another.
pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let repeats = if bench.quick { REPEATS / 10 } else { REPEATS };
    let model = bench.root.join("cli/assets/nano/teacher");
    let run = bench
        .uspx("leak")
        .args(["probe", "trace", "--json", "--batch-tokens", "1", "--model"])
        .arg(model);
    let run =
        run.arg("--prompts").arg(bench.prompts()).args(["--threads", &bench.threads.to_string()]);
    let done =
        run.args(["--limit", &PROMPTS.to_string(), "--repeat", &repeats.to_string()]).json()?;
    let (Some(early), Some(late)) =
        (memory(&done.samples, 0.18..0.22), memory(&done.samples, 0.95..1.0))
    else {
        return Err(BenchError::Absent(
            "this system does not say how much memory a process has".into(),
        ));
    };
    let detail = json!({
        "batches": PROMPTS * repeats,
        "early_rss_bytes": early,
        "late_rss_bytes": late,
        "seconds": done.seconds,
    });
    report.put(Figure::new(
        "leak_growth",
        100.0 * (late / early - 1.0),
        "percent",
        Bound::Below(2.0),
        detail,
    ));
    Ok(())
}

/// The median of resident memory in a part of a run, in bytes.
fn memory(samples: &[Sample], part: Range<f64>) -> Option<f64> {
    let whole = samples.last()?.seconds;
    let within =
        samples.iter().filter(|s| part.start * whole <= s.seconds && s.seconds <= part.end * whole);
    let found: Vec<f64> = within.map(|s| s.rss as f64).collect();
    if found.is_empty() { None } else { Some(median(&found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_shows_in_the_parts_of_a_run() {
        let samples: Vec<Sample> = (0..=100)
            .map(|i| Sample { seconds: f64::from(i), rss: 100 + i as u64, read: 0 })
            .collect();
        assert_eq!(
            (memory(&samples, 0.18..0.22), memory(&samples, 0.95..1.0)),
            (Some(120.0), Some(197.5))
        );
        assert_eq!(memory(&[], 0.0..1.0), None);
    }
}
